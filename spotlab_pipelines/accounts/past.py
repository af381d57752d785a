"""Which instances an account ran at an instant of the past: those that are gone stay in `instances`, with their end.

A sync notes the end of what it no longer sees. What ended before the account was connected, or between two syncs, is
told by the account's closed Spot requests, for as long as AWS keeps them; of past on-demand instances nobody tells.
"""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import PRESENT, read_fleet, sync_fleet
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.spot_requests import read_spot_requests, told_ends
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Instance

REMEMBER = sa.text("""
    insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state,
                           launched_at, ended_at, last_seen_at, last_running_at, spot_request_id, ended_by,
                           ended_source)
    select :account_id, instance_id, region, az_id, instance_type, product, 'spot', 'terminated',
           started_at, ended_at, ended_at, ended_at, spot_request_id, case when not interrupted then 'owner' end,
           case when not interrupted then 'spot_request' end
    from unnest(cast(:instance_id as text[]), cast(:region as text[]), cast(:az_id as text[]),
                cast(:instance_type as text[]), cast(:product as text[]), cast(:started_at as timestamptz[]),
                cast(:ended_at as timestamptz[]), cast(:spot_request_id as text[]),
                cast(:interrupted as boolean[]))
         as told(instance_id, region, az_id, instance_type, product, started_at, ended_at, spot_request_id, interrupted)
    on conflict (account_id, instance_id) do update set
        ended_at = least(instances.ended_at, excluded.ended_at), updated_at = now(),
        ended_by = coalesce(instances.ended_by, excluded.ended_by),
        ended_source = coalesce(instances.ended_source, excluded.ended_source)
    where instances.state = 'terminated' and (excluded.ended_at < instances.ended_at
                                              or (instances.ended_by is null and excluded.ended_by is not null))
""")
TOLD = (
    *("instance_id", "region", "az_id", "instance_type", "product", "started_at", "ended_at", "spot_request_id"),
    "interrupted",
)


def sync_fleet_and_past(sessions: AccountSessions, engine: sa.Engine, account_id: str) -> pd.DataFrame:
    """Bring `instances` up to date with what runs, and with what the account's Spot requests tell of the past.

    Returns:
        The fleet frame of what runs; see `sync_fleet`, also for the errors.
    """
    fleet = sync_fleet(sessions, engine, account_id)
    remember_past(engine, account_id, read_spot_requests(sessions, get_account(engine, account_id)))
    return fleet


def remember_past(engine: sa.Engine, account_id: str, requests: pd.DataFrame) -> None:
    """Keep the instances of closed Spot requests as terminated ones.

    An instance that is still there stays as it is. One that EC2 did not interrupt was ended by its owner. The end of
    one that a sync had missed is corrected: the request knows when it really was.

    Args:
        requests: Spot requests frame; those that `told_ends` leaves out tell nothing of the past.
    """
    closed = told_ends(requests).sort_values("ended_at").drop_duplicates("instance_id", keep="last")
    if closed.empty:
        return
    values = {name: closed[name].tolist() for name in TOLD}
    with database_errors(), engine.begin() as connection:
        connection.execute(REMEMBER, values | {"account_id": account_id})


def fleet_at(engine: sa.Engine, account_id: str, at: datetime) -> pd.DataFrame:
    """The instances that ran at an instant, with how each is steered now, by instance id.

    Each is there from its launch until its end; one that is stopped now is left out, since nobody knows since when.

    Returns:
        The fleet frame of `load_fleet`, every `state` running.
    """
    ran = sa.and_(
        Instance.launched_at <= at,
        sa.or_(Instance.state == PRESENT, sa.and_(Instance.state == "terminated", Instance.ended_at > at)),
    )
    return read_fleet(engine, account_id, ran).assign(state=PRESENT).astype({"state": "str"})
