"""From cached JSON values to frames: the one decoder, which validates what it reads. No connection is opened here.

Price histories are columns of numbers and are decoded as arrays; the other values are one document per instance type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pandas as pd

from spotlab_pipelines.errors import MarketDataError, MarketDataMissing, MarketDataStale
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, among, text
from spotlab_pipelines.market.parse_advisor import advisor_frame

Raw = bytes | str | None
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass
class Reader:
    """Opens cached values: checks envelope and age against `now`, and counts the scrapes they come from."""

    now: datetime
    ttl_s: int
    asset: str
    counts: dict[tuple[str, str, str, bool, str], int] = field(default_factory=dict)

    def open(self, key: str, raw: Raw) -> dict[str, Any]:
        """Decode the value of `key`.

        Raises:
            MarketDataMissing: there is none, or it cannot be read.
            MarketDataStale: it is older than its time to live.
        """
        if raw is None:
            raise self.missing(
                f"Redis has no {key}: it was never scraped, has expired (after {self.ttl_s} s) or was evicted."
            )
        try:
            value = orjson.loads(raw)
            stale, note = value.get("stale", False), value.get("note", "")
            envelope = (value["source"], value["scrape_id"], value["fetched_at"], bool(stale), str(note))
            age_s = (self.now - _time(envelope[2])).total_seconds()
            self.counts[envelope] = self.counts.get(envelope, 0) + 1
        except UNREADABLE as error:
            raise self.unreadable(key, error) from error
        if age_s > self.ttl_s:
            why = f" It is the last good one, of {envelope[2]}; there is no newer one because: {note}" if stale else ""
            raise MarketDataStale(
                f"{key} was fetched {age_s:.0f} s ago by scrape {envelope[1]}; it may be {self.ttl_s} s old.{why}",
                remedy=f"Materialise {self.asset}, then evaluate again.",
            )
        return value

    def is_fresh(self, key: str, raw: Raw) -> bool:
        """Whether there is a value that `open` would open."""
        try:
            self.open(key, raw)
        except MarketDataError:
            return False
        return True

    def missing(self, message: str) -> MarketDataMissing:
        """The error for something that is not there."""
        return MarketDataMissing(message, remedy=f"Materialise {self.asset}, then evaluate again.")

    def unreadable(self, key: str, error: Exception) -> MarketDataMissing:
        """The error for a value of another shape than ours."""
        return self.missing(f"The value of {key} in Redis cannot be read ({type(error).__name__}: {error}).")

    def sources(self) -> pd.DataFrame:
        """The scrapes read so far, see `sources_of`."""
        return sources_of(self)


def sources_of(*readers: Reader) -> pd.DataFrame:
    """The scrapes that these have read, in one frame: source, scrape_id, fetched_at, keys (how many), stale, note."""
    origins = [origin for reader in readers for origin in reader.counts]
    columns = list(zip(*origins, strict=True)) or [()] * 5
    return pd.DataFrame(
        {
            "source": text(columns[0]),
            "scrape_id": text(columns[1]),
            "fetched_at": pd.to_datetime(list(columns[2]), utc=True, format="ISO8601").as_unit("us"),
            "keys": np.array([count for reader in readers for count in reader.counts.values()], dtype="int64"),
            "stale": np.array(columns[3], dtype=bool),
            "note": text(columns[4]),
        }
    )


def decode_catalogue(reader: Reader, keyed: Sequence[tuple[str, str, Raw]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode (key, instance type, value) triples to the catalogue frame and the on-demand frame."""
    rows, priced = [], []
    for key, name, raw in keyed:
        value = reader.open(key, raw)
        try:
            rows.append([name, *(value[column] for column in CATALOGUE_COLUMNS[1:])])
            priced += [
                (region, os, name, price["usd_per_hour"], price["source"])
                for region, prices in value["on_demand"].items()
                for os, price in prices.items()
            ]
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
    columns = list(zip(*rows, strict=True)) or [()] * len(CATALOGUE_COLUMNS)
    prices = list(zip(*priced, strict=True)) or [()] * 5
    try:
        types = pd.DataFrame(
            {
                "instance_type": text(columns[0]),
                "vcpus": _whole(columns[1]),
                "memory_mib": _whole(columns[2]),
                "architecture": text(columns[3]),
                "accelerators": text(columns[4]),
                "current_generation": np.array(columns[5], dtype=bool),
                "network_performance": text(columns[6]),
            }
        )
        on_demand = pd.DataFrame(
            {
                "region": text(prices[0]),
                "os": text(prices[1]),
                "instance_type": text(prices[2]),
                "on_demand_usd_per_hour": _positive(prices[3]),
                "price_source": text(prices[4]),
            }
        )
    except UNREADABLE as error:
        raise reader.unreadable("instance_metadata:*", error) from error
    return types, on_demand


