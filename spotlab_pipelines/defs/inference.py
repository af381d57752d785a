"""The asset of the inference room: who predicts what."""

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.archive import Archive


@account_asset(
    deps=["pool_features"], group_name="inference", kinds={"mlflow", "scikitlearn"}, owners=["team:ml-engineering"]
)
def interruption_predictions(
    context: dg.AssetExecutionContext,
    database: dg.ResourceParam[sa.Engine],
    model_registry: dg.ResourceParam[ModelRegistry],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """Interruption probabilities of every pool at every horizon: champion, assigned versions and challengers."""
    return for_each_account(context, database, lambda key: score_evaluation(model_registry, archive, key))
