"""The asset of the accounts room: what each account runs."""

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import DatabaseParam, SessionsParam


@account_asset(group_name="accounts", kinds={"ec2", "postgres"}, owners=["team:data-engineering"])
def fleet_instances(
    context: dg.AssetExecutionContext,
    account_sessions: SessionsParam,
    database: DatabaseParam,
) -> dg.MaterializeResult:
    """The account's EC2 instances, from DescribeInstances in each of its regions into the table `instances`."""
    from spotlab_pipelines.accounts.fleet import sync_fleet

    return for_each_account(
        context, database, lambda key: sync_fleet(account_sessions, database, key.account_id), first=True
    )
