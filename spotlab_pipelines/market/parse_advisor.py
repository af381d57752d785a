"""The Spot Advisor's feed, from its documented shape to Advisor rows, and whether it lists too little. Pure.

The whole feed is validated: one entry that is not as documented refuses it, naming region, OS and type. 25,000 entries
are looked at as columns; only a feed that fails is walked through entry by entry, for the error's sake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import SourceMalformed
from spotlab_pipelines.market.frames import (
    ADVISOR_OS,
    BUCKET_RATE_MAX,
    BUCKET_RATE_MID,
    BUCKET_RATE_MIN,
    check_advisor,
    joined,
    text,
)
from spotlab_pipelines.market.parse import load_json, malformed, mapping

SOURCE = "Spot Advisor"
RANGE_LABELS = ("<5%", "5-10%", "10-15%", "15-20%", ">20%")
"""What the buckets 0..4 mean. `ranges` also has a `max` of 5, 11, 16, 22 and 100, which contradicts them."""
REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d+")
SAVINGS_PCT = (-1000, 100)
"""A saving is a whole percentage. It may be negative: Spot has cost more than on-demand, -62 % in 2025."""
ENTRY_KEY = ("region", "os", "instance_type")


def parse_advisor(document: Any) -> pd.DataFrame:
    """Advisor rows of the feed.

    Documented are `spot_advisor` {region: {OS: {type: {"s": saving, "r": bucket}}}}, `ranges` [{index, label, …}],
    `instance_types` {type: {cores, ram_gb, emr}} and `global_rate`. What comes besides is left alone.

    Args:
        document: the feed as bytes, text or decoded JSON.

    Raises:
        SourceMalformed: not JSON, another shape, other ranges, a bucket outside 0..4, a saving that is no whole
            percentage, or nothing in it.
    """
    if isinstance(document, bytes | str):
        document = load_json(document, SOURCE)
    feed = mapping(document, "a JSON object with the key spot_advisor", "the document", SOURCE)
    _check_ranges(feed.get("ranges"))
    _check_types(feed.get("instance_types"))
    if not isinstance(feed.get("global_rate"), str):
        raise malformed("a text at global_rate", _shown(feed.get("global_rate")), SOURCE)
    groups = _groups(mapping(feed.get("spot_advisor"), "regions", "spot_advisor", SOURCE))
    names = [*chain.from_iterable(types for _, _, types in groups)]
    if not names:
        raise malformed("at least one region, OS and instance type below spot_advisor", "none", SOURCE)
    entries = [*chain.from_iterable(types.values() for _, _, types in groups)]
    columns = _columns(names, entries)
    if columns is None:
        raise _first_bad(groups)
    group = np.repeat(np.arange(len(groups)), [len(types) for _, _, types in groups])
    region = text([region for region, _, _ in groups]).take(group)
    os = text([os for _, os, _ in groups]).take(group)
    return check_advisor(advisor_frame(region, os, names, *columns))


def advisor_frame(region: Any, os: Any, instance_type: Any, bucket: Any, savings_pct: Any) -> pd.DataFrame:
    """The Advisor's frame from its columns, with what the buckets mean."""
    bucket = np.asarray(bucket, dtype="int64")
    return pd.DataFrame(
        {
            "region": pd.array(region, dtype="str"),
            "os": pd.array(os, dtype="str"),
            "instance_type": pd.array(instance_type, dtype="str"),
            "bucket": bucket,
            "interrupt_rate_min": np.array(BUCKET_RATE_MIN)[bucket],
            "interrupt_rate_max": np.array(BUCKET_RATE_MAX)[bucket],
            "interrupt_rate_mid": np.array(BUCKET_RATE_MID)[bucket],
            "savings_pct": np.asarray(savings_pct, dtype="int64"),
        }
    )


