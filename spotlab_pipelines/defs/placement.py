"""The asset of the placement room: what to do with each instance."""

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings


@account_asset(
    deps=["interruption_predictions"], group_name="placement", kinds={"pandas"}, owners=["team:data-engineering"]
)
def placement_decisions(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    database: dg.ResourceParam[sa.Engine],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """STAY, SWITCH or FALLBACK_ON_DEMAND for every instance and version, with the reason; nothing acts on it yet."""
    return for_each_account(context, database, lambda key: decide_evaluation(settings, database, archive, key))
