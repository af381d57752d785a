"""Assets of the market room: what the Spot market says."""

import dagster as dg
import redis as redis_client
import sqlalchemy as sa

from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.defs.evaluation import for_each_account, translated
from spotlab_pipelines.defs.metadata import report_metadata
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.market.advisor import scrape_advisor
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.catalogue import scrape_catalogue
from spotlab_pipelines.market.prices import scrape_prices
from spotlab_pipelines.settings import Settings

OWNERS = ["team:data-engineering"]


@dg.asset(group_name="market", kinds={"json", "redis", "parquet"}, owners=OWNERS)
def spot_advisor(
    settings: dg.ResourceParam[Settings],
    database: dg.ResourceParam[sa.Engine],
    redis: dg.ResourceParam[redis_client.Redis],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """The Spot Advisor feed: the trailing month's interruption bucket of each (region, OS, instance type)."""
    with translated():
        return dg.MaterializeResult(metadata=report_metadata(scrape_advisor(settings, database, redis, archive)))


@dg.asset(group_name="market", kinds={"ec2", "redis", "parquet"}, owners=OWNERS)
def instance_catalogue(
    settings: dg.ResourceParam[Settings],
    account_sessions: dg.ResourceParam[AccountSessions],
    database: dg.ResourceParam[sa.Engine],
    redis: dg.ResourceParam[redis_client.Redis],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """Every instance type with its on-demand prices by region and OS, from DescribeInstanceTypes and the price list."""
    with translated():
        report = scrape_catalogue(settings, account_sessions, database, redis, archive)
        return dg.MaterializeResult(metadata=report_metadata(report))


@account_asset(
    deps=["fleet_instances", instance_catalogue], group_name="market", kinds={"ec2", "redis", "parquet"}, owners=OWNERS
)
def spot_prices(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    account_sessions: dg.ResourceParam[AccountSessions],
    database: dg.ResourceParam[sa.Engine],
    redis: dg.ResourceParam[redis_client.Redis],
    archive: dg.ResourceParam[Archive],
) -> dg.MaterializeResult:
    """Spot price changes of the families the account runs or could run; shared by all accounts through the cache."""
    return for_each_account(
        context,
        database,
        lambda key: scrape_prices(settings, account_sessions, database, redis, archive, key.account_id),
    )
