"""Evaluations in MLflow: one run per (account, version), one step per window, so that versions compare side by side.

A run's id is kept in Postgres, `tracking_runs`. Metrics come from the committed rows of the log (`metrics.py`), so a
retry sends the same values and leaves one point per metric. Nothing here is a record: MLflow can be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import EvaluationKey, lock_account
from spotlab_pipelines.database.tables import TrackingRun
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.metrics import VersionMetrics, evaluation_metrics
from spotlab_pipelines.inference.mlflow_store import experiment_id, mlflow_client, mlflow_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

EXPERIMENT = "evaluations"


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
    with database_errors():
        with engine.connect() as connection:
            step, versions = evaluation_metrics(connection, key)
        client = mlflow_client(settings)
        experiment = experiment_id(client, settings, EXPERIMENT)
        tracker = _Tracker(client, engine, key, experiment, step)
        with mlflow_errors():
            runs = {each.version: tracker.track(each) for each in versions}
    return TrackingReport(
        experiment_id=experiment,
        step=step,
        runs=runs,
        links={version: f"{settings.mlflow_ui}/#/experiments/{experiment}/runs/{run}" for version, run in runs.items()},
        metrics={each.version: len(each.metrics) for each in versions},
    )


@dataclass(frozen=True)
class _Tracker:
    """One evaluation on its way into MLflow."""

    client: MlflowClient
    engine: sa.Engine
    key: EvaluationKey
    experiment_id: str
    step: int

    def track(self, each: VersionMetrics) -> str:
        """Send one version's step to its run and return the run's id; a run that MLflow lost is replaced."""
        from mlflow.exceptions import MlflowException

        model_id = self._linkable_model(each)
        run_id = self._run_of(each, model_id)
        try:
            self._send(run_id, each, model_id)
        except MlflowException:
            if self._exists(run_id):
                raise
            run_id = self._run_of(each, model_id, lost=run_id)
            self._send(run_id, each, model_id)
        return run_id

    def _send(self, run_id: str, each: VersionMetrics, model_id: str | None) -> None:
        from mlflow.entities import Metric, RunTag

        at_ms = round(self.key.window_start.timestamp() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, at_ms, self.step, model_id=model_id, run_id=run_id)
                for name, value in each.metrics.items()
            ],
            tags=[
                RunTag("spotlab.role", each.role),
                RunTag("spotlab.environment", each.environment),
                RunTag("spotlab.drift", each.drift),
            ],
        )

    def _run_of(self, each: VersionMetrics, model_id: str | None, *, lost: str | None = None) -> str:
        """The id of the version's run, created if there is none or if the one on record is `lost`."""
        with self.engine.begin() as connection:
            lock_account(connection, self.key.account_id)
            known = connection.scalar(
                sa.select(TrackingRun.mlflow_run_id).where(
                    TrackingRun.account_id == self.key.account_id, TrackingRun.model_version == each.version
                )
            )
            if known is not None and known != lost:
                return known
            run_id = self._adopt(each) or self._create(each, model_id)
            statement = insert(TrackingRun).values(
                account_id=self.key.account_id, model_version=each.version, mlflow_run_id=run_id
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
            f"tags.`spotlab.account` = '{self.key.account_id}' and tags.`spotlab.version` = '{each.version}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0].info.run_id if found else None

    def _create(self, each: VersionMetrics, model_id: str | None) -> str:
        from mlflow.entities import LoggedModelInput

        run = self.client.create_run(
            self.experiment_id,
            run_name=f"{self.key.account_id} {each.version}",
            tags={
                "spotlab.account": self.key.account_id,
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

    def _linkable_model(self, each: VersionMetrics) -> str | None:
        """The version's LoggedModel, so that its page shows these metrics; None where MLflow does not have it."""
        from mlflow.exceptions import MlflowException

        if each.model_id is None:
            return None
        try:
            return self.client.get_logged_model(each.model_id).model_id
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
