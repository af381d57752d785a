"""The Parquet archive: scrapes, the tables of evaluations, and frozen snapshots, in a folder or below an s3:// URL.

Everything is written once, whole: a local file under a temporary name that is then renamed, an S3 object in one put.
Object columns (tags, features) are stored as JSON text and come back as Python objects. What a table means is the
business of the room that writes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import IntegrityError, InvalidInput, NotFound, StoreUnavailable
from spotlab_pipelines.market.canonical import content_id, utc_ticks

METADATA_KEY = b"spotlab"
JSON_COLUMNS_KEY = b"spotlab.json_columns"
DENSE = {"compression": "zstd"}
"""How scrapes are stored: they are large and many, and stay."""
QUICK = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
"""How tables and snapshots are stored, which an evaluation waits for: in a third of the time, a fifth larger."""
RECENT_TABLES = 16
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
        self, *, kind: str, region: str | None, fetched_at: datetime, scrape_id: object, frame: pd.DataFrame
    ) -> str:
        """Write one scrape's rows; return the path below the archive's root. A region of None reads `all`."""
        date = fetched_at.astimezone(UTC).date().isoformat()
        path = f"scrapes/kind={kind}/region={region or 'all'}/date={date}/{scrape_id}.parquet"
        metadata = {"fetched_at": fetched_at.isoformat(), "scrape_id": str(scrape_id)}
        self._write(path, _encode(frame, metadata, DENSE))
        return path

    def remove(self, path: str) -> None:
        """Remove a file that `write_scrape` wrote; one that is gone already is no error."""
        # A file alone may vanish: AWS lets an object be deleted that is not there.
        with contextlib.suppress(FileNotFoundError):
            self._attempt(f"be cleared of {path}", lambda filesystem, root: filesystem.delete_file(f"{root}/{path}"))

    def write_table(
        self, table: str, key: EvaluationKey, frame: pd.DataFrame, metadata: dict[str, Any] | None = None
    ) -> str:
        """Write one table of an evaluation, replacing what an earlier try left; return its path below the root.

        The next steps of the evaluation, in this process, are given it from memory: `frame` is theirs from here on.
        """
        path = _table_path(table, key)
        self._recent.pop(path, None)
        self._write(path, _encode(frame, metadata or {}, QUICK))
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
        return _decode(self._read(path, f"Table {table!r} of evaluation {key}"))

    def read_metadata(self, table: str, key: EvaluationKey) -> dict[str, Any]:
        """Read the metadata that `write_table` was given, without the rows.

        Raises:
            NotFound: the table was not written for this evaluation.
        """
        path = _table_path(table, key)
        if path in self._recent:
            return self._recent[path][1]
        data = self._read(path, f"Table {table!r} of evaluation {key}")
        stored = pq.read_schema(pa.BufferReader(data)).metadata or {}
        return orjson.loads(stored.get(METADATA_KEY, b"{}"))

    def write_snapshot(self, frames: dict[str, pd.DataFrame], metadata: dict[str, Any]) -> str:
        """Freeze `frames` and JSON-able `metadata`; return the snapshot's id, the hash of that content.

        The same content gives the same id whatever its row order, and is stored once. `metadata.json` is written
        last: a snapshot without it does not exist.
        """
        snapshot_id = content_id(frames, metadata)
        base = f"snapshots/{snapshot_id}"
        if self._exists(f"{base}/metadata.json"):
            return snapshot_id
        files = {f"{base}/{name}.parquet": _encode(frame, {}, QUICK) for name, frame in frames.items()}
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
            frames = {name: _decode(self._read(f"{base}/{name}.parquet", what)) for name in document["frames"]}
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
            temporary = f"{target}.{uuid4().hex}.tmp"
            filesystem.create_dir(target.rpartition("/")[0], recursive=True)
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


def _encode(frame: pd.DataFrame, metadata: dict[str, Any], storage: dict[str, Any]) -> pa.Buffer:
    json_columns = [str(name) for name, dtype in frame.dtypes.items() if dtype == np.dtype(object)]
    table = pa.table({str(name): _to_arrow(column) for name, column in frame.items()})
    table = table.replace_schema_metadata(
        {METADATA_KEY: orjson.dumps(metadata), JSON_COLUMNS_KEY: orjson.dumps(json_columns)}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **storage)
    return sink.getvalue()


def _decode(data: pa.Buffer) -> pd.DataFrame:
    # Opened as one file, not as a data set: else the path's `table=…` folders would turn into columns.
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    json_columns = orjson.loads((table.schema.metadata or {}).get(JSON_COLUMNS_KEY, b"[]"))
    frame = table.to_pandas()
    if json_columns:
        frame = frame.assign(**{name: _from_json(table[name]) for name in json_columns})
    return frame


def _to_arrow(column: pd.Series) -> pa.Array:
    # Not Table.from_pandas: it warns on every time column under pandas 3.1, and it would turn NaN into null.
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        unit = column.dtype.unit
        return pa.array(utc_ticks(column).view(f"M8[{unit}]"), pa.timestamp(unit, tz="UTC"))
    if column.dtype == np.dtype(object):
        texts = [None if value is None else orjson.dumps(value).decode() for value in column]
        return pa.array(texts, pa.string())
    if isinstance(column.dtype, np.dtype):
        return pa.array(column.to_numpy())
    if isinstance(column.dtype, pd.StringDtype):
        return pa.array(column.array, pa.string())
    return pa.array(column, from_pandas=True)


def _from_json(column: pa.ChunkedArray) -> pd.Series:
    values = [None if text is None else orjson.loads(text) for text in column.to_pylist()]
    return pd.Series(values, dtype=object)
