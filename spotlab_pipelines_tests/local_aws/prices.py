"""DescribeSpotPriceHistory over a recording: change points, newest first, paged as awkwardly as AWS pages them.

Rows lie in sorted arrays per region; a listing is found once by boolean masks, remembered under its token, and each
page is then a slice. As in AWS the row that was in force at StartTime is part of the answer, a page may be empty
while its token goes on, a page may repeat a row of the page before, and the last token is "".
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
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
    page_token,
    read_token,
    xml_time,
)
from spotlab_pipelines_tests.local_aws.zones import account_zones, zone_names

VPC = " (Amazon VPC)"
EMPTY_PAGE, REPEATING_PAGE, CYCLE = 1, 3, 5
"""In every five pages of a listing, the second is empty and the fourth opens with the last row of the one before."""
_FILTERS = ("instance-type", "product-description", "availability-zone", "availability-zone-id", "spot-price")
_REMEMBERED = 64


@dataclass(frozen=True)
class InjectedPrice:
    """A price that no market made, for tests of bad input; `price` is sent as it is."""

    region: str
    instance_type: str
    az_id: str
    product: str
    price: str
    changed_at: datetime


@dataclass(frozen=True)
class _Region:
    """One region's rows, newest first: codes into the label arrays, times in µs since the epoch."""

    types: np.ndarray
    products: np.ndarray
    zones: np.ndarray
    type_code: np.ndarray
    product_code: np.ndarray
    zone_code: np.ndarray
    changed_at: np.ndarray
    replaced_at: np.ndarray
    price: np.ndarray


@dataclass
class PriceHistory:
    """The price history of a recording, and prices injected by tests."""

    recording: Recording
    injected: list[InjectedPrice] = field(default_factory=list)

    def __post_init__(self) -> None:
        prices = self.recording.prices
        self._regions = {region: _arrays(part) for region, part in prices.groupby("region", observed=True)}
        self._found: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def describe(self, call: Call, account_id: str) -> Response:
        """Answer one call for an account, in its own zone names.

        Raises:
            AwsError: a filter, zone, time or token that AWS refuses too.
        """
        filters = call.filters(*_FILTERS)
        query = {key: call.params.get(key) for key in ("InstanceTypes", "ProductDescriptions")} | {"filters": filters}
        query |= {"zones": self._zones(call, account_id, filters), "region": call.region}
        query["start"] = _micros(call.params.get("StartTime"), default=0)
        state = self._state(call, query)
        rows = self._rows(query, until=state["until"], key=state["key"])
        size = min(int(call.params.get("MaxResults") or 1000), 1000)
        if size < 1:
            raise AwsError("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
        return self._page(call, account_id, query, rows=rows, state=state, size=size)

    def _state(self, call: Call, query: dict[str, Any]) -> dict[str, Any]:
        end = _micros(call.params.get("EndTime"), default=2**62)
        key = hashlib.sha256(json.dumps([query, end], sort_keys=True, default=str).encode()).hexdigest()[:16]
        token = call.params.get("NextToken")
        if not token:
            now = _micros(datetime.now(UTC), default=0)
            return {"key": key, "until": min(end, now), "offset": 0, "page": 0}
        state = read_token(token)
        if state.get("key") != key:
            raise AwsError("InvalidParameterValue", "The token does not belong to a request with these parameters.")
        return state

    def _zones(self, call: Call, account_id: str, filters: dict[str, list[str]]) -> list[str] | None:
        """The zone ids asked for, None for all."""
        known = account_zones(account_id, call.region)
        wanted: set[str] | None = None
        if name := call.params.get("AvailabilityZone"):
            if name not in known:
                raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{name}]")
            wanted = {known[name]}
        if zone_id := call.params.get("AvailabilityZoneId"):
            wanted = {zone_id} & (wanted if wanted is not None else {zone_id})
        if "availability-zone" in filters:
            ids = {zone_id for name, zone_id in known.items() if matches(name, filters["availability-zone"])}
            wanted = ids if wanted is None else wanted & ids
        if "availability-zone-id" in filters:
            ids = {zone_id for zone_id in known.values() if matches(zone_id, filters["availability-zone-id"])}
            wanted = ids if wanted is None else wanted & ids
        return None if wanted is None else sorted(wanted)

    def _rows(self, query: dict[str, Any], *, until: int, key: str) -> np.ndarray:
        """Indices of the rows of a listing, newest first; a row is in it if it was in force after the start."""
        table = self._regions.get(query["region"])
        if table is None:
            return np.empty(0, dtype=np.int64)
        remembered = f"{key}/{until}"
        with self._lock:
            if remembered in self._found:
                self._found.move_to_end(remembered)
                return self._found[remembered]
        types, products, zones = _wanted(table, query)
        mask = types[table.type_code] & products[table.product_code] & zones[table.zone_code]
        mask &= (table.changed_at <= until) & (table.replaced_at > query["start"])
        if "spot-price" in query["filters"]:
            mask &= np.isin(table.price, [float(value) for value in query["filters"]["spot-price"]])
        rows = np.flatnonzero(mask)
        with self._lock:
            self._found[remembered] = rows
            while len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return rows

    def _page(
        self,
        call: Call,
        account_id: str,
        query: dict[str, Any],
        *,
        rows: np.ndarray,
        state: dict[str, Any],
        size: int,
    ) -> Response:
        offset, page = int(state["offset"]), int(state["page"])
        start, stop = offset, min(offset + size, len(rows))
        if page % CYCLE == EMPTY_PAGE:
            stop = offset
        elif page % CYCLE == REPEATING_PAGE and size > 1:
            start, stop = offset - 1, min(offset - 1 + size, len(rows))
        token = ""
        if stop < len(rows):
            token = page_token({**state, "offset": stop, "page": page + 1})
        suffix = VPC if any(name.endswith(VPC) for name in call.params.get("ProductDescriptions", [])) else ""
        names = zone_names(account_id, call.region)
        items = self._injected_items(query, names, suffix) if page == 0 else ""
        if stop > start:
            items += _items(self._regions[call.region], rows[start:stop], names, suffix)
        body = f"<nextToken>{token}</nextToken><spotPriceHistorySet>{items}</spotPriceHistorySet>"
        return ec2_reply(call.action, body)

    def _injected_items(self, query: dict[str, Any], names: dict[str, str], suffix: str) -> str:
        types, products = query["InstanceTypes"], _plain(query["ProductDescriptions"])
        return "".join(
            _item(bad.instance_type, bad.product + suffix, bad.price, xml_time(bad.changed_at), names[bad.az_id])
            for bad in self.injected
            if bad.region == query["region"]
            and (not types or bad.instance_type in types)
            and (not products or bad.product in products)
        )


