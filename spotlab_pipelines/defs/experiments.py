"""The assets of the experiments room: what was decided, on record, and the room that the record needs."""

from datetime import UTC, datetime

import dagster as dg

from spotlab_pipelines.database.partitions import maintain_partitions
from spotlab_pipelines.defs.evaluation import each_account, for_each_account, translated
from spotlab_pipelines.defs.metadata import report_metadata
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, SessionsParam, SettingsParam


@account_asset(
    deps=["placement_decisions"], group_name="experiments", kinds={"postgres", "mlflow"}, owners=["team:ml-engineering"]
)
def experiment_log(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    database: DatabaseParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """The evaluation's rows in Postgres, written once, and its step in each version's MLflow run."""
    from spotlab_pipelines.experiments.tracking import record_evaluation

    return for_each_account(
        context, database, lambda key: record_evaluation(settings, database, archive, key), last=True
    )


@account_asset(
    deps=["experiment_log"], group_name="experiments", kinds={"ec2", "postgres"}, owners=["team:ml-engineering"]
)
def interruption_outcomes(
    context: dg.AssetExecutionContext,
    account_sessions: SessionsParam,
    database: DatabaseParam,
) -> dg.MaterializeResult:
    """What became of the account's logged instances: interrupted, survived or censored, and which source says so."""
    from spotlab_pipelines.experiments.learning import learn_outcomes

    return each_account(context, lambda account_id: learn_outcomes(account_sessions, database, account_id))


@dg.asset(group_name="maintenance", kinds={"postgres"}, owners=["team:data-engineering"])
def log_partitions(settings: SettingsParam) -> dg.MaterializeResult:
    """The experiment log's monthly partitions: made some months ahead, dropped when their retention is over."""
    with translated():
        return dg.MaterializeResult(metadata=report_metadata(maintain_partitions(settings, datetime.now(UTC))))
