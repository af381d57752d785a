"""The asset of the accounts room: what each account runs."""

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset


@account_asset(group_name="accounts", kinds={"ec2", "postgres"}, owners=["team:data-engineering"])
def fleet_instances(
    context: dg.AssetExecutionContext,
    account_sessions: dg.ResourceParam[AccountSessions],
    database: dg.ResourceParam[sa.Engine],
) -> dg.MaterializeResult:
    """The account's EC2 instances, from DescribeInstances in each of its regions into the table `instances`."""
    return for_each_account(
        context, database, lambda key: sync_fleet(account_sessions, database, key.account_id), first=True
    )
