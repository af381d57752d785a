"""What became of an account's Spot requests: which were fulfilled, interrupted, or refused for want of capacity.

Source: the EC2 user guide's table of Spot request status codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.frames import (
    REFUSAL_COLUMNS,
    SPOT_REQUEST_COLUMNS,
    check_frame,
    refusal_schema,
    spot_request_schema,
)
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.zones import availability_zones, zone_id
from spotlab_pipelines.errors import SourceMalformed

RUNNING_CODES = frozenset({"fulfilled", "request-canceled-and-instance-running"})
INTERRUPTED_CODES = frozenset(
    {
        "marked-for-stop",
        "marked-for-termination",
        "instance-stopped-by-price",
        "instance-stopped-no-capacity",
        "instance-stopped-capacity-oversubscribed",
        "instance-terminated-by-price",
        "instance-terminated-no-capacity",
        "instance-terminated-capacity-oversubscribed",
        "instance-terminated-launch-group-constraint",
    }
)
"""Status codes by which EC2, not the user or a schedule, takes an instance away."""

STOPPED_BEFORE_CODES = frozenset({"instance-terminated-by-service"})
"""Status codes of an instance that was terminated while it was stopped: they say neither who stopped it nor when."""

REFUSED_CODES = frozenset({"capacity-not-available", "capacity-oversubscribed"})
"""Status codes of an unfulfilled request by which EC2 says that the pool has no capacity."""


def read_spot_requests(sessions: AccountSessions, account: Account) -> pd.DataFrame:
    """The account's fulfilled Spot requests in all its regions, by request id.

    `started_at` is the request's creation: fulfilment follows within seconds. `ended_at` is the time of the last status
    change if the instance is no longer running, else missing. `interrupted` says whether EC2 took it away.

    Returns:
        Frame of SPOT_REQUEST_COLUMNS, one row a request.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
    """
    return read_spot_requests_and_refusals(sessions, account)[0]


def read_spot_requests_and_refusals(sessions: AccountSessions, account: Account) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The account's fulfilled Spot requests, see `read_spot_requests`, and those refused for want of capacity.

    A refused request that names no zone, or several, says of no pool that it is empty and is left out.

    Returns:
        Frames of SPOT_REQUEST_COLUMNS and of REFUSAL_COLUMNS, one row a request; `refused_at` is when its status last
        changed.
    """
    rows, refused = [], []
    for region in account.regions:
        client = sessions.get_ec2_client(account.account_id, region)
        what = f"DescribeSpotInstanceRequests of account {account.account_id} in {region}"
        with aws_errors(what, account):
            requests = list(
                paginate(
                    client.describe_spot_instance_requests,
                    "SpotInstanceRequests",
                    max_pages=sessions.max_pages,
                    MaxResults=1000,
                )
            )
        zones = availability_zones(sessions, account.account_id, region, naming=set(map(_zone_name, requests)))
        rows += [_row(region, request, zones, what) for request in requests if request.get("InstanceId")]
        refused += [row for request in requests for row in _refusal(region, request, zones)]
    who = f"Spot requests of account {account.account_id}"
    fulfilled = _frame(rows, SPOT_REQUEST_COLUMNS, times=("started_at", "ended_at"), flags=("interrupted",))
    refusals = _frame(refused, REFUSAL_COLUMNS, times=("refused_at",))
    return check_frame(spot_request_schema(), fulfilled, who), check_frame(refusal_schema(), refusals, who)


def told_ends(requests: pd.DataFrame) -> pd.DataFrame:
    """Those of fulfilled Spot requests that say when their instance stopped running, and who ended it; pure."""
    return requests[requests["ended_at"].notna() & ~requests["status_code"].isin(STOPPED_BEFORE_CODES)]


def _zone_name(request: Mapping[str, Any]) -> str:
    """The one zone that a request says it is about, "" if there is none or several."""
    placement = (request.get("LaunchSpecification") or {}).get("Placement") or {}
    name = request.get("LaunchedAvailabilityZone") or placement.get("AvailabilityZone") or ""
    return "" if "," in name else name


def _frame(
    rows: list[tuple[Any, ...]], columns: tuple[str, ...], *, times: tuple[str, ...], flags: tuple[str, ...] = ()
) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    texts = [name for name in columns if name not in (*times, *flags)]
    frame = frame.astype(dict.fromkeys(texts, "str") | dict.fromkeys(flags, bool))
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("us")
    return frame.sort_values("spot_request_id", ignore_index=True)


def _refusal(region: str, request: Mapping[str, Any], zones: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """A request without an instance as a row of REFUSAL_COLUMNS, if it tells of one pool that it has no capacity."""
    status, launch = request.get("Status") or {}, request.get("LaunchSpecification") or {}
    zone = (launch.get("Placement") or {}).get("AvailabilityZone", "")
    if request.get("InstanceId") or status.get("Code") not in REFUSED_CODES or zone not in zones:
        return []
    product = request.get("ProductDescription", "").removesuffix(" (Amazon VPC)")
    named = (request.get("SpotInstanceRequestId"), region, zones[zone], launch.get("InstanceType"), product)
    return [(*named, status.get("UpdateTime"), status["Code"])]


def _row(region: str, request: Mapping[str, Any], zones: Mapping[str, str], what: str) -> tuple[Any, ...]:
    try:
        code = request["Status"]["Code"]
        zone = (
            request.get("LaunchedAvailabilityZone") or request["LaunchSpecification"]["Placement"]["AvailabilityZone"]
        )
        return (
            request["SpotInstanceRequestId"],
            request["InstanceId"],
            region,
            zone_id(zones, zone, what),
            request["LaunchSpecification"]["InstanceType"],
            request["ProductDescription"].removesuffix(" (Amazon VPC)"),
            request["CreateTime"],
            None if code in RUNNING_CODES else request["Status"]["UpdateTime"],
            code in INTERRUPTED_CODES,
            code,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceMalformed(
            f"{what}: expected Status, LaunchSpecification, ProductDescription and CreateTime, got {error!r} missing.",
            remedy="Try again later.",
        ) from error
