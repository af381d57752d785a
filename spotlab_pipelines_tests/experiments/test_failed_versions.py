"""A version that fails in an evaluation: on record wherever people look, and nothing else is any different for it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pandas as pd
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.experiments.queries import evaluation_row, logged_rows
from spotlab_pipelines.experiments.replay import replay_evaluation, replay_experiment
from spotlab_pipelines.experiments.tracking import record_evaluation
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.features.seeded import begun, publish, seed_account, seeded_market
from spotlab_pipelines_tests.inference.models import logistic, register, register_both

__all__ = ["spotlab", "use"]

CHAMPION, SOUND, BROKEN, ASSIGNED = "advisor-rate/1", "logistic/1", "logistic/2", "logistic/3"


def test_a_failed_version_is_on_record_everywhere_and_harms_nothing_else(
    settings: Settings, engine: sa.Engine, redis: redis_py.Redis, mlflow_database: str, spotlab: Spotlab
) -> None:
    now, registry, archive = datetime.now(UTC), ModelRegistry(engine, settings), Archive(settings.archive_location)
    market = seeded_market(now=now)
    publish(redis, settings, market, fetched_at=now)
    seed_account(engine, market, instances=20)
    register_both(registry)
    for seed, role in ((2, "challenger"), (3, "none")):
        version = register(registry, "logistic", logistic(seed)).version
        registry.approve(version, role=role)
        shutil.rmtree(registry.artifact_folder(registry.get(version)))
    with engine.begin() as connection:
        connection.execute(
            sa.text("update instances set assigned_version = :v where right(instance_id, 1) = '3'"), {"v": ASSIGNED}
        )
    key = begun(engine, now)
    freeze_snapshot(settings, engine, redis, archive, key)
    scored = score_evaluation(registry, archive, key)
    decided = decide_evaluation(settings, engine, archive, key)
    report = record_evaluation(settings, engine, archive, key)

    assert list(scored.failed) == [BROKEN, ASSIGNED]
    assert set(scored.mean_probability) == set(scored.drift) == {CHAMPION, SOUND}
    assert decided.acting["SKIP"] == 2
    rows = logged_rows(engine, key)
    # 20 instances under three versions, two of them under a fourth, at three horizons.
    assert len(rows) == (3 * 20 + 2) * 3
    failed = rows[rows["model_version"].isin([BROKEN, ASSIGNED])]
    assert set(failed["decision"]) == {"SKIP"}
    assert failed["p_current"].isna().all()
    assert failed["reason"].str.startswith("This version failed: ModelTampered: Expected a model's files").all()
    assert not failed["reason"].str.contains(str(settings.mlruns_dir)).any()
    assert failed.loc[failed["acting"], "model_version"].unique().tolist() == [ASSIGNED]
    sound = rows[rows["model_version"].isin([CHAMPION, SOUND])]
    assert sound["p_current"].notna().mean() > 0.8
    assert set(sound["decision"]) - {"SKIP"}

    assert set(evaluation_row(engine, key.account_id)["details"]["failed_versions"]) == {BROKEN, ASSIGNED}
    client = mlflow_client(settings)
    runs = {version: client.get_run(run).data for version, run in report.mlflow_runs.items()}
    assert {version: data.metrics["scoring/failed"] for version, data in runs.items()} == {
        CHAMPION: 0, SOUND: 0, BROKEN: 1, ASSIGNED: 1
    }  # fmt: skip
    assert "ModelTampered" in runs[BROKEN].tags["spotlab.failed"]
    assert "spotlab.failed" not in runs[SOUND].tags
    shown = spotlab("experiments", "show", key.account_id)
    assert f"failed: {BROKEN}: ModelTampered" in shown.out

    replays = replay_evaluation(engine, Archive(settings.archive_location), registry, key)
    assert {each.verdict for each in replays} == {"identical"}
    one = failed["id"].iloc[0]
    assert [each.verdict for each in replay_experiment(engine, archive, registry, one)] == ["identical"]


def test_the_others_decide_as_if_it_were_not_there(
    settings: Settings, engine: sa.Engine, redis: redis_py.Redis, mlflow_database: str
) -> None:
    now, registry, archive = datetime.now(UTC), ModelRegistry(engine, settings), Archive(settings.archive_location)
    market = seeded_market(now=now)
    publish(redis, settings, market, fetched_at=now)
    seed_account(engine, market, instances=20)
    register_both(registry)
    key = begun(engine, now)
    freeze_snapshot(settings, engine, redis, archive, key)

    def decisions() -> pd.DataFrame:
        score_evaluation(registry, archive, key)
        decide_evaluation(settings, engine, archive, key)
        found = archive.read_table("decisions", key)
        return found[found["model_version"].isin([CHAMPION, SOUND])].reset_index(drop=True)

    alone = decisions()
    broken = register(registry, "logistic", logistic(2)).version
    registry.approve(broken, role="challenger")
    shutil.rmtree(registry.artifact_folder(registry.get(broken)))
    beside = decisions()
    columns = [name for name in alone if name != "features"]
    pd.testing.assert_frame_equal(beside[columns], alone[columns], check_exact=True)
