"""Evaluations in MLflow: one run per (account, version), one step per window, so that versions compare side by side.

A run's id is kept in Postgres, `tracking_runs`. Metrics come from the committed rows of the log (`metrics.py`), so a
retry sends the same values and leaves one point per metric. Nothing here is a record: MLflow can be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import EvaluationKey, lock_account
from spotlab_pipelines.database.tables import TrackingRun
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.metrics import VersionMetrics, evaluation_metrics
from spotlab_pipelines.inference.mlflow_store import (
    experiment_id,
    linkable_model,
    mlflow_client,
    mlflow_errors,
    ui_page,
    unless_lost,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

EXPERIMENT = "evaluations"
METRICS_PER_BATCH = 100
"""MLflow takes 1000 at once, but can be sent no more than 100 a second time: it then doubles those of a model."""


@dataclass(frozen=True)
class TrackingReport:
    """The MLflow runs of one evaluation by version, with links into MLflow's UI, and the metrics each got."""

    experiment_id: str
    step: int
    runs: dict[str, str]
    links: dict[str, str]
    metrics: dict[str, int]


@dataclass(frozen=True)
class ExperimentReport:
    """What an evaluation left in the log and in MLflow."""

    snapshot_id: str
    step: int
    rows_written: int
    already_logged: bool
    counts: dict[str, Any]
    mlflow_runs: dict[str, str]
    mlflow_links: dict[str, str]


def record_evaluation(settings: Settings, engine: sa.Engine, archive: Archive, key: EvaluationKey) -> ExperimentReport:
    """Log an evaluation in Postgres, then track it in MLflow; each happens once, however often this is called.

    Raises:
        StoreUnavailable: a store does not answer. If it is MLflow's, the log is committed and a retry tracks it.
        Other errors: as `log_evaluation`.
    """
    logged = log_evaluation(engine, archive, key)
    tracked = track_evaluation(settings, engine, key)
    return ExperimentReport(
        snapshot_id=logged.snapshot_id,
        step=logged.step,
        rows_written=logged.written,
        already_logged=logged.already_logged,
        counts=logged.counts,
        mlflow_runs=tracked.runs,
        mlflow_links=tracked.links,
    )


def track_evaluation(settings: Settings, engine: sa.Engine, key: EvaluationKey) -> TrackingReport:
    """Add a logged evaluation as one step to the MLflow run of each of its versions.

    Raises:
        NotFound: the evaluation is not in the log.
        StoreUnavailable: Postgres or MLflow's database does not answer; try again.
    """
    [points] = _points(engine, [key])
    experiment, runs = _track(settings, engine, key.account_id, points)
    return TrackingReport(
        experiment_id=experiment,
        step=points[0].step if points else 0,
        runs=runs,
        links={version: ui_page(settings, f"experiments/{experiment}/runs/{run}") for version, run in runs.items()},
        metrics={point.each.version: len(point.each.metrics) for point in points},
    )


def track_evaluations(settings: Settings, engine: sa.Engine, keys: Sequence[EvaluationKey]) -> None:
    """Add logged evaluations of one account to MLflow, all of a version's in a call or two; see `track_evaluation`."""
    if keys:
        points = [point for of_one in _points(engine, keys) for point in of_one]
        _track(settings, engine, keys[0].account_id, points)


@dataclass(frozen=True)
class _Point:
    """What one evaluation adds to the run of one version."""

    window_start: datetime
    step: int
    each: VersionMetrics


def _points(engine: sa.Engine, keys: Sequence[EvaluationKey]) -> list[list[_Point]]:
    with database_errors(), engine.connect() as connection:
        found = [(key.window_start, *evaluation_metrics(connection, key)) for key in keys]
    return [[_Point(window, step, each) for each in versions] for window, step, versions in found]


