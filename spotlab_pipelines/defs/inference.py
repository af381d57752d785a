"""The asset of the inference room: who predicts what."""

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, RegistryParam


@account_asset(
    deps=["pool_features"], group_name="inference", kinds={"mlflow", "scikitlearn"}, owners=["team:ml-engineering"]
)
def interruption_predictions(
    context: dg.AssetExecutionContext,
    database: DatabaseParam,
    model_registry: RegistryParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """Interruption probabilities of every pool at every horizon: champion, assigned versions and challengers."""
    from spotlab_pipelines.inference.scoring import score_evaluation

    return for_each_account(context, database, lambda key: score_evaluation(model_registry, archive, key))