def refuse_loss(new: pd.DataFrame, last: pd.DataFrame, *, max_share: float, since: str) -> None:
    """Refuse a feed that has lost more than a share of the regions, the types or the entries of the last good one.

    Args:
        new, last: Advisor frames.
        max_share: share that may go between two scrapes, 0..1.
        since: when the last good one was fetched, for the message.

    Raises:
        SourceMalformed: with the figures, and some of what is gone.
    """
    regions, types = (pd.Index(last[name].unique()) for name in ("region", "instance_type"))
    entries = joined(last, ENTRY_KEY)
    gone_regions = regions.difference(pd.Index(new["region"].unique()))
    gone_types = types.difference(pd.Index(new["instance_type"].unique()))
    gone = entries[joined(new, ENTRY_KEY).get_indexer(entries) < 0]
    lost = {"regions": (gone_regions, regions), "types": (gone_types, types), "entries": (gone, entries)}
    beyond = [names for names, all_names in lost.values() if len(names) / len(all_names) > max_share]
    if not beyond:
        return
    named = beyond[0].tolist()
    some = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    raise SourceMalformed(
        f"{SOURCE}: expected at most {max_share:.0%} of the regions, types and entries of the feed of {since} to be"
        f" gone, got {', '.join(f'{len(names)} of {len(of)} {what}' for what, (names, of) in lost.items())} gone"
        f" ({some}): it is taken for truncated.",
        remedy="If AWS really lists no more than that, accept it with `spotlab market accept-advisor`.",
    )


Group = tuple[str, str, Mapping[str, Any]]


def _groups(regions: Mapping[str, Any]) -> list[Group]:
    groups = []
    for region, systems in regions.items():
        if not REGION.fullmatch(region):
            raise malformed("names of regions below spot_advisor", repr(region), SOURCE)
        for os, types in mapping(systems, "operating systems", f"spot_advisor.{region}", SOURCE).items():
            if os not in ADVISOR_OS:
                raise malformed(f"Linux or Windows below spot_advisor.{region}", repr(os), SOURCE)
            groups.append((region, os, mapping(types, "instance types", f"spot_advisor.{region}.{os}", SOURCE)))
    return groups


def _columns(names: Sequence[str], entries: Sequence[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Buckets and savings of all entries, or None if any of them is not as documented."""
    try:
        buckets, savings = [entry["r"] for entry in entries], [entry["s"] for entry in entries]
        # bool is an int to Python and to numpy, but not to JSON.
        if {*map(type, entries)} != {dict} or {*map(type, buckets)} | {*map(type, savings)} != {int}:
            return None
        bucket, saving = np.array(buckets, dtype="int64"), np.array(savings, dtype="int64")
    except (KeyError, TypeError, OverflowError):
        return None
    least, most = SAVINGS_PCT
    fits = bucket.min() >= 0 and bucket.max() <= 4 and saving.min() >= least and saving.max() <= most
    return (bucket, saving) if fits and all(map(_is_type, names)) else None


def _first_bad(groups: Sequence[Group]) -> SourceMalformed:
    """The error of the first entry that is not as documented."""
    least, most = SAVINGS_PCT
    for region, os, types in groups:
        for name, entry in types.items():
            where = f"spot_advisor.{region}.{os}.{name}"
            if not _is_type(name):
                return malformed(f"an instance type below spot_advisor.{region}.{os}", repr(name), SOURCE)
            values = mapping(entry, "s and r", where, SOURCE)
            bucket, saving = values.get("r"), values.get("s")
            if type(bucket) is not int or not 0 <= bucket <= 4:
                return malformed(f"a bucket 0..4 at {where}.r", repr(bucket), SOURCE)
            if type(saving) is not int or not least <= saving <= most:
                return malformed(f"a whole percentage of {least} to {most} at {where}.s", repr(saving), SOURCE)
    raise AssertionError("every entry is as documented")


def _is_type(name: str) -> bool:
    return "." in name


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value > 0


def _check_ranges(ranges: Any) -> None:
    if not isinstance(ranges, list) or not all(isinstance(one, Mapping) for one in ranges):
        raise malformed("a list of objects at ranges", _shown(ranges), SOURCE)
    labels = {one.get("index"): "".join(str(one.get("label")).split()) for one in ranges}
    if labels != dict(enumerate(RANGE_LABELS)) or len(ranges) != len(RANGE_LABELS):
        came = ", ".join(f"{one.get('index')}: {one.get('label')!r}" for one in ranges)
        raise malformed(f"the ranges 0..4 to be labelled {', '.join(RANGE_LABELS)}", came or "none", SOURCE)


def _check_types(types: Any) -> None:
    for name, figures in mapping(types, "instance types", "instance_types", SOURCE).items():
        figures = mapping(figures, "cores, ram_gb and emr", f"instance_types.{name}", SOURCE)
        cores, memory, emr = (figures.get(name) for name in ("cores", "ram_gb", "emr"))
        if not (_is_number(cores, int) and _is_number(memory, int | float) and isinstance(emr, bool)):
            raise malformed(f"cores, ram_gb and emr at instance_types.{name}", _shown(figures), SOURCE)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
