"""The Parquet archive: scrapes, the tables of evaluations, and frozen snapshots, in a folder or below an s3:// URL.

The files as such are files.py's, their bytes parquet.py's, the places of scrapes layout.py's; what a table means is the
business of the room that writes it, and what was known when that of history.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import IntegrityError, InvalidInput
from spotlab_pipelines.market.canonical import content_id
from spotlab_pipelines.market.files import FileStore
from spotlab_pipelines.market.layout import FACTS, ScrapeFile, partition_path, scrape_path
from spotlab_pipelines.market.parquet import (
    DENSE,
    QUICK,
    GroupRange,
    check_version,
    decode,
    encode,
    group_ranges,
    metadata_of,
    open_file,
    to_table,
    write_table,
)

RECENT_TABLES = 20
"""How many tables are kept in memory for the next step: those of two evaluations."""


class Archive(FileStore):
    """The archive below `url`: a folder (made when it is first written to) or s3://bucket/prefix.

    AWS_ENDPOINT_URL and AWS's credential variables are honoured, as everywhere.

    Raises (all methods):
        StoreUnavailable: the folder or bucket cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._recent: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {}

    def write_scrape(
        self, *, kind: str, region: str | None, fetched_at: datetime, scrape_id: object, frame: pd.DataFrame | pa.Table
    ) -> str:
        """Write rows of one scrape that belong to one region (None: to none); return the path below the root.

        Each row comes to carry `fetched_at`, and if the kind's rows are no facts `scrape_id`; a column `region` is left
        to the path.

        Raises:
            InvalidInput: a column has the name of another part of the path.
        """
        names = list(frame.columns) if isinstance(frame, pd.DataFrame) else frame.column_names
        clash = {"kind", "date"}.intersection(names)
        if clash:
            raise InvalidInput(
                f"An archived frame has no column {', '.join(sorted(clash))}: the path says it; {kind} has one.",
                remedy="Name the column otherwise.",
            )
        table, json_columns = to_table(frame) if isinstance(frame, pd.DataFrame) else (frame, [])
        if "region" in names:
            table = table.drop_columns(["region"])
        moment = pa.scalar(fetched_at, pa.timestamp("us", tz="UTC"))
        table = table.append_column("fetched_at", pa.repeat(moment, len(table)))
        if kind not in FACTS:
            table = table.append_column("scrape_id", pa.repeat(pa.scalar(str(scrape_id)), len(table)))
        path = scrape_path(kind, region, fetched_at, scrape_id)
        self.write_file(path, write_table(table, {}, DENSE, json_columns=json_columns))
        return path

    def scrape_files(self, kind: str, region: str | None = None, date: str | None = None) -> list[ScrapeFile]:
        """The files of a kind, of one of its regions, or of one date there, by path."""

        def search(filesystem: pafs.FileSystem, root: str) -> list[str]:
            folder = f"{root}/{partition_path(kind, region, date)}"
            found = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True, recursive=True))
            return [info.path.removeprefix(f"{root}/") for info in found if info.type == pafs.FileType.File]

        files = map(ScrapeFile.of, self.attempt("be searched", search))
        return sorted(file for file in files if file is not None)

    def read_scrape(
        self,
        file: ScrapeFile,
        columns: Sequence[str] | None = None,
        *,
        dictionaries: Sequence[str] = (),
        wanted: Callable[[GroupRange], bool] | None = None,
    ) -> pa.Table:
        """Read a file of scrapes; without `region`, which its path says.

        Args:
            columns: those to read, None for all.
            dictionaries: text columns to be read as codes.
            wanted: which groups of rows to read, given each column's range there; others have no row of interest.

        Raises:
            FileNotFoundError: it is gone, as compaction merged it meanwhile: list the files anew.
            ArchiveTooNew, IntegrityError: its schema is not one that this code reads, or it is damaged.
        """

        # Whole, as its checksum is: what one scrape or one day brought is small.
        data = self.read_file(file.path)
        with self._whole(file.path):
            parquet = open_file(data, dictionaries=dictionaries)
            check_version(parquet.metadata.metadata, f"{self.url}/{file.path}")
            if wanted is None:
                return parquet.read(columns)
            return parquet.read_row_groups([n for n, ranges in group_ranges(parquet) if wanted(ranges)], columns)

    def write_table(
        self, table: str, key: EvaluationKey, frame: pd.DataFrame, metadata: dict[str, Any] | None = None
    ) -> str:
        """Write one table of an evaluation, replacing what an earlier try left; return its path below the root.

        The next steps of the evaluation, in this process, are given it from memory: `frame` is theirs from here on.
        """
        path = _table_path(table, key)
        self._recent.pop(path, None)
        self.write_file(path, encode(frame, metadata or {}, QUICK))
        self._recent[path] = frame.reset_index(drop=True), orjson.loads(orjson.dumps(metadata or {}))
        while len(self._recent) > RECENT_TABLES:
            del self._recent[next(iter(self._recent))]
        return path

    def read_table(self, table: str, key: EvaluationKey) -> pd.DataFrame:
        """Read one table of an evaluation, floats bit for bit as they were written.

        Raises:
            NotFound: the table was not written for this evaluation.
            IntegrityError: its file is damaged.
        """
        path = _table_path(table, key)
        if path in self._recent:
            return self._recent[path][0].copy(deep=False)
        data = self.read_bytes(path, f"Table {table!r} of evaluation {key}")
        with self._whole(path):
            return decode(data)

    def read_metadata(self, table: str, key: EvaluationKey) -> dict[str, Any]:
        """Read the metadata that `write_table` was given, without the rows.

        Raises:
            NotFound: the table was not written for this evaluation.
            IntegrityError: its file is damaged.
        """
        path = _table_path(table, key)
        if path in self._recent:
            return self._recent[path][1]
        data = self.read_bytes(path, f"Table {table!r} of evaluation {key}")
        with self._whole(path):
            return metadata_of(data)

    @contextmanager
    def _whole(self, path: str) -> Iterator[None]:
        """Say of what is not what we wrote which file it is, and that trying again does not help."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"Expected {self.url}/{path} as SpotLab wrote it; it is not: {type(error).__name__},"
                f" {str(error).rstrip('.')}.",
                remedy="Restore it from a backup.",
            ) from error

    def write_snapshot(self, frames: dict[str, pd.DataFrame], metadata: dict[str, Any]) -> str:
        """Freeze `frames` and JSON-able `metadata`; return the snapshot's id, the hash of that content.

        The same content gives the same id whatever its row order, and is stored once. `metadata.json` is written
        last: a snapshot without it does not exist.
        """
        snapshot_id = content_id(frames, metadata)
        base = f"snapshots/{snapshot_id}"
        if self.exists(f"{base}/metadata.json"):
            return snapshot_id
        self.write_files({f"{base}/{name}.parquet": encode(frame, {}, QUICK) for name, frame in frames.items()})
        document = orjson.dumps({"frames": sorted(frames), "metadata": metadata}, option=orjson.OPT_SORT_KEYS)
        self.write_file(f"{base}/metadata.json", pa.py_buffer(document))
        return snapshot_id

    def read_snapshot(self, snapshot_id: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
        """Read a snapshot's frames and metadata, and check that they still are what the id says.

        Raises:
            NotFound: no such snapshot.
            IntegrityError: the content's hash is not the id.
        """
        base, what = f"snapshots/{snapshot_id}", f"Snapshot {snapshot_id}"
        try:
            document = orjson.loads(memoryview(self.read_bytes(f"{base}/metadata.json", what)))
            frames = {name: decode(self.read_bytes(f"{base}/{name}.parquet", what)) for name in document["frames"]}
            found = content_id(frames, document["metadata"])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            # What was written could be read: it was changed since.
            raise _changed(what, f"it cannot be read any more ({type(error).__name__})") from error
        if found != snapshot_id:
            raise _changed(what, f"its content hashes to {found}")
        return frames, document["metadata"]


def _changed(what: str, how: str) -> IntegrityError:
    return IntegrityError(
        f"{what} was changed after it was written: {how}.",
        remedy="Restore the archive from a backup; the evaluations that used it cannot be replayed.",
    )


def _table_path(table: str, key: EvaluationKey) -> str:
    window = key.window_start.strftime("%Y-%m-%dT%H%M%S.%fZ")
    return f"evaluations/table={table}/account={key.account_id}/window={window}.parquet"
