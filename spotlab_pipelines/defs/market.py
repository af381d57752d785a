"""Assets of the market room: what the Spot market says."""

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account, translated
from spotlab_pipelines.defs.metadata import report_metadata
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, RedisParam, SessionsParam, SettingsParam

OWNERS = ["team:data-engineering"]


@dg.asset(group_name="market", kinds={"json", "redis", "parquet"}, owners=OWNERS)
def spot_advisor(
    settings: SettingsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """The Spot Advisor feed: the trailing month's interruption bucket of each (region, OS, instance type)."""
    from spotlab_pipelines.market.advisor import scrape_advisor

    with translated():
        return dg.MaterializeResult(metadata=report_metadata(scrape_advisor(settings, database, redis, archive)))


@dg.asset(group_name="market", kinds={"ec2", "redis", "parquet"}, owners=OWNERS)
def instance_catalogue(
    settings: SettingsParam,
    account_sessions: SessionsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """Every instance type with its on-demand prices by region and OS, from DescribeInstanceTypes and the price list."""
    from spotlab_pipelines.market.catalogue import scrape_catalogue

    with translated():
        report = scrape_catalogue(settings, account_sessions, database, redis, archive)
        return dg.MaterializeResult(metadata=report_metadata(report))


@account_asset(
    deps=["fleet_instances", instance_catalogue], group_name="market", kinds={"ec2", "redis", "parquet"}, owners=OWNERS
)
def spot_prices(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    account_sessions: SessionsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """Spot price changes of the families the account runs or could run; shared by all accounts through the cache."""
    from spotlab_pipelines.market.prices import scrape_prices

    return for_each_account(
        context,
        database,
        lambda key: scrape_prices(settings, account_sessions, database, redis, archive, key.account_id),
    )


@account_asset(
    deps=["fleet_instances"], group_name="market", kinds={"ec2", "redis", "parquet", "postgres"}, owners=OWNERS
)
def pool_observations(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    account_sessions: SessionsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """What the account's Spot requests say of EC2's pools, for all accounts; and its own interruptions, on record."""
    from spotlab_pipelines.market.observations import scrape_observations

    return for_each_account(
        context,
        database,
        lambda key: scrape_observations(settings, account_sessions, database, redis, archive, key.account_id),
    )


@dg.asset(group_name="maintenance", kinds={"parquet"}, owners=OWNERS)
def archive_compaction(settings: SettingsParam, archive: ArchiveParam) -> dg.MaterializeResult:
    """The archive's small files, merged to one for each kind, region and date; no row is lost."""
    from spotlab_pipelines.market.compaction import compact_archive

    with translated():
        report = compact_archive(archive, settle=settings.archive_settle)
        return dg.MaterializeResult(metadata=report_metadata(report))
