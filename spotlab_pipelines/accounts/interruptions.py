"""Which instances of an account EC2 took away, from several sources, on record: one interruption counts once.

A source says how instances ended (`EndingSource`): the status changes of Spot requests, the state reasons of instances,
one day EventBridge. Which of them tells first, and how often it is read, does not matter.

The same interruption is told with several times: of its notice, of the stop, of whoever noticed. So two tellings are
one interruption unless the instance was launched again in between: an instance's second interruption counts from the
moment that EC2 shows its later launch. The time on record is that of the first telling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import orjson
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.fleet import described
from spotlab_pipelines.accounts.frames import ENDING_COLUMNS, TIME, check_frame, ending_schema
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.spot_requests import read_spot_requests, told_ends
from spotlab_pipelines.accounts.zones import availability_zones
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import lock_account

TAKEN = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})
"""State reasons by which EC2 takes a Spot instance away. Source: the EC2 API's StateReason."""
BY_ITS_OWNER = "Client."
"""How the state reasons begin that the owner, or the instance itself, caused."""
GONE_STATES = ("shutting-down", "terminated", "stopping", "stopped")
SAID_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")

RECORD = sa.text("""
    with told as (
        select t.*, coalesce(t.occurred_at, i.ended_at, :read_at) as at, i.launched_at
        from jsonb_to_recordset(cast(:rows as jsonb)) as t(
            instance_id text, region text, az_id text, instance_type text, product text, code text,
            spot_request_id text, occurred_at timestamptz)
        left join instances i on i.account_id = :account_id and i.instance_id = t.instance_id
    )
    insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source,
                                     status_code, spot_request_id, occurred_at, number)
    select distinct on (instance_id) :account_id, instance_id, region, az_id, instance_type, product, :source, code,
           spot_request_id, at, 1 + (select count(*) from interruption_events e
                                     where e.account_id = :account_id and e.instance_id = told.instance_id)
    from told
    where not exists (
        select from interruption_events e where e.account_id = :account_id and e.instance_id = told.instance_id
          and (e.occurred_at >= told.launched_at) is not distinct from (told.at >= told.launched_at))
    order by instance_id, at
    on conflict (account_id, instance_id, number) do nothing
""")
EXPLAIN_ENDS = sa.text("""
    -- Where nobody tells the time, it ran for as long as it was seen to: when it was missed, it had ended before.
    update instances i set ended_by = 'owner', ended_source = :source, updated_at = now(),
                           ended_at = least(i.ended_at, coalesce(t.occurred_at, i.last_running_at))
    from jsonb_to_recordset(cast(:rows as jsonb)) as t(instance_id text, occurred_at timestamptz)
    where i.account_id = :account_id and i.instance_id = t.instance_id and i.ended_by is null
      and case i.state
          when 'terminated' then i.ended_at is not null
          -- Not what is told of a stop before it was started again.
          when 'stopping' then coalesce(t.occurred_at, i.last_running_at) >= i.launched_at
          when 'stopped' then coalesce(t.occurred_at, i.last_running_at) >= i.launched_at end
""")


class EndingSource(Protocol):
    """A source of how an account's Spot instances ended; `name` is one of `tables.EVENT_SOURCES`."""

    name: str

    def read(self, sessions: AccountSessions, account: Account) -> pd.DataFrame:
        """The endings that the source still tells of, in all the account's regions.

        Returns:
            Frame of ENDING_COLUMNS, one row an instance; `interrupted` whether EC2 took it away, else its owner ended
            it; `occurred_at` missing where the source does not say.

        Raises:
            AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
        """
        ...


class SpotRequestEndings:
    """The status changes of the account's Spot requests."""

    name = "spot_request"

    def read(self, sessions: AccountSessions, account: Account) -> pd.DataFrame:
        """See `EndingSource`."""
        return endings_of_requests(read_spot_requests(sessions, account))


