"""From a source's own shape to the frames of `market/`: pure and strict, no I/O.

What does not have the documented shape is SourceMalformed, saying what was expected and what came. An empty parse is
an error too: a parser that looks for another nesting finds nothing, and nothing must not pass for a market.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pandas as pd

from spotlab_pipelines.errors import SourceMalformed
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.frames import (
    CATALOGUE_COLUMNS,
    ON_DEMAND_COLUMNS,
    PRICE_COLUMNS,
    check_catalogue,
    check_on_demand,
    text,
)

CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future a price change may lie before it is taken for a fault."""

PRICED_OPERATIONS = {
    "Linux": "RunInstances",
    "RHEL": "RunInstances:0010",
    "SUSE": "RunInstances:000g",
    "Windows": "RunInstances:0002",
}
"""Operating system of the Pricing API -> what is billed when an instance runs with its licence included.

Other operations of the same system have other prices: RunInstances:0800 is Windows under a licence that one owns.
Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html"""

ARCHITECTURE_PREFERENCE = ("x86_64", "arm64")
ACCELERATOR_LISTS = (
    ("GpuInfo", "Gpus"),
    ("InferenceAcceleratorInfo", "Accelerators"),
    ("NeuronInfo", "NeuronDevices"),
    ("FpgaInfo", "Fpgas"),
    ("MediaAcceleratorInfo", "Accelerators"),
)


