"""One MLflow run per (account, version), one point per metric and window, from the committed rows of the log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.tables import ModelVersion, TrackingRun
from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.tracking import EXPERIMENT, record_evaluation, track_evaluation
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import (
    ACCOUNT,
    CHALLENGER,
    CHAMPION,
    KEY,
    WINDOW,
    as_owner,
    decided,
    decisions,
    register,
)

NEXT = EvaluationKey(ACCOUNT, WINDOW + timedelta(minutes=30))

pytestmark = pytest.mark.usefixtures("mlflow_database")


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive_location)


@pytest.fixture
def client(settings: Settings, mlflow_database: str) -> MlflowClient:
    return mlflow_client(settings)


def evaluate(engine: sa.Engine, archive: Archive, key: EvaluationKey = KEY, seed: int = 7) -> None:
    decided(engine, archive, key=key, frame=decisions(8, seed=seed, account_id=key.account_id))
    log_evaluation(engine, archive, key)


def points(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, int, float]]]:
    names = client.get_run(run_id).data.metrics
    return {
        name: [(each.step, each.timestamp, each.value) for each in client.get_metric_history(run_id, name)]
        for name in names
    }


def test_each_version_has_a_run_with_the_figures_of_its_rows(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)

    report = track_evaluation(settings, engine, KEY)

    assert set(report.runs) == {CHAMPION, CHALLENGER}
    assert (
        report.links[CHAMPION]
        == f"http://127.0.0.1:5000/#/experiments/{report.experiment_id}/runs/{report.runs[CHAMPION]}?workflowType=machine_learning"
    )
    frame = decisions(8)
    for version, run_id in report.runs.items():
        run = client.get_run(run_id)
        mine = frame[frame["model_version"] == version]
        assert run.info.run_name == f"{ACCOUNT} {version}"
        expected = {
            "spotlab.account": ACCOUNT,
            "spotlab.version": version,
            "spotlab.family": version.split("/")[0],
            "spotlab.role": mine["model_role"].iloc[0],
            "spotlab.environment": "LAB",
        }
        assert expected.items() <= run.data.tags.items()
        metrics = run.data.metrics
        assert len(metrics) == report.metrics[version]
        for horizon in (1, 6, 12):
            p = mine[f"p_current_{horizon}h"]
            assert metrics[f"probability/current_mean_{horizon}h"] == pytest.approx(p.mean(), rel=1e-12)
            assert metrics[f"probability/current_max_{horizon}h"] == p.max()
        then = mine["to_cost_usd_per_hour"].fillna(mine["from_cost_usd_per_hour"])
        assert metrics["cost/now_usd_per_hour_mean"] == pytest.approx(mine["from_cost_usd_per_hour"].mean(), rel=1e-12)
        assert metrics["cost/then_usd_per_hour_mean"] == pytest.approx(then.mean(), rel=1e-12)
        assert metrics["cost/gain_mean"] == pytest.approx(mine["gain"].mean(), rel=1e-12)
        for kind in ("stay", "switch", "fallback", "skip"):
            assert metrics[f"decisions/share_{kind}"] == 0.25
        assert metrics["instances/decided"] == 8
        assert (metrics["pools/considered"], metrics["pools/excluded"]) == (3, 1)
        assert metrics["duration_ms/predictions"] == 2.5


def test_tracking_twice_leaves_one_point_per_metric(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)
    first = track_evaluation(settings, engine, KEY)
    again = track_evaluation(settings, engine, KEY)
    assert again == first
    at_ms = round(WINDOW.timestamp() * 1000)
    for run_id in first.runs.values():
        for history in points(client, run_id).values():
            assert [(step, at) for step, at, _ in history] == [(1, at_ms)]


def test_the_next_window_is_the_next_step_of_the_same_runs(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)
    evaluate(engine, archive, NEXT, seed=8)
    first = track_evaluation(settings, engine, KEY)
    second = track_evaluation(settings, engine, NEXT)
    assert first.runs == second.runs
    history = points(client, first.runs[CHAMPION])["probability/current_mean_6h"]
    assert [step for step, _, _ in history] == [1, 2]
    assert history[0][2] != history[1][2]


def test_a_window_that_was_scored_late_shows_as_a_past_one(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    decided(engine, archive, scored_at=WINDOW + timedelta(minutes=29))
    decided(engine, archive, key=NEXT, scored_at=NEXT.window_start + timedelta(minutes=31))
    for key in (KEY, NEXT):
        log_evaluation(engine, archive, key)
        runs = track_evaluation(settings, engine, key).runs
    assert [step for step, *_ in points(client, runs[CHAMPION])["window/retrospective"]] == [2]


def test_four_at_once_share_the_runs_and_the_points(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)
    together = Barrier(4)

    def track(_: int) -> dict[str, str]:
        together.wait()
        return track_evaluation(settings, engine, KEY).runs

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(track, range(4)))
    assert all(each == reports[0] for each in reports)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert all(len(history) == 1 for history in points(client, reports[0][CHAMPION]).values())


@pytest.mark.parametrize("how", ["deleted", "unknown"])
def test_a_run_that_mlflow_no_longer_has_is_replaced(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient, how: str
) -> None:
    register(engine)
    evaluate(engine, archive)
    first = track_evaluation(settings, engine, KEY)
    if how == "deleted":
        client.delete_run(first.runs[CHAMPION])
    else:
        client.delete_run(first.runs[CHAMPION])
        with engine.begin() as connection:
            connection.execute(
                sa.update(TrackingRun).where(TrackingRun.model_version == CHAMPION).values(mlflow_run_id="f" * 32)
            )
    second = track_evaluation(settings, engine, KEY)
    assert second.runs[CHALLENGER] == first.runs[CHALLENGER]
    assert second.runs[CHAMPION] != first.runs[CHAMPION]
    assert client.get_run(second.runs[CHAMPION]).info.lifecycle_stage == "active"
    assert track_evaluation(settings, engine, KEY).runs == second.runs


def test_a_run_that_was_created_but_not_recorded_is_adopted(
    engine: sa.Engine, owner: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)
    first = track_evaluation(settings, engine, KEY)
    with owner.begin() as connection:
        connection.execute(sa.delete(TrackingRun))
    assert track_evaluation(settings, engine, KEY).runs == first.runs


def test_metrics_show_on_the_versions_logged_model(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    evaluate(engine, archive)
    model = client.create_logged_model(client.create_experiment("models"), name="logistic")
    with as_owner(engine).begin() as connection:
        connection.execute(sa.update(ModelVersion).values(mlflow_model_id="m-lost"))
        connection.execute(
            sa.update(ModelVersion).where(ModelVersion.version == CHALLENGER).values(mlflow_model_id=model.model_id)
        )
    report = track_evaluation(settings, engine, KEY)
    track_evaluation(settings, engine, KEY)
    metrics = client.get_logged_model(model.model_id).metrics or []
    assert len(metrics) == report.metrics[CHALLENGER]
    inputs = client.get_run(report.runs[CHALLENGER]).inputs
    assert inputs is not None
    assert [each.model_id for each in inputs.model_inputs] == [model.model_id]


def test_artifacts_go_below_mlruns_and_the_working_directory_stays_clean(
    engine: sa.Engine,
    archive: Archive,
    settings: Settings,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    monkeypatch.chdir(clean)
    register(engine)
    evaluate(engine, archive)
    report = track_evaluation(settings, engine, KEY)
    artifacts = client.get_run(report.runs[CHAMPION]).info.artifact_uri
    assert artifacts is not None
    assert artifacts.startswith(settings.mlruns_dir.as_uri())
    assert list(clean.iterdir()) == []


def test_what_is_not_logged_is_not_tracked(engine: sa.Engine, archive: Archive, settings: Settings) -> None:
    register(engine)
    decided(engine, archive)
    with pytest.raises(NotFound, match="not in the log"):
        track_evaluation(settings, engine, KEY)


def test_an_empty_fleet_is_an_evaluation_without_runs(engine: sa.Engine, archive: Archive, settings: Settings) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(1).head(0))
    report = record_evaluation(settings, engine, archive, KEY)
    assert (report.rows_written, report.mlflow_runs) == (0, {})


def test_recording_logs_and_tracks_and_a_second_time_changes_nothing(
    engine: sa.Engine, archive: Archive, settings: Settings, client: MlflowClient
) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(8))
    first = record_evaluation(settings, engine, archive, KEY)
    again = record_evaluation(settings, engine, archive, KEY)
    assert (first.rows_written, first.already_logged) == (48, False)
    assert (again.rows_written, again.already_logged) == (0, True)
    assert (again.mlflow_runs, again.snapshot_id, again.counts) == (first.mlflow_runs, first.snapshot_id, first.counts)
    assert np.isfinite(list(client.get_run(first.mlflow_runs[CHAMPION]).data.metrics.values())).all()
