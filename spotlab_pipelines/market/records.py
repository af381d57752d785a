"""The record of a scrape in the archive: that it is whole, what it covers, and so where the next one may begin.

One row a region, and for prices a family, of each scrape that ended well; written after all else. Unlike the table
`scrapes` it lies where the rows lie, so that an archive is complete by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pandas as pd

from spotlab_pipelines.accounts.frames import TIME
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.layout import RECORDS, SPOT_PRICES, ScrapeFile
from spotlab_pipelines.market.parquet import to_frame
from spotlab_pipelines.market.reading import read_files, read_listed

Cover = dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]
"""(region, family) -> (types, products)."""


@dataclass(frozen=True)
class RecordEntry:
    """A row of a scrape's record.

    Attributes:
        scraped_region: None for rows that belong to no region.
        family, types, products, zones: what prices were asked for; "" and empty of other sources.
        since: from when on prices were asked for.
        rows: facts that were new, or rows of the document.
        published: whether Redis has held it.
        content_id, content_at: the scrape whose document this one has found unchanged; "" and None if it brought its
            own.
        note: what its values in Redis say of that.
    """

    scraped_region: str | None
    rows: int
    family: str = ""
    types: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    since: datetime | None = None
    published: bool = True
    content_id: str = ""
    content_at: datetime | None = None
    note: str = ""


RECORD_DTYPES = {
    "scraped_region": "str",
    "rows": "int64",
    "family": "str",
    "types": "object",
    "products": "object",
    "zones": "object",
    "since": TIME,
    "published": "bool",
    "content_id": "str",
    "content_at": TIME,
    "note": "str",
}


def record_frame(source: str, entries: Sequence[RecordEntry]) -> pd.DataFrame:
    """The rows of a scrape's record as they are archived."""
    columns: dict[str, Any] = {"source": pd.Series([source] * len(entries), dtype="str")}
    for name, dtype in RECORD_DTYPES.items():
        values = [getattr(entry, name) for entry in entries]
        if dtype == TIME:
            columns[name] = pd.to_datetime(pd.Series(values, dtype=object), utc=True).dt.as_unit("us")
        else:
            columns[name] = pd.Series(map(list, values) if dtype == "object" else values, dtype=dtype)
    return pd.DataFrame(columns)


def records_backwards(
    archive: Archive, *, until: datetime | None = None, since: datetime | None = None
) -> Iterator[pd.DataFrame]:
    """The records of scrapes that ran up to `until`, one frame a day, the newest day and in it the newest scrape first.

    Args:
        since: no day before this one's.
    """
    days = [day for day, _ in groupby(archive.scrape_files(RECORDS), key=lambda file: file.date)]
    first = "" if since is None else since.astimezone(UTC).date().isoformat()
    last = "9" if until is None else until.astimezone(UTC).date().isoformat()
    for day in sorted((day for day in days if first <= day <= last), reverse=True):
        frame = read_listed(archive, RECORDS, None, lambda files: _frame(archive, files), date=day)
        if until is not None:
            frame = frame[frame["fetched_at"] <= pd.Timestamp(until)]
        frame = frame.drop_duplicates(["scrape_id", "scraped_region", "family"])
        if len(frame):
            yield frame.sort_values("fetched_at", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True)
class Document:
    """What a source's newest scrape found.

    Attributes:
        frame: its rows, as the scrape kept them, in the regions that were asked for.
        source, scrape_id, fetched_at: the scrape.
        content_id, content_at: the scrape that brought these rows; another one if the source has not changed since.
        regions: all of the document's partitions.
        note: what its values in Redis say, "" if the rows were new.
    """

    frame: pd.DataFrame
    source: str
    scrape_id: str
    fetched_at: datetime
    content_id: str
    content_at: datetime
    regions: tuple[str, ...]
    note: str

    @property
    def origin(self) -> tuple[str, str, datetime, str]:
        """What a market's sources say of it."""
        return self.source, self.scrape_id, self.fetched_at, self.note


def whole_scrapes(archive: Archive, *, now: datetime, settle: timedelta) -> Callable[[ScrapeFile], bool]:
    """Which files will stay: those whose scrape is on record, those that are merged, and those older than `settle`.

    A scrape that is not on record yet may fail and then removes its files. Whoever leaves facts out because the archive
    has them must find them in a file that stays.
    """
    on_record = {
        name for frame in records_backwards(archive, since=now - settle) for name in frame["scrape_id"].unique()
    }
    return lambda file: file.merged or file.id in on_record or file.fetched_at < now - settle


def covered_until(
    archive: Archive,
    wanted: Mapping[tuple[str, str], tuple[Collection[str], Collection[str], Collection[str]]],
    *,
    until: datetime,
    since: datetime,
) -> dict[tuple[str, str, str], datetime]:
    """Up to when the archive knows the prices of what is wanted.

    Args:
        wanted: (region, family) -> (types, products, zones).
        since: what was last covered before is as good as unknown.

    Returns:
        (region, type, product) -> fetched_at of the newest scrape that asked for it in all of these zones; without what
        no scrape did.
    """
    known: dict[tuple[str, str, str], datetime] = {}
    sought = {
        (region, name, product)
        for (region, _), (types, products, _) in wanted.items()
        for name in types
        for product in products
    }
    for frame in records_backwards(archive, until=until, since=since):
        for row in rows_of(frame[frame["fetched_at"] >= pd.Timestamp(since)], SPOT_PRICES):
            region = row["scraped_region"]
            here = wanted.get((region, row["family"]))
            if here is None or not set(row["zones"]).issuperset(here[2]):
                continue
            for name in set(row["types"]).intersection(here[0]):
                for product in set(row["products"]).intersection(here[1]):
                    known.setdefault((region, name, product), row["fetched_at"].to_pydatetime())
        if sought <= known.keys():
            break
    return known


def rows_of(frame: pd.DataFrame, source: str) -> list[dict[str, Any]]:
    """The rows of a frame of records that are of one source."""
    rows: Any = frame[frame["source"] == source].to_dict("records")
    return rows


def not_covered(archive: Archive, cover: Cover, *, since: datetime, until: datetime) -> Cover:
    """Those of `cover` of which some type and product was not asked for in [since, until]."""
    known = covered_until(archive, {key: (*asked, ()) for key, asked in cover.items()}, until=until, since=since)
    return {
        (region, family): (types, products)
        for (region, family), (types, products) in cover.items()
        if any((region, name, product) not in known for name in types for product in products)
    }


def _frame(archive: Archive, files: list[ScrapeFile]) -> pd.DataFrame:
    return pd.concat([to_frame(table) for table in read_files(archive, files)], ignore_index=True)