def parse_instance_types(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Catalogue frame of EC2's `InstanceTypes` records; a type that comes several times (from regions) counts once.

    Raises:
        SourceMalformed: a record lacks its type, vCPUs, memory or architecture, or there is none.
    """
    rows: dict[str, tuple[Any, ...]] = {}
    for number, record in enumerate(records):
        try:
            name = record["InstanceType"]
            rows[name] = (
                name,
                record["VCpuInfo"]["DefaultVCpus"],
                record["MemoryInfo"]["SizeInMiB"],
                _primary(record["ProcessorInfo"]["SupportedArchitectures"]),
                _accelerators(record),
                record.get("CurrentGeneration", False),
                record.get("NetworkInfo", {}).get("NetworkPerformance", ""),
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise malformed(
                "InstanceType, VCpuInfo.DefaultVCpus, MemoryInfo.SizeInMiB and ProcessorInfo.SupportedArchitectures",
                f"{type(error).__name__} {error} in record {number}",
                "DescribeInstanceTypes",
            ) from error
    if not rows:
        raise malformed("at least one instance type", "none", "DescribeInstanceTypes")
    frame = pd.DataFrame(sorted(rows.values()), columns=list(CATALOGUE_COLUMNS))
    return check_catalogue(frame.astype({"vcpus": "int64", "memory_mib": "int64", "current_generation": bool}))


def on_demand_attributes(region: str, os: str) -> dict[str, str]:
    """The attributes that single out one plain on-demand price of a type in a region with an operating system."""
    return {
        "regionCode": region,
        "operatingSystem": os,
        "operation": PRICED_OPERATIONS[os],
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }


def parse_price_list(
    items: Iterable[str | Mapping[str, Any]], *, region: str, os: str, currency: str = "USD"
) -> pd.DataFrame:
    """On-demand frame of the Pricing API's `PriceList` items (JSON texts) of one region and operating system.

    Of each product with the `on_demand_attributes` the hourly on-demand price above 0 is taken; products without
    one (reservations) have no row. Other products are left out, whatever the API was asked to filter by: prices of
    dedicated hosts, of reserved capacity or without the licence would contradict the one that is looked for.

    Args:
        os: the Pricing API's word: Linux, RHEL, SUSE or Windows.
        currency: in which the region's partition is billed.

    Raises:
        SourceMalformed: an item is not JSON or has another shape, there are items but none with these attributes, or
            two prices of a type contradict each other.
    """
    what, asked = f"Price list of {region}, {os}", on_demand_attributes(region, os)
    rows, items_seen, products_seen = set(), 0, 0
    for item in items:
        items_seen += 1
        product = load_json(item, what) if isinstance(item, bytes | str) else item
        try:
            attributes = product["product"]["attributes"]
            if any(attributes.get(name) != value for name, value in asked.items()):
                continue
            products_seen += 1
            name = attributes["instanceType"]
            for term in product.get("terms", {}).get("OnDemand", {}).values():
                for dimension in term["priceDimensions"].values():
                    price = float(dimension["pricePerUnit"].get(currency, "0"))
                    if dimension["unit"] in ("Hrs", "Hours") and price > 0:
                        rows.add((region, os, name, price, "pricing"))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise malformed(
                "product.attributes.instanceType and terms.OnDemand.*.priceDimensions.*.pricePerUnit",
                f"{type(error).__name__} {error}",
                what,
            ) from error
    if items_seen and not products_seen:
        raise malformed(f"a product with {asked}", f"none among {items_seen}", what)
    columns = list(zip(*sorted(rows), strict=True)) or [()] * 5
    arrays = [text(columns[0]), text(columns[1]), text(columns[2]), np.array(columns[3], "float64"), text(columns[4])]
    return check_on_demand(pd.DataFrame(dict(zip(ON_DEMAND_COLUMNS, arrays, strict=True))), what)


def parse_price_history(
    rows: Sequence[Mapping[str, Any]], *, region: str, zone_ids: Mapping[str, str], now: datetime
) -> pd.DataFrame:
    """Price changes frame of DescribeSpotPriceHistory's rows, repeats dropped, sorted as changes.py sorts them.

    Args:
        zone_ids: the asking account's zone name -> zone id; names are aliases of its own.
        now: when the rows were asked for; a change may lie at most CLOCK_SKEW after it.

    Raises:
        SourceMalformed: a field is missing, a price is not above 0 and finite, a time lies in the future, or a zone is
            not the account's; pool and row are named.
    """
    what = f"DescribeSpotPriceHistory in {region}"
    try:
        raw = {
            "zone": text([row["AvailabilityZone"] for row in rows]),
            "instance_type": text([row["InstanceType"] for row in rows]),
            "product": text([row["ProductDescription"].removesuffix(" (Amazon VPC)") for row in rows]),
            "changed_at": pd.Series(
                pd.to_datetime([row["Timestamp"] for row in rows], utc=True, format="ISO8601")
            ).dt.as_unit("us"),
            "spot_price_usd_per_hour": pd.to_numeric(
                pd.Series([row["SpotPrice"] for row in rows], dtype=object), errors="coerce"
            ).astype("float64"),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fields = "AvailabilityZone, InstanceType, ProductDescription, SpotPrice and Timestamp"
        raise malformed(fields, f"{type(error).__name__} {error}", what) from error
    frame = pd.DataFrame(raw)
    frame["region"] = text([region] * len(frame))
    frame["az_id"] = frame["zone"].map(zone_ids).astype("str")
    price = frame["spot_price_usd_per_hour"]
    _refuse(frame, ~((price > 0) & (price < np.inf)), "a price above 0", [row["SpotPrice"] for row in rows], what)
    late = frame["changed_at"] > now + CLOCK_SKEW
    _refuse(frame, late, f"a time up to {now.isoformat()}", frame["changed_at"], what)
    _refuse(frame, frame["az_id"].isna(), f"one of the account's zones {sorted(zone_ids)}", frame["zone"], what)
    return Changes.of(frame[list(PRICE_COLUMNS)]).frame()


def _refuse(frame: pd.DataFrame, bad: pd.Series, expected: str, values: Any, what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        pool = frame.iloc[row]
        came = values.iloc[row] if isinstance(values, pd.Series) else values[row]
        where = f"{pool['instance_type']} {pool['product']} in {pool['zone']}"
        raise malformed(expected, f"{str(came)!r} for pool {where} in row {row} ({int(bad.sum())} such rows)", what)


def _primary(architectures: Sequence[str]) -> str:
    preferred = [name for name in ARCHITECTURE_PREFERENCE if name in architectures]
    return preferred[0] if preferred else architectures[0]


def _accelerators(record: Mapping[str, Any]) -> str:
    devices = [device for group, key in ACCELERATOR_LISTS for device in record.get(group, {}).get(key, [])]
    names = [f"{device.get('Count', 1)}x {device.get('Manufacturer', '')} {device['Name']}" for device in devices]
    return ", ".join(sorted(" ".join(name.split()) for name in names))


def mapping(value: Any, expected: str, where: str, what: str) -> Mapping[str, Any]:
    """`value` if it is a JSON object; `where` in the source `what` it stands.

    Raises:
        SourceMalformed: it is something else.
    """
    if not isinstance(value, Mapping):
        shown = repr(value)
        raise malformed(f"{expected} at {where}", shown if len(shown) <= 80 else f"{shown[:80]}…", what)
    return value


def load_json(document: bytes | str, what: str) -> Any:
    """The decoded document of the source `what`.

    Raises:
        SourceMalformed: it is not JSON, or not all of it.
    """
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        start = document[:60] if isinstance(document, str) else document[:60].decode("utf-8", "replace")
        came = f"{len(document)} characters that begin {start!r} ({error})" if document else "nothing"
        raise malformed("a complete JSON document", came, what) from error


def malformed(expected: str, came: str, what: str) -> SourceMalformed:
    """The error for a source `what` that answered with another shape."""
    return SourceMalformed(
        f"{what}: expected {expected}, got {came}.",
        remedy="Nothing was written; look at what the source returned and scrape again.",
    )