def decode_advisor(
    reader: Reader, keyed: Sequence[tuple[str, str, str, Raw]], listed: dict[str, frozenset[str]]
) -> pd.DataFrame:
    """Decode (key, region, instance type, value) to Advisor rows; types not in `listed` have none."""
    rows = []
    for key, region, name, raw in keyed:
        if name not in listed[region]:
            continue
        value = reader.open(key, raw)
        try:
            rows += [(region, os, name, entry["bucket"], entry["savings_pct"]) for os, entry in value["os"].items()]
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
    columns = list(zip(*rows, strict=True)) or [()] * 5
    try:
        bucket = _whole(columns[3])
        if bucket.size and (bucket.min() < 0 or bucket.max() > 4):
            raise ValueError(f"buckets are 0..4, got {bucket.min()}..{bucket.max()}")
        region, os, name = columns[:3]
        return advisor_frame(region, os, name, bucket, _whole(columns[4]))
    except UNREADABLE as error:
        raise reader.unreadable("spot_risk:*", error) from error


def decode_lists(reader: Reader, keyed: Sequence[tuple[str, str, Raw]]) -> dict[str, frozenset[str]]:
    """Decode (key, region, value) of the Advisor's lists: region -> the types it lists there."""
    listed = {}
    for key, region, raw in keyed:
        try:
            listed[region] = frozenset(reader.open(key, raw)["types"])
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
    return listed


def decode_prices(
    reader: Reader, keyed: Sequence[tuple[str, str, Raw]], covers: dict[str, tuple[set[str], set[str]]]
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Decode (key, region, value) of price histories.

    Args:
        covers: region -> (types, products) that are wanted there; what a value holds beyond them is left out. Each
            wanted type of a value's family and each wanted product must be among those it says it covers.

    Returns:
        Price changes sorted by pool and time, their pools, and for each change the row of its pool.
    """
    regions, pools, codes, changed, prices = [], [], [], [], []
    offset = 0
    for key, region, raw in keyed:
        value = reader.open(key, raw)
        try:
            _check_cover(reader, key, value, *covers[region])
            part = value["pools"]
            size = len(part["instance_type"])
            code = np.array(value["changes"]["pool"], dtype="int64")
            at = np.array(value["changes"]["changed_at_us"], dtype="int64")
            price = _positive(value["changes"]["spot_price_usd_per_hour"])
            if not size == len(part["az_id"]) == len(part["product"]) or not len(code) == len(at) == len(price):
                raise ValueError("its columns differ in length")
            if len(code) and (code[0] < 0 or code[-1] >= size or (np.diff(code) < 0).any()):
                raise ValueError("its pool numbers are out of range or order")
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
        regions += [region] * size
        pools.append(part)
        codes.append(code + offset)
        changed.append(at)
        prices.append(price)
        offset += size
    table = pd.DataFrame(
        {"region": text(regions)}
        | {
            name: text([*chain.from_iterable(part[name] for part in pools)])
            for name in ("instance_type", "az_id", "product")
        }
    )
    return _only_wanted(table, _joined(codes, "int64"), _joined(changed, "int64"), _joined(prices, "float64"), covers)


def _only_wanted(
    pools: pd.DataFrame,
    codes: np.ndarray,
    changed_at_us: np.ndarray,
    prices: np.ndarray,
    covers: dict[str, tuple[set[str], set[str]]],
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    keep = np.zeros(len(pools), dtype=bool)
    for region in pools["region"].unique():
        types, products = covers[region]
        here = among(pools["region"], [region])
        keep |= here & among(pools["instance_type"], types) & among(pools["product"], products)
    if not keep.all():
        kept = keep[codes]
        codes = (np.cumsum(keep) - 1)[codes[kept]]
        changed_at_us, prices = changed_at_us[kept], prices[kept]
        pools = pools[keep].reset_index(drop=True)
    changes = pd.DataFrame(
        {
            **{name: column.array.take(codes) for name, column in pools.items()},
            "changed_at": pd.DatetimeIndex(changed_at_us.view("M8[us]")).tz_localize("UTC"),
            "spot_price_usd_per_hour": prices,
        }
    )
    return changes, pools, codes


def _check_cover(reader: Reader, key: str, value: dict[str, Any], types: set[str], products: set[str]) -> None:
    family = key.rpartition(":")[2]
    lacking = {name for name in types if name.partition(".")[0] == family} - set(value["types"])
    lacking |= products - set(value["products"])
    if lacking:
        raise reader.missing(f"{key} does not cover {', '.join(sorted(lacking))}, which the fleet wants.")


def _whole(values: Sequence[Any]) -> np.ndarray:
    # numpy would cut fractions off and read digits out of texts.
    if not {*map(type, values)} <= {int}:
        raise ValueError("a number is not whole")
    return np.array(values, dtype="int64")


def _positive(values: Iterable[float]) -> np.ndarray:
    array = np.array(values, dtype="float64")
    if not ((array > 0) & (array < np.inf)).all():
        raise ValueError("a price is not above 0 and finite")
    return array


def _joined(parts: list[np.ndarray], dtype: str) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts])


@lru_cache(maxsize=256)
def _time(text_: str) -> datetime:
    time = datetime.fromisoformat(text_)
    if time.utcoffset() is None:
        raise ValueError(f"fetched_at {text_!r} has no time zone")
    return time
