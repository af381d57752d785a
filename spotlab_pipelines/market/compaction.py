"""Merging the small files of archived scrapes: one file for each kind, region and date, each fact in it once.

First the merged file is written, then what it holds is removed: a process that is killed in between leaves rows twice,
which readers drop and the next run mends. No row is dropped but repeats, and `fetched_at` stays that of the scrape that
first brought a fact, so that what was known when does not change. Files young enough to belong to a running scrape are
left alone: it may fail and will then remove them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

import numpy as np
import orjson
import pyarrow as pa

from spotlab_pipelines.errors import IntegrityError
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.canonical import text_codes
from spotlab_pipelines.market.layout import FACTS, KINDS, ScrapeFile, scrape_path
from spotlab_pipelines.market.parquet import DENSE, JSON_COLUMNS_KEY, write_table
from spotlab_pipelines.market.reading import read_files


@dataclass(frozen=True)
class CompactionReport:
    """What `compact_archive` did.

    Attributes:
        partitions: how many (kind, region, date) were merged.
        files_merged: files that went into them; each partition now has one, besides those that are too young.
        rows: rows in the merged files.
        repeats_dropped: rows that were there more than once.
        leftovers_removed: unfinished files of killed writers.
        left_alone: files too young to be touched.
    """

    partitions: int
    files_merged: int
    rows: int
    repeats_dropped: int
    leftovers_removed: int
    left_alone: int


def compact_archive(archive: Archive, *, settle: timedelta, now: datetime | None = None) -> CompactionReport:
    """Merge what can be merged; doing it again changes nothing.

    Args:
        settle: files younger than this are left alone; longer than any scrape takes (setting archive_settle_s).

    Raises:
        StoreUnavailable: the archive does not answer; what was merged stays merged.
        ArchiveTooNew, IntegrityError: a file is damaged, or not one that this code reads; nothing of its partition was
            touched, and all others are merged.
    """
    refused: list[IntegrityError] = []
    settled = (now or datetime.now(UTC)) - settle
    partitions = files_merged = rows = repeats = young = 0
    for kind in KINDS:
        files = archive.scrape_files(kind)
        for _, part in groupby(files, key=lambda file: (file.region, file.date)):
            here = list(part)
            old = [file for file in here if file.merged or file.fetched_at < settled]
            young += len(here) - len(old)
            if len(old) < 2:
                continue
            try:
                kept, dropped = _merge(archive, old)
            except FileNotFoundError:
                # Another run merged them meanwhile, or they were removed.
                continue
            except IntegrityError as error:
                refused.append(error)
                continue
            partitions, files_merged = partitions + 1, files_merged + len(old)
            rows, repeats = rows + kept, repeats + dropped
    leftovers = archive.remove_leftovers("scrapes", before=settled)
    if refused:
        raise refused[0]
    return CompactionReport(partitions, files_merged, rows, repeats, leftovers, young)


def _merge(archive: Archive, files: Sequence[ScrapeFile]) -> tuple[int, int]:
    """Write the files of one partition as one and remove them; return its rows and how many repeats it dropped."""
    tables = read_files(archive, files)
    whole = pa.concat_tables(tables, promote_options="default")
    kind = files[0].kind
    kept = whole.take(_facts_once(whole, kind) if kind in FACTS else _documents_once(whole, files, tables))
    json_columns = {
        name for table in tables for name in orjson.loads((table.schema.metadata or {}).get(JSON_COLUMNS_KEY, b"[]"))
    }
    replace_files(archive, files, kept, json_columns=json_columns)
    return len(kept), len(whole) - len(kept)


def replace_files(
    archive: Archive, files: Sequence[ScrapeFile], rows: pa.Table, *, json_columns: Collection[str] = ()
) -> None:
    """Put one merged file of rows in the place of some files of a partition; none if there are no rows.

    It is written and checked before anything is removed. Whoever else replaces or removes the same files at the same
    time either finds the merged file, or has taken one of them before it was written: then it is taken back. Only a
    process that is killed in between cannot do that.

    Raises:
        FileNotFoundError: one of the files is gone. Nothing was changed.
        IntegrityError: what was written does not read as it should; nothing was removed.
    """
    if len(rows):
        newest = max(file.fetched_at for file in files)
        path = scrape_path(files[0].kind, files[0].region, newest, uuid4(), merged=True)
        try:
            archive.write_file(path, write_table(rows, {}, DENSE, json_columns=sorted(json_columns)))
            _check_written(archive, path, files, len(rows))
        # Whatever it is: the rows of a file that somebody has removed meanwhile must not be back.
        except BaseException:
            archive.remove(path)
            raise
    for file in files:
        archive.remove(file.path)


def _check_written(archive: Archive, path: str, files: Sequence[ScrapeFile], rows: int) -> None:
    written = ScrapeFile.of(path)
    if written is None or len(archive.read_scrape(written, ["fetched_at"])) != rows:
        raise IntegrityError(f"Expected {rows} rows in {archive.url}/{path}, which was just written.")
    gone = set(files).difference(archive.scrape_files(files[0].kind, files[0].region, files[0].date))
    if gone:
        raise FileNotFoundError(f"{len(gone)} of {len(files)} files were taken while they were merged.")


def _facts_once(table: pa.Table, kind: str) -> np.ndarray:
    """The rows of facts sorted by what identifies them, each as the scrape that first brought it told it."""
    columns = [_numbers(table[name]) for name in FACTS[kind]]
    order = np.lexsort([_numbers(table["fetched_at"]), *columns[::-1]])
    repeated = np.zeros(len(order), dtype=bool)
    repeated[1:] = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    return order[~repeated]


def _documents_once(whole: pa.Table, files: Sequence[ScrapeFile], tables: Sequence[pa.Table]) -> np.ndarray:
    """The rows of documents by scrape, each scrape's from one file and in its order there."""
    file_of_row = np.repeat(np.arange(len(files)), [len(table) for table in tables])
    scrape = text_codes(whole["scrape_id"])[0]
    first = np.full(int(scrape.max(initial=-1)) + 1, len(files))
    np.minimum.at(first, scrape, file_of_row)
    rows = np.flatnonzero(file_of_row == first[scrape])
    order = np.lexsort((rows, scrape[rows], _numbers(whole["fetched_at"])[rows]))
    return rows[order]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column as numbers that sort and compare as its values do."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return text_codes(column)[0]
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).to_numpy()
    return column.to_numpy()
