"""A scrape as such: its files in the archive, its record there and in `scrapes`, and the report that it hands back.

A file is written after the scrape was validated, so that the rows of any whole file count. A scrape that fails removes
its files and takes back what it published. The record in the archive is written last, within the transaction that
inserts the row of `scrapes`: from then on nothing is removed, and other scrapes may build on these rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Scrape
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.layout import EVERYWHERE, RECORDS, scrape_path
from spotlab_pipelines.market.records import Document, RecordEntry, record_frame

PREVIEW_ROWS = 10


@dataclass(frozen=True)
class ScrapeReport:
    """What one scrape brought.

    Attributes:
        scrape_id: id of the scrape's row in `scrapes`; "" if everything was fresh and nothing was fetched.
        row_count: rows archived and cached.
        data_age_s: age of the oldest value that the scrape leaves in the cache.
        archive_path: path below the archive's root, None if nothing was fetched.
        details: figures worth showing, by name.
        preview: at most ten rows.
    """

    source: str
    scrape_id: str
    fetched_at: datetime
    row_count: int
    data_age_s: float
    archive_path: str | None
    details: dict[str, Any]
    preview: pd.DataFrame


@dataclass
class ScrapeRecord:
    """A scrape under way; what it fills in becomes its row. `provenance` is what the source said of its answer."""

    source: str
    account_id: str | None = None
    region: str | None = None
    id: UUID = field(default_factory=uuid4)
    fetched_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    row_count: int = 0
    archive_path: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    _archive: Archive | None = None
    _entries: list[RecordEntry] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def keep(self, archive: Archive, frame: pd.DataFrame) -> None:
        """Archive the scrape's rows, one file for each region that has some.

        `row_count` and `archive_path` follow; of several files the path has a * for the region. Publish afterwards:
        what others can read must be in the archive already.

        Args:
            frame: of facts only those that the archive does not have; a missing region is none.
        """
        regions = frame["region"].astype("str")
        names = [*sorted(regions.dropna().unique()), *([None] if regions.isna().any() else [])]
        rows = {name: frame[regions.isna() if name is None else regions == name] for name in names}
        self.keep_parts(archive, {name: part.reset_index(drop=True) for name, part in rows.items()})

    def keep_parts(self, archive: Archive, parts: Mapping[str | None, pd.DataFrame | pa.Table]) -> None:
        """The same of rows that come by region already."""
        self._archive = archive
        paths = []
        for name, rows in parts.items():
            path = archive.write_scrape(
                kind=self.source, region=name, fetched_at=self.fetched_at, scrape_id=self.id, frame=rows
            )
            self.undo_with(partial(archive.remove, path))
            paths.append(path)
            self._entries.append(RecordEntry(name, len(rows)))
        if paths:
            self.archive_path = paths[0] if len(paths) == 1 else re.sub("region=[^/]+", "region=*", paths[0])
        self.row_count = sum(map(len, parts.values()))

    def covers(self, archive: Archive, entries: Sequence[RecordEntry]) -> None:
        """Say what the scrape's record shall hold, instead of one row for each region that `keep` archived."""
        self._archive, self._entries = archive, list(entries)

    def confirm(self, archive: Archive, document: Document, note: str) -> None:
        """Say that the source still says what an earlier scrape has archived; nothing is stored twice.

        Args:
            document: what `MarketHistory.document` gave.
            note: what the values in Redis say of it.
        """
        self.row_count = len(document.frame)
        self.covers(
            archive,
            [
                RecordEntry(
                    None if region == EVERYWHERE else region,
                    0,
                    content_id=document.content_id,
                    content_at=document.content_at,
                    note=note,
                )
                for region in document.regions
            ],
        )

    def undo_with(self, action: Callable[[], object]) -> None:
        """Call `action` if the scrape fails, before those that were given earlier."""
        self._undo.append(action)

    def undo(self, error: BaseException) -> None:
        """Remove what `keep` wrote and take back what was published; what cannot be is noted on `error`."""
        while self._undo:
            try:
                self._undo.pop()()
            except StoreUnavailable as left:
                error.add_note(f"What the scrape left behind could not be removed: {left}")

    def close(self) -> None:
        """Write the record to the archive: the scrape is whole. One that archived nothing and covers nothing has none.

        Raises:
            StoreUnavailable: the archive cannot be written.
        """
        if self._archive is not None and self._entries:
            # Before it is written: the commit that follows may fail too.
            self.undo_with(partial(self._archive.remove, scrape_path(RECORDS, None, self.fetched_at, self.id)))
            self._archive.write_scrape(
                kind=RECORDS,
                region=None,
                fetched_at=self.fetched_at,
                scrape_id=self.id,
                frame=record_frame(self.source, self._entries),
            )

    def report(self, frame: pd.DataFrame, *, oldest: datetime | None = None, **details: Any) -> ScrapeReport:
        """The report of this scrape; `frame` is shown by its first rows.

        Args:
            oldest: when the oldest value was fetched that it left in the cache, if that was not now.
        """
        return ScrapeReport(
            source=self.source,
            scrape_id=str(self.id),
            fetched_at=self.fetched_at,
            row_count=self.row_count,
            data_age_s=round((datetime.now(UTC) - (oldest or self.fetched_at)).total_seconds(), 3),
            archive_path=self.archive_path,
            details=details,
            preview=frame.head(PREVIEW_ROWS),
        )


@contextmanager
def recorded(
    engine: sa.Engine, source: str, *, account_id: str | None = None, region: str | None = None
) -> Iterator[ScrapeRecord]:
    """Keep a row of the scrape that happens inside: with its counts if it ends well, else with its error.

    A scrape that fails, or whose row cannot be written, leaves no file in the archive and nothing that it published.
    """
    record = ScrapeRecord(source, account_id, region)
    try:
        yield record
        with database_errors(), engine.begin() as connection:
            connection.execute(_row(record, None))
            record.close()
    # Also what is not an Exception: a run that is cancelled must leave as little as one that fails.
    except BaseException as error:
        record.undo(error)
        with database_errors(), engine.begin() as connection:
            connection.execute(_row(record, f"{type(error).__name__}: {error}"))
        raise


def _row(record: ScrapeRecord, error: str | None) -> sa.Insert:
    return sa.insert(Scrape).values(
        id=record.id,
        source=record.source,
        account_id=record.account_id,
        region=record.region,
        fetched_at=record.fetched_at,
        row_count=0 if error else record.row_count,
        archive_path=None if error else record.archive_path,
        error=error,
        provenance=record.provenance,
    )
