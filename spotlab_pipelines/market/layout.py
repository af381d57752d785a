"""Where scrapes lie in the archive: kinds, partitions and file names. Pure: names only, nothing is read or written.

    scrapes/kind=<kind>/region=<region>/date=<UTC date of fetched_at>/<fetched_at>-<scrape id>.parquet
                                                                      merged-<fetched_at>-<id>.parquet

A column that a path spells out (kind, region, date) is not in the file: tools that know hive partitions, like DuckDB
and pandas, add it from the path. Rows that belong to no region lie in `region=all`. A name sorts by its time; that of a
merged file, which compaction.py writes, is the latest of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

EVERYWHERE = "all"
"""The partition of rows without a region."""
PARTITIONED_BY = ("kind", "region", "date")

SPOT_PRICES = "spot_prices"
POOL_OBSERVATIONS = "pool_observations"
POOL_TRACES = "pool_traces"
SPOT_ADVISOR = "spot_advisor"
INSTANCE_CATALOGUE = "instance_catalogue"
RECORDS = "scrape_records"
"""One row for each region, and for prices each family, of a scrape: written last, it says that the scrape is whole."""

KINDS = (SPOT_PRICES, POOL_OBSERVATIONS, POOL_TRACES, SPOT_ADVISOR, INSTANCE_CATALOGUE, RECORDS)
HISTORY_DAYS = 30
"""How many days of pool observations the cache keeps and features look at; older ones are not scraped either."""

FACTS: Mapping[str, tuple[str, ...]] = {
    SPOT_PRICES: ("instance_type", "az_id", "product", "changed_at", "spot_price_usd_per_hour"),
    POOL_OBSERVATIONS: ("instance_type", "az_id", "product", "observed_at", "observation", "available", "source"),
    POOL_TRACES: ("trace", "instance_type", "az_id", "product", "observed_at", "observation", "available"),
}
"""Kinds whose rows are facts, each stored once, with what identifies a fact in a region and sorts its files.

Rows of the other kinds are parts of a document, the scrape that brought them: they carry its id, and come anew each
time."""

STAMP = "%Y%m%dT%H%M%S%fZ"
NAME = re.compile(r"(?P<merged>merged-)?(?P<stamp>\d{8}T\d{12}Z)-(?P<id>[0-9a-f-]{32,36})\.parquet")
PATH = re.compile(r"scrapes/kind=(?P<kind>[^/]+)/region=(?P<region>[^/]+)/date=(?P<date>[\d-]+)/(?P<name>[^/]+)")


@dataclass(frozen=True, order=True)
class ScrapeFile:
    """One file of the archive's scrapes.

    Attributes:
        path: below the archive's root.
        fetched_at: when its scrape ran; of a merged file the latest.
        id: the scrape's id; of a merged file an id of its own.
        merged: whether compaction wrote it.
    """

    path: str
    kind: str
    region: str
    date: str
    fetched_at: datetime
    id: str
    merged: bool

    @classmethod
    def of(cls, path: str) -> ScrapeFile | None:
        """Read a path; None if it is none of ours, like a temporary file or one from before files were named so."""
        place = PATH.fullmatch(path)
        name = NAME.fullmatch(place["name"]) if place else None
        if place is None or name is None:
            return None
        fetched_at = datetime.strptime(name["stamp"], STAMP).replace(tzinfo=UTC)
        return cls(path, place["kind"], place["region"], place["date"], fetched_at, name["id"], bool(name["merged"]))


def scrape_path(kind: str, region: str | None, fetched_at: datetime, file_id: object, *, merged: bool = False) -> str:
    """The path of a file of scrapes below the archive's root."""
    at = fetched_at.astimezone(UTC)
    name = f"{'merged-' if merged else ''}{at.strftime(STAMP)}-{file_id}.parquet"
    return f"{partition_path(kind, region, at.date().isoformat())}/{name}"


def partition_path(kind: str, region: str | None = None, date: str | None = None) -> str:
    """The folder of a kind, of one of its regions, or of one date there."""
    path = f"scrapes/kind={kind}"
    if region is not None or date is not None:
        path += f"/region={region or EVERYWHERE}"
    return path if date is None else f"{path}/date={date}"
