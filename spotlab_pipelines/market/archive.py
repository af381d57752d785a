"""The Parquet archive: scrapes, the tables of evaluations, and frozen snapshots, in a folder or below an s3:// URL.

Everything is written once, whole: a local file under a temporary name that is then renamed, an S3 object in one put.
The bytes are parquet.py's, the places of scrapes layout.py's; what a table means is the business of the room that
writes it, and what was known when that of history.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import IntegrityError, InvalidInput, NotFound, StoreUnavailable
from spotlab_pipelines.market.canonical import content_id
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
    to_table,
    write_table,
)

RECENT_TABLES = 20
"""How many tables are kept in memory for the next step: those of two evaluations."""

T = TypeVar("T")


class Archive:
    """The archive below `url`: a folder (made when it is first written to) or s3://bucket/prefix.

    AWS_ENDPOINT_URL and AWS's credential variables are honoured, as everywhere.

    Raises (all methods):
        StoreUnavailable: the folder or bucket cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[pafs.FileSystem, str] | None = None
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

    def write_file(self, path: str, data: pa.Buffer) -> None:
        """Write a file whole."""
        self._write(path, data)

    def scrape_files(self, kind: str, region: str | None = None, date: str | None = None) -> list[ScrapeFile]:
        """The files of a kind, of one of its regions, or of one date there, by path."""

        def search(filesystem: pafs.FileSystem, root: str) -> list[str]:
            folder = f"{root}/{partition_path(kind, region, date)}"
            found = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True, recursive=True))
            return [info.path.removeprefix(f"{root}/") for info in found if info.type == pafs.FileType.File]

        files = map(ScrapeFile.of, self._attempt("be searched", search))
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
            ArchiveTooNew, IntegrityError: its schema is not one that this code reads.
        """

        def read(filesystem: pafs.FileSystem, root: str) -> pa.Table:
            with filesystem.open_input_file(f"{root}/{file.path}") as source:
                parquet = pq.ParquetFile(source, read_dictionary=list(dictionaries))
                check_version(parquet.metadata.metadata, f"{self.url}/{file.path}")
                if wanted is None:
                    return parquet.read(columns)
                return parquet.read_row_groups([n for n, ranges in group_ranges(parquet) if wanted(ranges)], columns)

        return self._attempt("be read", read)

    def remove(self, path: str) -> None:
        """Remove a file that `write_scrape` wrote; one that is gone already is no error."""
        # A file alone may vanish: AWS lets an object be deleted that is not there.
        with contextlib.suppress(FileNotFoundError):
            self._attempt(f"be cleared of {path}", lambda filesystem, root: filesystem.delete_file(f"{root}/{path}"))

    def remove_leftovers(self, folder: str, *, before: datetime) -> int:
        """Remove the unfinished files below `folder` of writers that were killed before then; return how many."""

        def search(filesystem: pafs.FileSystem, root: str) -> list[str]:
            found = filesystem.get_file_info(
                pafs.FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
            )
            unfinished = (info for info in found if info.base_name.startswith(".") and info.extension == "tmp")
            return [info.path.removeprefix(f"{root}/") for info in unfinished if info.mtime and info.mtime < before]

        paths = self._attempt("be searched", search)
        for path in paths:
            self.remove(path)
        return len(paths)

    def write_table(
        self, table: str, key: EvaluationKey, frame: pd.DataFrame, metadata: dict[str, Any] | None = None
    ) -> str:
        """Write one table of an evaluation, replacing what an earlier try left; return its path below the root.

        The next steps of the evaluation, in this process, are given it from memory: `frame` is theirs from here on.
        """
        path = _table_path(table, key)
        self._recent.pop(path, None)
        self._write(path, encode(frame, metadata or {}, QUICK))
        self._recent[path] = frame.reset_index(drop=True), orjson.loads(orjson.dumps(metadata or {}))
        while len(self._recent) > RECENT_TABLES:
            del self._recent[next(iter(self._recent))]
        return path

    def read_table(self, table: str, key: EvaluationKey) -> pd.DataFrame:
        """Read one table of an evaluation, floats bit for bit as they were written.

        Raises:
            NotFound: the table was not written for this evaluation.
        """
        path = _table_path(table, key)
        if path in self._recent:
            return self._recent[path][0].copy(deep=False)
        return decode(self._read(path, f"Table {table!r} of evaluation {key}"))

    def read_metadata(self, table: str, key: EvaluationKey) -> dict[str, Any]:
        """Read the metadata that `write_table` was given, without the rows.

        Raises:
            NotFound: the table was not written for this evaluation.
        """
        path = _table_path(table, key)
        if path in self._recent:
            return self._recent[path][1]
        data = self._read(path, f"Table {table!r} of evaluation {key}")
        return metadata_of(data)

    def write_snapshot(self, frames: dict[str, pd.DataFrame], metadata: dict[str, Any]) -> str:
        """Freeze `frames` and JSON-able `metadata`; return the snapshot's id, the hash of that content.

        The same content gives the same id whatever its row order, and is stored once. `metadata.json` is written
        last: a snapshot without it does not exist.
        """
        snapshot_id = content_id(frames, metadata)
        base = f"snapshots/{snapshot_id}"
        if self._exists(f"{base}/metadata.json"):
            return snapshot_id
        files = {f"{base}/{name}.parquet": encode(frame, {}, QUICK) for name, frame in frames.items()}
        # Side by side, because a put to S3 waits.
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._write, files, files.values()))
        document = orjson.dumps({"frames": sorted(frames), "metadata": metadata}, option=orjson.OPT_SORT_KEYS)
        self._write(f"{base}/metadata.json", pa.py_buffer(document))
        return snapshot_id

    def read_snapshot(self, snapshot_id: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
        """Read a snapshot's frames and metadata, and check that they still are what the id says.

        Raises:
            NotFound: no such snapshot.
            IntegrityError: the content's hash is not the id.
        """
        base, what = f"snapshots/{snapshot_id}", f"Snapshot {snapshot_id}"
        try:
            document = orjson.loads(memoryview(self._read(f"{base}/metadata.json", what)))
            frames = {name: decode(self._read(f"{base}/{name}.parquet", what)) for name in document["frames"]}
            found = content_id(frames, document["metadata"])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            # What was written could be read: it was changed since.
            raise _changed(what, f"it cannot be read any more ({type(error).__name__})") from error
        if found != snapshot_id:
            raise _changed(what, f"its content hashes to {found}")
        return frames, document["metadata"]

    def _filesystem(self) -> tuple[pafs.FileSystem, str]:
        if self._opened is None:
            if self.url.startswith("s3://"):
                filesystem, root = pafs.FileSystem.from_uri(self.url)
            elif "://" in self.url:
                raise InvalidInput(
                    f"An archive is a folder or an s3:// URL, got {self.url!r}.", remedy="Set SPOTLAB_ARCHIVE_URL."
                )
            else:
                filesystem, root = pafs.LocalFileSystem(), self.url
            self._opened = filesystem, root
        return self._opened

    def _attempt(self, action: str, work: Callable[[pafs.FileSystem, str], T]) -> T:
        try:
            return work(*self._filesystem())
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreUnavailable(
                f"The archive {self.url} could not {action}: {error}",
                remedy="Check SPOTLAB_ARCHIVE_URL and its rights.",
            ) from error

    def _exists(self, path: str) -> bool:
        info = self._attempt("be searched", lambda fs, root: fs.get_file_info(f"{root}/{path}"))
        return info.type == pafs.FileType.File

    def _read(self, path: str, what: str) -> pa.Buffer:
        def read(filesystem: pafs.FileSystem, root: str) -> pa.Buffer:
            with filesystem.open_input_file(f"{root}/{path}") as file:
                return file.read_buffer()

        try:
            return self._attempt("be read", read)
        except FileNotFoundError:
            raise NotFound(
                f"{what} is not in the archive {self.url} (looked for {path}).",
                remedy="Run the step that writes it first.",
            ) from None

    def probe(self) -> None:
        """Write a small file and remove it: whether the archive can be used, before anything depends on it."""
        self._write(".probe", pa.py_buffer(b"probe"))
        self._attempt("be written", lambda filesystem, root: filesystem.delete_file(f"{root}/.probe"))

    def _write(self, path: str, data: pa.Buffer) -> None:
        def write(filesystem: pafs.FileSystem, root: str) -> None:
            target = f"{root}/{path}"
            if not isinstance(filesystem, pafs.LocalFileSystem):
                with filesystem.open_output_stream(target) as stream:
                    stream.write(data)
                return
            folder, _, name = target.rpartition("/")
            # Tools that read a folder as a data set pass over names that begin with a dot.
            temporary = f"{folder}/.{name}.{uuid4().hex}.tmp"
            filesystem.create_dir(folder, recursive=True)
            try:
                with filesystem.open_output_stream(temporary) as stream:
                    stream.write(data)
                filesystem.move(temporary, target)
            except BaseException:
                if filesystem.get_file_info(temporary).type == pafs.FileType.File:
                    filesystem.delete_file(temporary)
                raise

        try:
            self._attempt("be written", write)
        except FileNotFoundError as error:
            raise StoreUnavailable(f"The archive {self.url} could not be written: {error}") from error


def _changed(what: str, how: str) -> IntegrityError:
    return IntegrityError(
        f"{what} was changed after it was written: {how}.",
        remedy="Restore the archive from a backup; the evaluations that used it cannot be replayed.",
    )


def _table_path(table: str, key: EvaluationKey) -> str:
    window = key.window_start.strftime("%Y-%m-%dT%H%M%S.%fZ")
    return f"evaluations/table={table}/account={key.account_id}/window={window}.parquet"
