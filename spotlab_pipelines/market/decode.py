"""From cached JSON values to frames: the one decoder, which validates what it reads. No connection is opened here.

Price histories are columns of numbers and are decoded as arrays; the other values are one document per instance type.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.market.frames import (
    ADVISOR_OS,
    CATALOGUE_COLUMNS,
    PRICE_SOURCES,
    among,
    text,
)
from spotlab_pipelines.market.parse_advisor import SAVINGS_PCT, advisor_frame
from spotlab_pipelines.market.values import UNREADABLE, Raw, Reader, prices_of, texts_of, whole_numbers


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
                "vcpus": whole_numbers(columns[1], least=1),
                "memory_mib": whole_numbers(columns[2], least=1),
                "architecture": texts_of(columns[3]),
                "accelerators": texts_of(columns[4]),
                "current_generation": _flags(columns[5]),
                "network_performance": texts_of(columns[6]),
            }
        )
        on_demand = pd.DataFrame(
            {
                "region": text(prices[0]),
                "os": text(prices[1]),
                "instance_type": text(prices[2]),
                "on_demand_usd_per_hour": prices_of(prices[3]),
                "price_source": texts_of(prices[4], among=PRICE_SOURCES),
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
        region, os, name = columns[:3]
        bucket, savings_pct = whole_numbers(columns[3], least=0, most=4), whole_numbers(columns[4], *SAVINGS_PCT)
        return advisor_frame(region, texts_of(os, among=ADVISOR_OS), name, bucket, savings_pct)
    except UNREADABLE as error:
        raise reader.unreadable("spot_risk:*", error) from error


def decode_lists(reader: Reader, keyed: Sequence[tuple[str, str, Raw]]) -> dict[str, frozenset[str]]:
    """Decode (key, region, value) of the Advisor's lists: region -> the types it lists there."""
    listed = {}
    for key, region, raw in keyed:
        try:
            listed[region] = frozenset(texts_of(reader.open(key, raw)["types"]))
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
    members: dict[tuple[str, str], set[str]] = {}
    for region, (types, _) in covers.items():
        for name in types:
            members.setdefault((region, name.partition(".")[0]), set()).add(name)
    for key, region, raw in keyed:
        value = reader.open(key, raw)
        try:
            wanted = members.get((region, key.rpartition(":")[2]), set())
            _check_cover(reader, key, value, wanted, covers[region][1])
            part = value["pools"]
            size = len(part["instance_type"])
            code = whole_numbers(value["changes"]["pool"])
            at = whole_numbers(value["changes"]["changed_at_us"])
            price = prices_of(value["changes"]["spot_price_usd_per_hour"])
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
    for region, (types, products) in covers.items():
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
    lacking = (types - set(value["types"])) | (products - set(value["products"]))
    if lacking:
        raise reader.missing(f"{key} does not cover {', '.join(sorted(lacking))}, which the fleet wants.")


def _joined(parts: list[np.ndarray], dtype: str) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts])


def _flags(values: Sequence[Any]) -> np.ndarray:
    if not {*map(type, values)} <= {bool}:
        raise ValueError("a flag is not true or false")
    return np.array(values, dtype=bool)
