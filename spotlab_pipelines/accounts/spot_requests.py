"""What became of an account's Spot instances: its fulfilled Spot requests, and which of them EC2 interrupted.

Source: the EC2 user guide's table of Spot request status codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.fleet import availability_zones, zone_id
from spotlab_pipelines.accounts.frames import SPOT_REQUEST_COLUMNS, check_frame, spot_request_schema
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.sessions import AccountSessions
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
        "instance-terminated-by-service",
        "instance-terminated-no-capacity",
        "instance-terminated-capacity-oversubscribed",
        "instance-terminated-launch-group-constraint",
    }
)
"""Status codes by which EC2, not the user or a schedule, takes an instance away."""


def read_spot_requests(sessions: AccountSessions, account: Account) -> pd.DataFrame:
    """The account's fulfilled Spot requests in all its regions, by request id.

    `started_at` is the request's creation: fulfilment follows within seconds. `ended_at` is the time of the last status
    change if the instance is no longer running, else missing. `interrupted` says whether EC2 took it away.

    Returns:
        Frame of SPOT_REQUEST_COLUMNS, one row a request.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
    """
    rows = []
    for region in account.regions:
        zones = availability_zones(sessions, account.account_id, region)
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
        rows += [_row(region, request, zones, what) for request in requests if request.get("InstanceId")]
    frame = pd.DataFrame(rows, columns=list(SPOT_REQUEST_COLUMNS))
    times = ("started_at", "ended_at")
    texts = [name for name in SPOT_REQUEST_COLUMNS if name not in (*times, "interrupted")]
    frame = frame.astype(dict.fromkeys(texts, "str") | {"interrupted": bool})
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("us")
    frame = frame.sort_values("spot_request_id", ignore_index=True)
    return check_frame(spot_request_schema(), frame, f"Spot requests of account {account.account_id}")


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
