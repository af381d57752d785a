"""The asset of the features room: what models see."""

import dagster as dg
import redis as redis_client
import sqlalchemy as sa

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings


@account_asset(
    deps=["spot_advisor", "instance_catalogue", "fleet_instances", "spot_prices"],
    group_name="features",
    kinds={"pandas", "parquet"},
    owners=["team:ml-engineering"],
)
def pool_features(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    database: dg.ResourceParam[sa.Engine],
    redis: dg.ResourceParam[redis_client.Redis],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """The frozen snapshot of what the evaluation read, and the features of every pool in it."""
    return for_each_account(context, database, lambda key: freeze_snapshot(settings, database, redis, archive, key))
