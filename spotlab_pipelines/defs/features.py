"""The asset of the features room: what models see."""

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, RedisParam, SettingsParam


@account_asset(
    deps=["spot_advisor", "instance_catalogue", "fleet_instances", "spot_prices", "pool_observations"],
    group_name="features",
    kinds={"pandas", "parquet"},
    owners=["team:ml-engineering"],
)
def pool_features(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """The frozen snapshot of what the evaluation read, and the features of every pool in it."""
    from spotlab_pipelines.features.snapshot import freeze_snapshot

    return for_each_account(context, database, lambda key: freeze_snapshot(settings, database, redis, archive, key))
