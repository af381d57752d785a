"""The asset of the experiments room: what was decided, on record."""

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.experiments.tracking import record_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings


@account_asset(
    deps=["placement_decisions"], group_name="experiments", kinds={"postgres", "mlflow"}, owners=["team:ml-engineering"]
)
def experiment_log(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    database: dg.ResourceParam[sa.Engine],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """The evaluation's rows in Postgres, written once, and its step in each version's MLflow run."""
    return for_each_account(
        context, database, lambda key: record_evaluation(settings, database, archive, key), last=True
    )