def _track(settings: Settings, engine: sa.Engine, account_id: str, points: list[_Point]) -> tuple[str, dict[str, str]]:
    """Send points of one account to the runs of their versions; the experiment's id and the runs' by version."""
    with database_errors():
        client = mlflow_client(settings)
        experiment = experiment_id(client, settings, EXPERIMENT)
        tracker = _Tracker(client, engine, account_id, experiment)
        versions = dict.fromkeys(point.each.version for point in points)
        with mlflow_errors():
            runs = {
                version: tracker.track([point for point in points if point.each.version == version])
                for version in versions
            }
    return experiment, runs


@dataclass(frozen=True)
class _Tracker:
    """An account's evaluations on their way into MLflow."""

    client: MlflowClient
    engine: sa.Engine
    account_id: str
    experiment_id: str

    def track(self, points: list[_Point]) -> str:
        """Send one version's points to its run and return the run's id; a run that MLflow lost is replaced."""
        from mlflow.exceptions import MlflowException

        each = points[-1].each
        run_id = self._run_of(each)
        try:
            self._send(run_id, points, each.model_id)
        except MlflowException:
            # Asked only now, as it takes its time.
            model_id = linkable_model(self.client, each.model_id)
            if self._exists(run_id):
                if model_id == each.model_id:
                    raise
            else:
                run_id = self._run_of(each, lost=run_id)
            self._send(run_id, points, model_id)
        return run_id

    def _send(self, run_id: str, points: list[_Point], model_id: str | None) -> None:
        from mlflow.entities import Metric, RunTag

        metrics = [
            Metric(
                name, value, round(point.window_start.timestamp() * 1000), point.step, model_id=model_id, run_id=run_id
            )
            for point in points
            for name, value in point.each.metrics.items()
        ]
        latest = points[-1].each
        tags = {"spotlab.role": latest.role, "spotlab.environment": latest.environment}
        tags |= {name: value for point in points for name, value in point.each.tags.items()}
        for start in range(0, max(len(metrics), 1), METRICS_PER_BATCH):
            self.client.log_batch(
                run_id,
                metrics=metrics[start : start + METRICS_PER_BATCH],
                tags=[RunTag(name, value) for name, value in tags.items()] if start == 0 else [],
            )

    def _run_of(self, each: VersionMetrics, *, lost: str | None = None) -> str:
        """The id of the version's run, created if there is none or if the one on record is `lost`."""
        with self.engine.begin() as connection:
            lock_account(connection, self.account_id)
            known = connection.scalar(
                sa.select(TrackingRun.mlflow_run_id).where(
                    TrackingRun.account_id == self.account_id, TrackingRun.model_version == each.version
                )
            )
            if known is not None and known != lost:
                return known
            run_id = self._adopt(each) or self._create(each)
            statement = insert(TrackingRun).values(
                account_id=self.account_id, model_version=each.version, mlflow_run_id=run_id
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[TrackingRun.account_id, TrackingRun.model_version],
                    set_={"mlflow_run_id": run_id, "created_at": sa.func.now()},
                )
            )
            return run_id

    def _adopt(self, each: VersionMetrics) -> str | None:
        """A run that an earlier try created but did not live to put on record."""
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.`spotlab.account` = '{self.account_id}' and tags.`spotlab.version` = '{each.version}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0].info.run_id if found else None

    def _create(self, each: VersionMetrics) -> str:
        from mlflow.entities import LoggedModelInput

        model_id = linkable_model(self.client, each.model_id)
        run = self.client.create_run(
            self.experiment_id,
            run_name=f"{self.account_id} {each.version}",
            tags={
                "spotlab.account": self.account_id,
                "spotlab.version": each.version,
                "spotlab.family": each.family,
                "spotlab.environment": each.environment,
                "spotlab.role": each.role,
            },
        )
        if model_id is not None:
            self.client.log_inputs(run.info.run_id, models=[LoggedModelInput(model_id)])
        # Steps are added for as long as the version serves; a run left open would show as running for ever.
        self.client.update_run(run.info.run_id, status="FINISHED")
        return run.info.run_id

    def _exists(self, run_id: str) -> bool:
        with unless_lost():
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        return False
