"""Versions of several feature specs in one evaluation: each is scored on its own features, from one snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.tables import Instance
from spotlab_pipelines.errors import FeatureVersionMismatch, MarketDataMissing, MarketDataStale, NotFound
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.replay import replay_evaluation
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.features.specs import SPECS, V1
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.market.pool_history import pool_history_key
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.features.seeded import (
    REGION,
    SeededMarket,
    begun,
    publish,
    publish_seen,
    seed_account,
    seeded_market,
    seeded_observations,
)
from spotlab_pipelines_tests.inference.models import register_both, register_of_spec

World = tuple[Settings, sa.Engine, redis_py.Redis, Archive]


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def seeded(settings: Settings, engine: sa.Engine, redis: redis_py.Redis, now: datetime) -> SeededMarket:
    market = seeded_market(now=now)
    publish(redis, settings, market, fetched_at=now)
    seed_account(engine, market, instances=20)
    return market


@pytest.fixture
def world(settings: Settings, engine: sa.Engine, redis: redis_py.Redis, seeded: SeededMarket) -> World:
    return settings, engine, redis, Archive(settings.archive_location)


@pytest.fixture
def key(world: World, now: datetime) -> EvaluationKey:
    return begun(world[1], now)


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    registry = ModelRegistry(engine, settings)
    register_both(registry)
    return registry


def test_three_specs_from_redis_to_the_log_and_back(
    world: World, key: EvaluationKey, seeded: SeededMarket, registry: ModelRegistry, now: datetime
):
    settings, engine, redis, archive = world
    history = register_of_spec(registry, "v2-history")
    all_of_it = register_of_spec(registry, "v2", role="none")
    with engine.begin() as connection:
        mine = Instance.instance_id == f"i-{3:017x}"
        connection.execute(sa.update(Instance).where(mine).values(assigned_version=all_of_it))
        # Of a pool that the market does not know: its instance is skipped, whatever its history says.
        lost = Instance.instance_id == f"i-{4:017x}"
        connection.execute(sa.update(Instance).where(lost).values(az_id="use1-az6"))
    seen = seeded_observations(seeded, now=now)
    scraped_at = now + timedelta(milliseconds=5)
    publish_seen(redis, seen, fetched_at=scraped_at)

    report = freeze_snapshot(*world, key)
    assert (report.features, report.more_features) == (18, {"v2": 18, "v2-history": 19})
    _, metadata = archive.read_snapshot(report.snapshot_id)
    assert metadata["more_specs"] == ["v2", "v2-history"]
    assert metadata["observed_as_of"] == scraped_at.isoformat()
    features = archive.read_table("features-v2-history", key)
    expected, _ = compute_features(
        archive.read_table("pools", key), "v2-history", open_bucket_rate=0.3, past=Past.of(seen, as_of=scraped_at)
    )
    pd.testing.assert_frame_equal(features, expected, check_exact=True)
    assert features["history_missing"].sum() == 2, "the pool that was never observed, and the one nobody knows"

    scored = score_evaluation(registry, archive, key)
    assert scored.versions == {
        "advisor-rate/1": "champion", "logistic/1": "challenger", history: "challenger", all_of_it: "none"
    }  # fmt: skip
    predictions = archive.read_table("predictions", key)
    assert predictions["model_version"].value_counts().to_dict() == {
        "advisor-rate/1": 18, "logistic/1": 18, history: 19, all_of_it: 18
    }  # fmt: skip
    mine = predictions[predictions["model_version"] == history].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[list(POOL_KEY)], features[list(POOL_KEY)])
    alone = registry.load_model(history).predict_batch(features, "v2-history")
    np.testing.assert_array_equal(mine[["p_1h", "p_6h", "p_12h"]].to_numpy(), alone)

    decide_evaluation(settings, engine, archive, key)
    log_evaluation(engine, archive, key)
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("select distinct model_version, features from experiment_logs where features is not null")
        ).all()
        skipped = connection.scalar(sa.text("select count(*) from experiment_logs where decision = 'SKIP'"))
    saw = {version: set(features) for version, features in rows}
    assert saw == {
        "advisor-rate/1": set(V1.names),
        "logistic/1": set(V1.names),
        history: set(SPECS["v2-history"].names),
        all_of_it: set(SPECS["v2"].names),
    }
    assert skipped == 3 * 3, "three versions and horizons of the instance in the unknown pool"

    replays = replay_evaluation(engine, Archive(settings.archive_location), registry, key)
    assert {replay.verdict for replay in replays} == {"identical"}
    assert len(replays) == (3 * 20 + 1) * 3


def test_without_a_version_that_looks_at_them_observations_are_neither_read_nor_frozen(
    world: World, key: EvaluationKey, registry: ModelRegistry
):
    report = freeze_snapshot(*world, key)
    frames, metadata = world[3].read_snapshot(report.snapshot_id)
    assert "observations" not in frames
    assert metadata["more_specs"] == []
    assert report.more_features == {}
    with pytest.raises(NotFound):
        world[3].read_table("features-v2-history", key)


def test_observations_that_are_missing_or_stale_are_errors_by_name(
    world: World, key: EvaluationKey, seeded: SeededMarket, registry: ModelRegistry, now: datetime
):
    register_of_spec(registry, "v2-history")
    with pytest.raises(MarketDataMissing, match=rf"pool_history:{REGION}: .*Materialise pool_observations"):
        freeze_snapshot(*world, key)
    publish_seen(world[2], seeded_observations(seeded, now=now), fetched_at=now)
    assert world[2].delete(pool_history_key(REGION, "m1")) == 1
    with pytest.raises(MarketDataMissing, match=f"pool_history:{REGION}:m1"):
        freeze_snapshot(*world, key)
    publish_seen(world[2], seeded_observations(seeded, now=now), fetched_at=now - timedelta(hours=2))
    with pytest.raises(MarketDataStale, match="pool_history"):
        freeze_snapshot(*world, key)
    publish_seen(world[2], seeded_observations(seeded, now=now, rows=0), fetched_at=now)
    freeze_snapshot(*world, key)
    assert world[3].read_table("features-v2-history", key)["history_missing"].tolist() == [1.0] * 18


def test_a_challenger_whose_spec_this_code_does_not_know_fails_alone(
    world: World, key: EvaluationKey, registry: ModelRegistry, owner: sa.Engine
):
    with owner.begin() as connection:
        connection.execute(sa.text("update model_registry set feature_spec = 'v9' where version = 'logistic/1'"))
    assert freeze_snapshot(*world, key).more_features == {}
    report = score_evaluation(registry, world[3], key)
    assert list(report.mean_probability) == ["advisor-rate/1"]
    assert "FeatureVersionMismatch: Expected one of the feature specs" in report.failed["logistic/1"]


def test_a_version_that_comes_between_features_and_predictions_fails_alone(
    world: World, key: EvaluationKey, seeded: SeededMarket, registry: ModelRegistry, now: datetime
):
    archive = world[3]
    freeze_snapshot(*world, key)
    version = register_of_spec(registry, "v2-history")
    said = f"{version} was fitted on feature spec v2-history; there are features of v1."
    report = score_evaluation(registry, archive, key)
    assert report.failed == {version: f"FeatureVersionMismatch: {said}"}
    assert set(report.mean_probability) == {"advisor-rate/1", "logistic/1"}
    publish_seen(world[2], seeded_observations(seeded, now=now), fetched_at=now)
    freeze_snapshot(*world, key)
    table = archive.read_table("features-v2-history", key)
    archive.write_table("features-v2-history", key, table, {"snapshot_id": "another"})
    # Left from another try: another snapshot's features are not those that the others saw.
    assert list(score_evaluation(registry, archive, key).failed) == [version]
    registry.promote(version, override="a test")
    with pytest.raises(FeatureVersionMismatch, match=f"The champion {version} failed"):
        score_evaluation(registry, archive, key)
