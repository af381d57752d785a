"""A scrape as such: its files in the archive, its record in `scrapes`, and the report that it hands back.

The record decides what counts: an archived file is part of the archive if the row of a scrape without an error names
it. A scrape that fails removes its files; what a killed process leaves behind is named by no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Scrape
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.market.archive import Archive

PREVIEW_ROWS = 10


@dataclass(frozen=True)
class ScrapeReport:
    """What one scrape brought.

    Attributes:
        scrape_id: id of the scrape's row in `scrapes`; "" if everything was fresh and nothing was fetched.
        row_count: rows archived and cached.
        archive_path: path below the archive's root, None if nothing was fetched.
        details: figures worth showing, by name.
        preview: at most ten rows.
    """

    source: str
    scrape_id: str
    fetched_at: datetime
    row_count: int
    archive_path: str | None
    details: dict[str, Any]
    preview: pd.DataFrame


@dataclass
class ScrapeRecord:
    """A scrape under way; what it fills in becomes its row."""

    source: str
    account_id: str | None = None
    region: str | None = None
    id: UUID = field(default_factory=uuid4)
    fetched_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    row_count: int = 0
    archive_path: str | None = None
    _files: list[tuple[Archive, str]] = field(default_factory=list)

    def keep(self, archive: Archive, frame: pd.DataFrame, regions: Sequence[str] | None = None) -> None:
        """Archive the scrape's rows: in one file, or with `regions` in one for each of them.

        `row_count` and `archive_path` follow; of several files the path has a * for the region. Publish afterwards:
        what others can read must be in the archive already.
        """
        parts = [(None, frame)] if regions is None else [(name, frame[frame["region"] == name]) for name in regions]
        for region, rows in parts:
            path = archive.write_scrape(
                kind=self.source,
                region=region,
                fetched_at=self.fetched_at,
                scrape_id=self.id,
                frame=rows.reset_index(drop=True),
            )
            self._files.append((archive, path))
            self.archive_path = path if len(parts) == 1 else path.replace(f"region={region}", "region=*")
        self.row_count = len(frame)

    def discard(self) -> None:
        """Remove what `keep` wrote.

        Raises:
            StoreUnavailable: the archive does not let us; the path of the file that is left is named.
        """
        while self._files:
            archive, path = self._files.pop()
            archive.remove(path)

    def report(self, frame: pd.DataFrame, **details: Any) -> ScrapeReport:
        """The report of this scrape; `frame` is shown by its first rows."""
        return ScrapeReport(
            source=self.source,
            scrape_id=str(self.id),
            fetched_at=self.fetched_at,
            row_count=self.row_count,
            archive_path=self.archive_path,
            details=details,
            preview=frame.head(PREVIEW_ROWS),
        )


@contextmanager
def recorded(
    engine: sa.Engine, source: str, *, account_id: str | None = None, region: str | None = None
) -> Iterator[ScrapeRecord]:
    """Keep a row of the scrape that happens inside: with its counts if it ends well, else with its error.

    A scrape that fails, or whose row cannot be written, leaves no file in the archive.
    """
    record = ScrapeRecord(source, account_id, region)
    try:
        yield record
        _insert(engine, record, None)
    # Also what is not an Exception: a run that is cancelled must leave as little as one that fails.
    except BaseException as error:
        try:
            record.discard()
        except StoreUnavailable as left:
            error.add_note(f"What the scrape archived could not be removed, and no row names it: {left}")
        _insert(engine, record, f"{type(error).__name__}: {error}")
        raise


def _insert(engine: sa.Engine, record: ScrapeRecord, error: str | None) -> None:
    with database_errors(), engine.begin() as connection:
        connection.execute(
            sa.insert(Scrape).values(
                id=record.id,
                source=record.source,
                account_id=record.account_id,
                region=record.region,
                fetched_at=record.fetched_at,
                row_count=0 if error else record.row_count,
                archive_path=None if error else record.archive_path,
                error=error,
            )
        )