def _arrays(part: pd.DataFrame) -> _Region:
    newest = part.iloc[::-1]
    types, products, zones = (pd.Categorical(newest[name]) for name in ("instance_type", "product", "az_id"))
    changed_at = newest["changed_at"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    pool = (types.codes.astype(np.int64) * len(products.categories) + products.codes) * len(zones.categories)
    pool += zones.codes
    # Within a pool the next change is the row before it in this order; the newest row is never replaced.
    order = np.argsort(pool, kind="stable")
    replaced_at = np.full(len(newest), np.iinfo(np.int64).max)
    same_pool = pool[order][1:] == pool[order][:-1]
    replaced_at[order[1:][same_pool]] = changed_at[order[:-1][same_pool]]
    return _Region(
        types=np.asarray(types.categories),
        products=np.asarray(products.categories),
        zones=np.asarray(zones.categories),
        type_code=types.codes.astype(np.int32),
        product_code=products.codes.astype(np.int32),
        zone_code=zones.codes.astype(np.int32),
        changed_at=changed_at,
        replaced_at=replaced_at,
        price=newest["spot_price_usd_per_hour"].to_numpy(dtype=float),
    )


def _wanted(table: _Region, query: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which types, products and zones of a region a query takes, one flag per label."""
    filters, everything = query["filters"], ["*"]
    types = np.array([not query["InstanceTypes"] or label in query["InstanceTypes"] for label in table.types])
    types &= np.array([matches(label, filters.get("instance-type", everything)) for label in table.types])
    asked = _plain(query["ProductDescriptions"])
    products = np.array([not asked or label in asked for label in table.products])
    patterns = _plain(filters.get("product-description", everything))
    products &= np.array([matches(label, patterns) for label in table.products])
    zones = np.array([query["zones"] is None or label in query["zones"] for label in table.zones])
    return types, products, zones


def _items(table: _Region, rows: np.ndarray, names: dict[str, str], suffix: str) -> str:
    times = np.datetime_as_string(table.changed_at[rows].astype("datetime64[us]"), unit="ms", timezone="UTC")
    types, zones = table.types[table.type_code[rows]], table.zones[table.zone_code[rows]]
    products, prices = table.products[table.product_code[rows]], table.price[rows].tolist()
    return "".join(
        _item(kind, product + suffix, f"{price:.6f}", time, names[zone])
        for kind, product, price, time, zone in zip(types, products, prices, times, zones, strict=True)
    )


def _item(instance_type: str, product: str, price: str, time: str, zone: str) -> str:
    return (
        f"<item><instanceType>{instance_type}</instanceType><productDescription>{product}</productDescription>"
        f"<spotPrice>{price}</spotPrice><timestamp>{time}</timestamp><availabilityZone>{zone}</availabilityZone></item>"
    )


def _plain(products: list[str] | None) -> list[str]:
    return [product.removesuffix(VPC) for product in products or []]


def _micros(moment: datetime | str | None, *, default: int) -> int:
    if moment is None:
        return default
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise AwsError("InvalidParameterValue", f"Value ({moment}) for parameter time is invalid.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)