class StateReasonEndings:
    """The state reasons of instances that are gone or stopped, for as long as EC2 shows them."""

    name = "state_reason"

    def read(self, sessions: AccountSessions, account: Account) -> pd.DataFrame:
        """See `EndingSource`."""
        rows: list[dict[str, Any]] = []
        gone = [{"Name": "instance-state-name", "Values": list(GONE_STATES)}]
        for region in account.regions:
            client = sessions.get_ec2_client(account.account_id, region)
            what = f"DescribeInstances of account {account.account_id} in {region}"
            with aws_errors(what, account):
                reservations = list(
                    paginate(
                        client.describe_instances,
                        "Reservations",
                        max_pages=sessions.max_pages,
                        Filters=gone,
                        MaxResults=1000,
                    )
                )
            instances = [each for reservation in reservations for each in reservation.get("Instances", [])]
            named = {each.get("Placement", {}).get("AvailabilityZone", "") for each in instances}
            zones = availability_zones(sessions, account.account_id, region, naming=named)
            rows += [row for each in instances for row in _ending(account.account_id, region, each, zones)]
        return _endings(pd.DataFrame(rows, columns=list(ENDING_COLUMNS)), f"{self.name} of {account.account_id}")


SOURCES: tuple[EndingSource, ...] = (SpotRequestEndings(), StateReasonEndings())
"""In this order, since a request knows when it was: the first telling's time counts."""


def endings_of_requests(requests: pd.DataFrame) -> pd.DataFrame:
    """The endings that fulfilled Spot requests tell of; pure. See `EndingSource.read`."""
    ended = told_ends(requests).rename(columns={"ended_at": "occurred_at", "status_code": "code"})
    return _endings(ended[list(ENDING_COLUMNS)].reset_index(drop=True), "Endings of Spot requests")


def record_endings(engine: sa.Engine, account_id: str, source: str, endings: pd.DataFrame, *, read_at: datetime) -> int:
    """Write the interruptions that are not on record yet, and who ended what EC2 did not.

    Args:
        endings: what an `EndingSource` gives.
        read_at: when; stands for the time of an interruption that nobody tells.

    Returns:
        How many interruptions were new.
    """
    if endings.empty:
        return 0
    times = [None if pd.isna(time) else time.isoformat() for time in endings["occurred_at"]]
    rows = endings.assign(occurred_at=pd.Series(times, index=endings.index, dtype=object))
    taken = rows["interrupted"]
    values = {"account_id": account_id, "source": source}
    with database_errors(), engine.begin() as connection:
        lock_account(connection, account_id)
        new = connection.execute(RECORD, values | {"rows": _json(rows[taken]), "read_at": read_at}).rowcount
        connection.execute(EXPLAIN_ENDS, values | {"rows": _json(rows[~taken])})
    return new


def _json(rows: pd.DataFrame) -> str:
    records = [{k: None if v is pd.NA or v != v else v for k, v in row.items()} for row in rows.to_dict("records")]
    return orjson.dumps(records).decode()


def _ending(
    account_id: str, region: str, instance: Mapping[str, Any], zones: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A Spot instance as a row of ENDING_COLUMNS, if its state reason says whether EC2 or its owner ended it."""
    code = (instance.get("StateReason") or {}).get("Code", "")
    if instance.get("InstanceLifecycle") != "spot" or not (code in TAKEN or code.startswith(BY_ITS_OWNER)):
        return []
    said = SAID_AT.search(instance.get("StateTransitionReason") or "")
    row = described(account_id, region, instance, zones)
    row |= {"code": code, "interrupted": code in TAKEN, "occurred_at": f"{said[1]}Z" if said else None}
    return [{name: row[name] for name in ENDING_COLUMNS}]


def _endings(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    texts = [name for name in ENDING_COLUMNS if name not in ("occurred_at", "interrupted")]
    frame = frame.astype(dict.fromkeys(texts, "str") | {"interrupted": bool})
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"], utc=True).astype(TIME)
    return check_frame(ending_schema(), frame, what)
