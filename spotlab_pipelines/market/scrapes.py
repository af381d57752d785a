"""A scrape as such: its record in `scrapes`, whether it worked or failed, and the report that it hands back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Scrape

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
    """Keep a row of the scrape that happens inside: with its counts if it ends well, else with its error."""
    record = ScrapeRecord(source, account_id, region)
    try:
        yield record
    except Exception as error:
        _insert(engine, record, f"{type(error).__name__}: {error}")
        raise
    _insert(engine, record, None)


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
