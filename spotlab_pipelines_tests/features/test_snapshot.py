"""From Redis to committed decisions' tables: frozen before anything is predicted, and refused if anything is stale."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pandas as pd
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.tables import Instance
from spotlab_pipelines.errors import IntegrityError, MarketDataMissing, MarketDataStale, ModelUnknown, NotFound
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.tracking import record_evaluation
from spotlab_pipelines.features.drift import drift_of, reference_of
from spotlab_pipelines.features.frames import check_features
from spotlab_pipelines.features.snapshot import freeze_snapshot, recompute_features
from spotlab_pipelines.features.specs import V1
from spotlab_pipelines.features.windows import price_windows
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import price_key, risk_key
from spotlab_pipelines.market.publish import Envelope, publish_advisor
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.features.seeded import (
    ACCOUNT,
    REGION,
    SeededMarket,
    begun,
    publish,
    seed_account,
    seeded_market,
)
from spotlab_pipelines_tests.inference.models import invented, logistic, register, register_both


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def seeded(engine: sa.Engine, redis: redis_py.Redis, settings: Settings, now: datetime) -> SeededMarket:
    seeded = seeded_market(now=now)
    publish(redis, settings, seeded, fetched_at=now)
    seed_account(engine, seeded, instances=20)
    return seeded


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive_location)


@pytest.fixture
def key(engine: sa.Engine, seeded: SeededMarket, now: datetime) -> EvaluationKey:
    return begun(engine, now)


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    return ModelRegistry(engine, settings)


World = tuple[Settings, sa.Engine, redis_py.Redis, Archive]


@pytest.fixture
def world(settings: Settings, engine: sa.Engine, redis: redis_py.Redis, archive: Archive) -> World:
    return settings, engine, redis, archive


def test_features_are_those_of_the_scrape_and_are_recomputed_bit_for_bit(
    world: World, key: EvaluationKey, seeded: SeededMarket, archive: Archive, now: datetime
):
    report = freeze_snapshot(*world, key)
    assert (report.instances, report.pools, report.features) == (20, 18, 18)
    assert report.excluded == {}
    features = check_features(archive.read_table("features", key))
    again, _ = recompute_features(archive, report.snapshot_id)
    pd.testing.assert_frame_equal(again, features, check_exact=True)
    windows = price_windows(seeded.changes, now, timedelta(days=7))
    np.testing.assert_array_equal(features["spot_price_usd_per_hour"], windows["spot_price_usd_per_hour"])
    assert archive.read_metadata("features", key)["snapshot_id"] == report.snapshot_id
    frames, metadata = archive.read_snapshot(report.snapshot_id)
    assert set(frames) == {"instances", "prices", "advisor", "catalogue", "on_demand", "sources"}
    assert metadata["feature_version"] == "v1"


def test_a_price_after_the_scrape_is_not_looked_at(
    world: World, key: EvaluationKey, seeded: SeededMarket, archive: Archive, now: datetime
):
    before = freeze_snapshot(*world, key)
    first = archive.read_table("features", key)
    later = seeded.changes.assign(changed_at=now + timedelta(seconds=30), spot_price_usd_per_hour=9.0).astype(
        {"changed_at": "datetime64[us, UTC]"}
    )
    changes = pd.concat([seeded.changes, later], ignore_index=True)
    publish(world[2], world[0], dataclasses.replace(seeded, changes=changes), fetched_at=now)
    after = freeze_snapshot(*world, key)
    pd.testing.assert_frame_equal(archive.read_table("features", key), first)
    assert before.snapshot_id != after.snapshot_id


def test_an_evaluation_that_begins_long_after_its_window_sees_the_prices_of_now(
    world: World, engine: sa.Engine, seeded: SeededMarket, archive: Archive, now: datetime
):
    """A daily evaluation at 18:00 has the window of midnight; its prices and its seven days end with the scrape."""
    late = begun(engine, now - timedelta(hours=18))
    report = freeze_snapshot(*world, late)
    week = timedelta(days=7)
    features, expected = archive.read_table("features", late), price_windows(seeded.changes, now, week)
    for name in ("spot_price_usd_per_hour", "price_min_usd_per_hour", "price_max_usd_per_hour"):
        np.testing.assert_array_equal(archive.read_table("pools", late)[name], expected[name])
    then = price_windows(seeded.changes, late.window_start, week)
    assert (features["spot_price_usd_per_hour"] != then["spot_price_usd_per_hour"]).any()
    _, metadata = archive.read_snapshot(report.snapshot_id)
    assert metadata["as_of"] == now.isoformat()
    again, _ = recompute_features(archive, report.snapshot_id)
    pd.testing.assert_frame_equal(again, features, check_exact=True)


def test_the_prices_of_two_scrapes_are_looked_at_from_the_newer_one(
    world: World, engine: sa.Engine, seeded: SeededMarket, archive: Archive, now: datetime
):
    older = orjson.loads(world[2].get(price_key(REGION, "m1")) or b"")
    fetched_at = now - timedelta(minutes=20)
    world[2].set(price_key(REGION, "m1"), orjson.dumps(older | {"fetched_at": fetched_at.isoformat()}))
    report = freeze_snapshot(*world, begun(engine, now - timedelta(hours=1)))
    assert archive.read_snapshot(report.snapshot_id)[1]["as_of"] == now.isoformat()


def test_evaluations_that_read_the_same_have_the_same_snapshot(
    world: World, engine: sa.Engine, seeded: SeededMarket, now: datetime
):
    early, late = (begun(engine, now - timedelta(hours=hours)) for hours in (2, 1))
    assert freeze_snapshot(*world, early).snapshot_id == freeze_snapshot(*world, late).snapshot_id


def test_the_same_market_gives_the_same_snapshot(world: World, key: EvaluationKey):
    assert freeze_snapshot(*world, key).snapshot_id == freeze_snapshot(*world, key).snapshot_id


@pytest.mark.parametrize("lost", ["everything", "prices", "risk", "catalogue"])
def test_redis_that_lost_something_between_scrape_and_features(
    world: World, key: EvaluationKey, archive: Archive, lost: str
):
    keys = {
        "prices": price_key(REGION, "m1"),
        "risk": risk_key(REGION, "m1.s0"),
        "catalogue": "instance_metadata:m1.s0",
    }
    if lost == "everything":
        world[2].flushall()
    else:
        assert world[2].delete(keys[lost]) == 1
    with pytest.raises(MarketDataMissing, match=r"Materialise \w+"):
        freeze_snapshot(*world, key)
    with pytest.raises(NotFound):
        archive.read_table("features", key)


def test_redis_that_went_stale_between_scrape_and_features(
    world: World, key: EvaluationKey, seeded: SeededMarket, archive: Archive, now: datetime
):
    publish(world[2], world[0], seeded, fetched_at=now - timedelta(hours=2))
    with pytest.raises(MarketDataStale, match="7200 s ago"):
        freeze_snapshot(*world, key)
    with pytest.raises(NotFound):
        archive.read_table("pools", key)


def test_a_late_evaluation_does_not_pass_off_stale_data_as_fresh(
    world: World, engine: sa.Engine, seeded: SeededMarket, now: datetime
):
    publish(world[2], world[0], seeded, fetched_at=now - timedelta(hours=2))
    with pytest.raises(MarketDataStale):
        freeze_snapshot(*world, begun(engine, now - timedelta(hours=2)))


def test_an_account_without_instances_has_an_empty_evaluation(
    world: World, engine: sa.Engine, key: EvaluationKey, registry: ModelRegistry, archive: Archive
):
    with engine.begin() as connection:
        connection.execute(sa.update(Instance).values(state="terminated"))
    register_both(registry)
    assert freeze_snapshot(*world, key).features == 0
    assert score_evaluation(registry, archive, key).pools == 0
    assert decide_evaluation(world[0], engine, archive, key).instances == 0
    assert log_evaluation(engine, archive, key).written == 0


def test_the_way_from_redis_to_the_log(
    world: World, engine: sa.Engine, key: EvaluationKey, registry: ModelRegistry, archive: Archive
):
    champion, challenger = register_both(registry)
    with engine.begin() as connection:
        connection.execute(
            sa.update(Instance).where(Instance.instance_id == f"i-{3:017x}").values(assigned_version=challenger)
        )
        # A pool that the market does not know: its instance is skipped by name.
        connection.execute(sa.update(Instance).where(Instance.instance_id == f"i-{4:017x}").values(az_id="use1-az6"))
    report = freeze_snapshot(*world, key)
    assert report.excluded == {"no current price": 1}
    scored = score_evaluation(registry, archive, key)
    assert scored.versions == {champion: "champion", challenger: "challenger"}
    assert scored.probabilities.shape == (36, 3)
    assert (np.diff(scored.probabilities, axis=1) >= 0).all()
    decided = decide_evaluation(world[0], engine, archive, key)
    assert decided.acting["SKIP"] == 1
    decisions = archive.read_table("decisions", key)
    assert len(decisions) == 40
    acting = decisions[decisions["acting"]].set_index("instance_id")["model_version"]
    assert acting[f"i-{3:017x}"] == challenger
    assert (acting == champion).sum() == 19
    skipped = decisions[decisions["decision"] == "SKIP"]
    assert skipped["reason"].str.contains("use1-az6:Linux/UNIX has no features: no current price").all()
    logged = log_evaluation(engine, archive, key)
    assert (logged.written, logged.snapshot_id) == (120, report.snapshot_id)


def test_without_a_champion_nothing_is_predicted_and_a_retired_version_skips_its_instances(
    world: World, engine: sa.Engine, key: EvaluationKey, registry: ModelRegistry, archive: Archive
):
    freeze_snapshot(*world, key)
    with pytest.raises(ModelUnknown, match="spotlab models bootstrap"):
        score_evaluation(registry, archive, key)
    with pytest.raises(NotFound):
        archive.read_table("predictions", key)
    register_both(registry)
    register(registry, "logistic", logistic(5))
    registry.approve("logistic/2")
    with engine.begin() as connection:
        connection.execute(sa.update(Instance).values(assigned_version="logistic/2"))
    registry.retire("logistic/2")
    freeze_snapshot(*world, key)
    assert score_evaluation(registry, archive, key).failed == {
        "logistic/2": "logistic/2 is retired; only approved versions are served."
    }
    acting = decide_evaluation(world[0], engine, archive, key).acting
    assert acting == {"SKIP": 20}


def test_predictions_of_another_try_are_not_decided_on(
    world: World, engine: sa.Engine, key: EvaluationKey, registry: ModelRegistry, archive: Archive
):
    register_both(registry)
    freeze_snapshot(*world, key)
    score_evaluation(registry, archive, key)
    with engine.begin() as connection:
        connection.execute(sa.update(Instance).where(Instance.account_id == ACCOUNT).values(shadow=True))
    freeze_snapshot(*world, key)
    with pytest.raises(IntegrityError, match="another try"):
        decide_evaluation(world[0], engine, archive, key)


def test_what_is_estimated_or_kept_for_want_of_newer_is_told(
    engine: sa.Engine, redis: redis_py.Redis, archive: Archive, settings: Settings, key: EvaluationKey,
    seeded: SeededMarket, now: datetime,
):  # fmt: skip
    """A type that the price list lacks is estimated and marked; the last good Advisor is used and named."""
    lacking = seeded.types["instance_type"].iloc[0]
    listed = seeded.on_demand[seeded.on_demand["instance_type"] != lacking]
    publish(redis, settings, dataclasses.replace(seeded, on_demand=listed), fetched_at=now)
    stale = Envelope("spot_advisor", "scrape-1", now, stale=True, note="SourceUnavailable: gone.")
    publish_advisor(redis, seeded.advisor, stale, ttl_s=3600, regions=[REGION])
    report = freeze_snapshot(settings, engine, redis, archive, key)
    assert report.stale_sources == {"spot_advisor": "SourceUnavailable: gone."}
    pools = archive.read_table("pools", key)
    estimated = pools[pools["price_source"] == "advisor-savings"]
    assert set(estimated["instance_type"]) == {lacking}
    assert report.estimated_on_demand == len(estimated) > 0
    expected = estimated["spot_price_usd_per_hour"].min() / (1 - 0.60)
    np.testing.assert_allclose(estimated["on_demand_usd_per_hour"], expected, rtol=1e-12)
    assert set(pools["price_source"]) == {"pricing", "advisor-savings"}
    features, _ = recompute_features(archive, report.snapshot_id)
    pd.testing.assert_frame_equal(features, archive.read_table("features", key), check_exact=True)


def test_each_version_is_compared_with_its_own_training_and_one_without_says_so(
    world: World, engine: sa.Engine, key: EvaluationKey, registry: ModelRegistry, archive: Archive
):
    champion, challenger = register_both(registry)
    freeze_snapshot(*world, key)
    drift = score_evaluation(registry, archive, key).drift
    assert drift[champion] is None, "advisor-rate was fitted on nothing: that is not the same as no drift"
    features = archive.read_table("features", key)
    families = features["region"] + features["instance_type"].str.partition(".")[0]
    assert drift[challenger] == drift_of(reference_of(invented(), V1.names), features, families.to_numpy(dtype=str))
    decide_evaluation(world[0], engine, archive, key)
    report = record_evaluation(world[0], engine, archive, key)
    client = mlflow_client(world[0])
    runs = {version: client.get_run(run_id).data for version, run_id in report.mlflow_runs.items()}
    compared = {name for name in runs[challenger].metrics if name.startswith("drift/")}
    assert compared == {f"drift/{name}_{kind}" for name in V1.names for kind in ("psi", "ks")} | {"drift/psi_max"}
    assert runs[challenger].metrics["drift/price_position_psi"] == (drift[challenger] or {})["price_position"]["psi"]
    assert not any(name.startswith("drift/") for name in runs[champion].metrics)
    assert [runs[each].tags["spotlab.drift"] for each in (champion, challenger)] == ["no reference", "compared"]
    kept = registry.artifact_folder(registry.get(challenger)) / "reference.json"
    assert orjson.loads(kept.read_bytes()) == registry.get(challenger).reference
