"""The asset of the placement room: what to do with each instance."""

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, SettingsParam


@account_asset(
    deps=["interruption_predictions"], group_name="placement", kinds={"pandas"}, owners=["team:data-engineering"]
)
def placement_decisions(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    database: DatabaseParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """STAY, SWITCH or FALLBACK_ON_DEMAND for every instance and version, with the reason; nothing acts on it yet."""
    from spotlab_pipelines.placement.decide import decide_evaluation

    return for_each_account(context, database, lambda key: decide_evaluation(settings, database, archive, key))
