"""Documents in the archive: what a source's newest scrape found, read from its own file or from a merged one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import pandas as pd
import pyarrow.compute as pc

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.frames import text
from spotlab_pipelines.market.layout import EVERYWHERE, ScrapeFile
from spotlab_pipelines.market.parquet import to_frame
from spotlab_pipelines.market.reading import read_files, read_listed
from spotlab_pipelines.market.records import Document, records_backwards, rows_of


def read_document(
    archive: Archive, source: str, *, known_at: datetime | None = None, regions: Collection[str] | None = None
) -> Document:
    """What a source's newest scrape on record at or before `known_at` found.

    Args:
        regions: those whose rows are wanted, None for all.

    Raises:
        NotFound: no scrape of it had ended well by then, or the archive has lost its rows.
    """
    for frame in records_backwards(archive, until=known_at):
        rows = rows_of(frame, source)
        if not rows:
            continue
        newest = rows[0]
        content = newest["content_id"] or newest["scrape_id"]
        content_at = newest["content_at"] if newest["content_id"] else newest["fetched_at"]
        names = [row["scraped_region"] for row in rows if row["scrape_id"] == newest["scrape_id"]]
        scraped = tuple(sorted(name if isinstance(name, str) else EVERYWHERE for name in names))
        # A region without rows is read for the columns, if no other is.
        chosen = [name for name in scraped if regions is None or name in regions]
        parts = [_part(archive, source, region, content, content_at) for region in chosen or scraped[:1]]
        return Document(
            frame=pd.concat(parts if chosen else [parts[0].iloc[:0]], ignore_index=True),
            source=source,
            scrape_id=newest["scrape_id"],
            fetched_at=newest["fetched_at"].to_pydatetime(),
            content_id=content,
            content_at=content_at.to_pydatetime(),
            regions=scraped,
            note=newest["note"],
        )
    when = "" if known_at is None else f" at or before {known_at.isoformat()}"
    raise NotFound(
        f"The archive {archive.url} has no scrape of {source} that ended well{when}{_first(archive, source)}.",
        remedy=f"Materialise {source}, or ask for a later time.",
    )


def _part(archive: Archive, source: str, region: str, scrape_id: str, fetched_at: pd.Timestamp) -> pd.DataFrame:
    """A scrape's rows in one region, from its own file or, if that was merged, from the merged one."""

    def read(files: list[ScrapeFile]) -> pd.DataFrame:
        own = [file for file in files if file.id == scrape_id] or [file for file in files if file.merged]
        for table in read_files(archive, own):
            rows = table.filter(pc.call_function("equal", [table["scrape_id"], scrape_id]))
            if len(rows):
                frame = to_frame(rows)
                return frame.assign(region=text([None if region == EVERYWHERE else region] * len(frame)))
        raise NotFound(
            f"The archive {archive.url} has lost the {source} of {region} that scrape {scrape_id} brought.",
            remedy="Restore the archive from a backup, or ask for another time.",
        )

    return read_listed(archive, source, region, read, date=str(fetched_at.date()))


def _first(archive: Archive, source: str) -> str:
    times = [frame["fetched_at"][frame["source"] == source].min() for frame in records_backwards(archive)]
    known = [time for time in times if time is not pd.NaT]
    return f"; the first one ran at {min(known).isoformat()}" if known else ""
