"""Spot requests: those that running instances made here, and the recording's past ones, shared out over accounts.

A past request belongs to one account: the one its row names, else the highest of a hash of row and account (so that a
further account moves as few rows as possible). What lies in the future is not told: a request that has not started is
hidden, one that has not ended is active.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from werkzeug.wrappers import Response

from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.wire import (
    AwsError,
    Call,
    ec2_reply,
    matches,
    page_size,
    page_token,
    read_token,
    xml_time,
)
from spotlab_pipelines_tests.local_aws.zones import zone_names

FULFILLED = "fulfilled"
REFUSED = "capacity-not-available"
MESSAGES = {
    FULFILLED: "Your spot request is fulfilled.",
    REFUSED: "There is no Spot capacity available that matches your request.",
    "instance-terminated-no-capacity": "Your Spot instance was terminated because there is no Spot capacity available.",
    "instance-terminated-by-price": "Your Spot instance was terminated because your maximum price was too low.",
    "instance-terminated-by-user": "Spot Instance terminated due to user-initiated termination.",
    "marked-for-termination": "Your Spot instance is marked for termination.",
}
_FILTERS = {
    "state": "state",
    "status-code": "status_code",
    "instance-id": "instance_id",
    "spot-instance-request-id": "request_id",
    "launch.instance-type": "instance_type",
    "product-description": "product",
    "launched-availability-zone": "zone",
}


@dataclass
class SpotRequest:
    """A request that was made here: of an instance that was started, or of none (instance_id "") if it is refused."""

    request_id: str
    account_id: str
    region: str
    instance_id: str
    instance_type: str
    az_id: str
    product: str
    image_id: str
    started_at: datetime
    ended_at: datetime | None = None
    status_code: str = FULFILLED


@dataclass
class SpotRequests:
    """All requests of all accounts."""

    recording: Recording
    live: list[SpotRequest] = field(default_factory=list)
    accounts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        past = self.recording.interruptions
        keys = past["region"] + past["instance_type"] + past["az_id"] + past["product"] + past["started_at"].astype(str)
        order = past.groupby(keys.to_numpy()).cumcount().astype(str) if len(past) else ""
        self._digests = pd.util.hash_pandas_object(keys + order, index=False).to_numpy(dtype=np.uint64)

    def end(self, instance_id: str, status_code: str, ended_at: datetime) -> None:
        """Note that an instance's request ended; instances without one (on-demand) are none of ours."""
        for request in self.live:
            if request.instance_id == instance_id and request.ended_at is None:
                request.status_code, request.ended_at = status_code, ended_at

    def refuse(self, account_id: str, region: str, instance_type: str, az_id: str, product: str) -> str:
        """A request that stays open for want of capacity; its id."""
        request_id = f"sir-{len(self.live):08x}"
        self.live.append(
            SpotRequest(
                request_id=request_id,
                account_id=account_id,
                region=region,
                instance_id="",
                instance_type=instance_type,
                az_id=az_id,
                product=product,
                image_id="ami-0spotlabnone00000",
                started_at=datetime.now(UTC),
                status_code=REFUSED,
            )
        )
        return request_id

    def describe(self, call: Call, account_id: str) -> Response:
        """One page of an account's requests in a region, oldest first.

        Raises:
            AwsError: a bad filter, page size or token; InvalidSpotInstanceRequestID.NotFound.
        """
        filters = call.filters(*_FILTERS)
        rows = self._rows(account_id, call.region)
        if asked := call.params.get("SpotInstanceRequestIds"):
            if missing := sorted(set(asked) - set(rows["request_id"])):
                raise AwsError(
                    "InvalidSpotInstanceRequestID.NotFound",
                    f"The spot instance request ID '{missing[0]}' does not exist",
                )
            rows = rows[rows["request_id"].isin(asked)]
        for name, values in filters.items():
            labels = rows[_FILTERS[name]]
            taken = [label for label in labels.unique() if matches(label, values)]
            rows = rows[labels.isin(taken)]
        size = page_size(call, default=1000, low=5, high=1000)
        token = call.params.get("NextToken")
        offset = int(read_token(token).get("offset", 0)) if token else 0
        items = "".join(_item(row) for row in rows.iloc[offset : offset + size].itertuples(index=False))
        last = offset + size >= len(rows)
        next_token = "" if last else f"<nextToken>{page_token({'offset': offset + size})}</nextToken>"
        return ec2_reply(call.action, f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>{next_token}")

    def share(self, account_id: str) -> np.ndarray:
        """Which of the recording's past requests are this account's, one flag per row."""
        past = self.recording.interruptions
        if account_id not in self.accounts or not len(past):
            return np.zeros(len(past), dtype=bool)
        accounts = sorted(self.accounts)
        weights = np.stack([_mix(self._digests ^ _seed(account)) for account in accounts])
        owner = np.array(accounts)[weights.argmax(axis=0)]
        named = past["account_id"].to_numpy(dtype=object)
        return np.where(named == "", owner, named) == account_id

    def _rows(self, account_id: str, region: str) -> pd.DataFrame:
        now, names = pd.Timestamp(datetime.now(UTC)), zone_names(account_id, region)
        past = self.recording.interruptions
        mask = self.share(account_id) & (past["region"] == region).to_numpy() & (past["started_at"] <= now).to_numpy()
        rows, digests = past[mask].copy(), self._digests[mask]
        running = rows["ended_at"].isna() | (rows["ended_at"] > now)
        rows.loc[running, ["status_code", "ended_at"]] = [FULFILLED, pd.NaT]
        rows["request_id"] = [f"sir-{digest & 0xFFFFFFFF:08x}" for digest in digests.tolist()]
        rows["instance_id"] = [f"i-{digest:017x}"[:19] for digest in digests.tolist()]
        rows["image_id"] = "ami-0spotlabpast00000"
        live = pd.DataFrame(
            [vars(request) for request in self.live if (request.account_id, request.region) == (account_id, region)],
            columns=rows.columns,
        )
        rows = pd.concat([rows, live]) if len(live) else rows
        rows["ended_at"] = pd.to_datetime(rows["ended_at"], utc=True)
        rows["zone"] = rows["az_id"].map(names)
        ended = rows["ended_at"].notna()
        rows["state"] = np.where(ended, "closed", np.where(rows["instance_id"] == "", "open", "active"))
        rows["updated_at"] = rows["ended_at"].where(ended, rows["started_at"])
        return rows.sort_values(["started_at", "request_id"], ignore_index=True)


def _item(row: Any) -> str:
    launched = f"<instanceId>{row.instance_id}</instanceId>" if row.instance_id else ""
    launched_in = f"<launchedAvailabilityZone>{row.zone}</launchedAvailabilityZone>" if row.instance_id else ""
    return (
        f"<item><spotInstanceRequestId>{row.request_id}</spotInstanceRequestId><type>one-time</type>"
        f"<state>{row.state}</state><status><code>{row.status_code}</code>"
        f"<updateTime>{xml_time(row.updated_at)}</updateTime>"
        f"<message>{MESSAGES.get(row.status_code, row.status_code)}</message></status>"
        f"<launchSpecification><imageId>{row.image_id}</imageId><instanceType>{row.instance_type}</instanceType>"
        f"<placement><availabilityZone>{row.zone}</availabilityZone><tenancy>default</tenancy></placement>"
        "<monitoring><enabled>false</enabled></monitoring></launchSpecification>"
        f"{launched}<createTime>{xml_time(row.started_at)}</createTime>"
        f"<productDescription>{row.product}</productDescription>"
        f"{launched_in}"
        "<instanceInterruptionBehavior>terminate</instanceInterruptionBehavior></item>"
    )


def _seed(account_id: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(account_id.encode()).digest()[:8], "big"))


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
