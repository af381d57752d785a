"""Which instances an account runs: read from EC2, kept in `instances`.

How an instance is steered (assigned version, mode, shadow) is its owner's choice: a sync never changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.frames import FLEET_COLUMNS, STEERING_COLUMNS, TIME, check_frame, fleet_schema
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.zones import availability_zones, zone_id
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Instance
from spotlab_pipelines.errors import SourceMalformed

LIVE_STATES = ("pending", "running", "stopping", "stopped")
PRESENT = "running"
"""The state of the instances that are evaluated."""

UPSERT = sa.text("""
    with seen as (
        select * from jsonb_to_recordset(cast(:rows as jsonb)) as described(
            instance_id text, region text, az_id text, instance_type text, product text, lifecycle text, state text,
            tags jsonb, launched_at timestamptz, spot_request_id text)
    ), gone as (
        update instances set state = 'terminated', ended_at = coalesce(ended_at, now()), updated_at = now()
        where account_id = :account_id and state <> 'terminated'
          and instance_id not in (select instance_id from seen)
    )
    insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, tags,
                           launched_at, spot_request_id, last_running_at)
    select :account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, tags, launched_at,
           spot_request_id, case when state = 'running' then now() end
    from seen
    on conflict (account_id, instance_id) do update set
        region = excluded.region, az_id = excluded.az_id, instance_type = excluded.instance_type,
        product = excluded.product, lifecycle = excluded.lifecycle, state = excluded.state, tags = excluded.tags,
        launched_at = excluded.launched_at, spot_request_id = excluded.spot_request_id,
        -- What is known of a stop holds until it runs again.
        ended_at = case when excluded.state in ('stopping', 'stopped') then instances.ended_at end,
        ended_by = case when excluded.state in ('stopping', 'stopped') then instances.ended_by end,
        ended_source = case when excluded.state in ('stopping', 'stopped') then instances.ended_source end,
        last_running_at = coalesce(excluded.last_running_at, instances.last_running_at),
        last_seen_at = now(), updated_at = now()
""")


def sync_fleet(sessions: AccountSessions, engine: sa.Engine, account_id: str) -> pd.DataFrame:
    """Read the account's instances in all its regions and bring `instances` up to date in one statement.

    Instances that AWS no longer reports become `terminated`, and ended now as far as we know. If one region cannot be
    read nothing is written: a failed read is not an empty fleet.

    Returns:
        The fleet frame as AWS reports it: one row an instance that is pending, running, stopping or stopped.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
    """
    account = get_account(engine, account_id)
    records = []
    for region in account.regions:
        client = sessions.get_ec2_client(account_id, region)
        with aws_errors(f"DescribeInstances of account {account_id} in {region}", account):
            reservations = paginate(
                client.describe_instances,
                "Reservations",
                max_pages=sessions.max_pages,
                Filters=[{"Name": "instance-state-name", "Values": list(LIVE_STATES)}],
                MaxResults=1000,
            )
            instances = [
                instance for reservation in reservations for instance in _instances(account_id, region, reservation)
            ]
        named = [_zone_of(instance) for instance in instances]
        zones = availability_zones(sessions, account_id, region, naming=named)
        records += [described(account_id, region, instance, zones) for instance in instances]
    fleet = _frame(pd.DataFrame(records, columns=list(FLEET_COLUMNS)))
    fleet = check_frame(fleet_schema(), fleet, f"DescribeInstances of account {account_id}")
    with database_errors(), engine.begin() as connection:
        connection.execute(UPSERT, {"account_id": account_id, "rows": orjson.dumps(records).decode()})
    return fleet


def load_fleet(engine: sa.Engine, account_id: str) -> pd.DataFrame:
    """The account's running instances as last synced, with how each is steered, by instance id."""
    return read_fleet(engine, account_id, Instance.state == PRESENT)


def read_fleet(engine: sa.Engine, account_id: str, which: sa.ColumnElement[bool]) -> pd.DataFrame:
    """The account's instances for which `which` holds, with how each is steered, by instance id."""
    columns = [getattr(Instance, name) for name in (*FLEET_COLUMNS, *STEERING_COLUMNS)]
    query = sa.select(*columns).where(Instance.account_id == account_id, which).order_by(Instance.instance_id)
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(query).all()
    names = [*FLEET_COLUMNS, *STEERING_COLUMNS]
    dtypes: dict[str, Any] = dict.fromkeys(names, "str") | {"tags": object, "launched_at": TIME, "shadow": bool}
    # Column by column, since pandas is slow at rows, and from arrays, since it is slow at Series. Not checked again: a
    # sync checked it, and the table's own constraints hold for the steering.
    values = zip(*rows, strict=True) if rows else [()] * len(names)
    return pd.DataFrame({name: pd.array(of, dtype=dtypes[name]) for name, of in zip(names, values, strict=True)})


def _instances(account_id: str, region: str, reservation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    # Not an empty list: instances that are not read would count as terminated.
    if not isinstance(reservation.get("Instances"), list):
        raise SourceMalformed(
            f"DescribeInstances of account {account_id} in {region}: expected reservations with a list of Instances,"
            f" got one with {', '.join(sorted(reservation)) or 'nothing'} only.",
            remedy="Nothing was written. Check AWS_ENDPOINT_URL, or try again later.",
        )
    return reservation["Instances"]


def _zone_of(instance: Any) -> str:
    """The name of an instance's zone; "" if it says none, which is found when its row is made."""
    placement = instance.get("Placement") if isinstance(instance, Mapping) else None
    return placement.get("AvailabilityZone", "") if isinstance(placement, Mapping) else ""


def described(account_id: str, region: str, instance: Mapping[str, Any], zones: Mapping[str, str]) -> dict[str, Any]:
    """An instance as DescribeInstances tells of it, as a row of FLEET_COLUMNS.

    Raises:
        SourceMalformed: something is missing.
    """
    what = f"DescribeInstances of account {account_id} in {region}"
    try:
        product = instance.get("PlatformDetails") or instance.get("Platform", "Linux/UNIX").capitalize()
        return {
            "account_id": account_id,
            "instance_id": instance["InstanceId"],
            "region": region,
            "az_id": zone_id(zones, instance["Placement"]["AvailabilityZone"], what),
            "instance_type": instance["InstanceType"],
            "product": "Linux/UNIX" if product.lower() == "linux/unix" else product.removesuffix(" (Amazon VPC)"),
            "lifecycle": "spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
            "state": instance["State"]["Name"],
            "tags": {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])},
            "launched_at": instance["LaunchTime"],
            "spot_request_id": instance.get("SpotInstanceRequestId"),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceMalformed(
            f"{what}: expected InstanceId, InstanceType, Placement, State and LaunchTime, got {error!r} missing.",
            remedy="Try again later.",
        ) from error


def _frame(frame: pd.DataFrame) -> pd.DataFrame:
    texts = [name for name in FLEET_COLUMNS if name not in ("tags", "launched_at")]
    frame = frame.astype(dict.fromkeys(texts, "str") | {"tags": object})
    frame["launched_at"] = pd.to_datetime(frame["launched_at"], utc=True).dt.as_unit("us")
    return frame
