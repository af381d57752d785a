"""How a frame becomes Parquet and comes back: floats bit for bit, objects as JSON text, and the schema's version.

Bytes in, bytes out: where they lie is archive.py's business, what a table means that of the room that writes it. A file
carries a checksum of itself, because Parquet takes most changed bits of a column for other numbers, and some of a
footer end the process: it lies between data and footer, where no reader looks that follows the footer's offsets.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spotlab_pipelines.errors import ArchiveTooNew, IntegrityError
from spotlab_pipelines.market.canonical import utc_ticks

METADATA_KEY = b"spotlab"
JSON_COLUMNS_KEY = b"spotlab.json_columns"
VERSION_KEY = b"schema_version"
SCHEMA_VERSION = "1.1"
"""Of the archived scrapes, major.minor: a minor adds something, a major changes what is there. 1.1 added the seal."""
SEAL = b"spotlab\x01"
"""What stands before the checksum: four bytes, CRC-32 of all bytes but these twelve."""
SEALED_SINCE = (1, 1)
FOOTER_END = 8
"""Bytes after a footer: its length, and Parquet's mark."""

DENSE: dict[str, Any] = {"compression": "zstd", "row_group_size": 131_072, "store_schema": False}
"""How scrapes are stored: they are large and many, and stay. Row groups are small enough to be skipped by type, and
texts are texts to every tool, though we may give them as codes."""
QUICK: dict[str, Any] = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
"""How tables and snapshots are stored, which an evaluation waits for: in a third of the time, a fifth larger."""


def encode(frame: pd.DataFrame, metadata: dict[str, Any], storage: dict[str, Any]) -> pa.Buffer:
    """A frame and JSON-able metadata as a Parquet file; `storage` is DENSE or QUICK."""
    table, json_columns = to_table(frame)
    return write_table(table, metadata, storage, json_columns=json_columns)


def to_table(frame: pd.DataFrame) -> tuple[pa.Table, list[str]]:
    """A frame as an Arrow table, and which of its columns are JSON text there."""
    columns = {str(name): column for name, column in frame.items()}
    json_columns = [name for name, column in columns.items() if column.dtype == np.dtype(object)]
    return pa.table({name: _to_arrow(column) for name, column in columns.items()}), json_columns


def write_table(
    table: pa.Table, metadata: dict[str, Any], storage: dict[str, Any], *, json_columns: list[str]
) -> pa.Buffer:
    """An Arrow table as a Parquet file that says which of its columns hold JSON, and its schema's version."""
    keys = {
        METADATA_KEY: orjson.dumps(metadata),
        JSON_COLUMNS_KEY: orjson.dumps(json_columns),
        VERSION_KEY: SCHEMA_VERSION.encode(),
    }
    table = table.replace_schema_metadata(keys)
    options = {name: value for name, value in storage.items() if name != "row_group_size"}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, storage.get("row_group_size"))
        if not storage.get("store_schema", True):
            # A file without Arrow's schema has lost the metadata that came with it.
            writer.add_key_value_metadata({name.decode(): value.decode() for name, value in keys.items()})
    return _sealed(sink.getvalue())


def open_file(data: pa.Buffer, *, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a file that `write_table` made, after looking whether it still is what was written.

    Args:
        dictionaries: text columns to be read as codes.

    Raises:
        ValueError: its bytes are not those that were written.
        pa.ArrowException, OSError: it is no Parquet file.
    """
    is_sealed = _check_seal(data)
    # Opened as one file, not as a data set: else the path's `table=…` folders would turn into columns.
    parquet = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(dictionaries))
    version = (parquet.metadata.metadata or {}).get(VERSION_KEY, b"").decode()
    if not is_sealed and tuple(int(part) for part in version.split(".") if part.isdigit()) >= SEALED_SINCE:
        raise ValueError(f"it has schema_version {version} and no checksum")
    return parquet


def decode(data: pa.Buffer) -> pd.DataFrame:
    """The frame of a Parquet file that `encode` made; errors as in `open_file`."""
    return to_frame(open_file(data).read())


def to_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame; columns that its metadata calls JSON are decoded."""
    json_columns = orjson.loads((table.schema.metadata or {}).get(JSON_COLUMNS_KEY, b"[]"))
    frame = table.to_pandas()
    if json_columns:
        frame = frame.assign(**{name: _from_json(table[name]) for name in json_columns if name in frame})
    return frame


def metadata_of(data: pa.Buffer) -> dict[str, Any]:
    """The metadata that `encode` was given; errors as in `open_file`."""
    stored = open_file(data).metadata.metadata or {}
    return orjson.loads(stored.get(METADATA_KEY, b"{}"))


def check_version(metadata: dict[bytes, bytes] | None, path: str) -> None:
    """Refuse a file that this code does not understand.

    Raises:
        ArchiveTooNew: its schema has a newer major version.
        IntegrityError: it has none.
    """
    version = (metadata or {}).get(VERSION_KEY, b"").decode()
    major = version.partition(".")[0]
    if not major.isdigit():
        raise IntegrityError(
            f"Expected a schema_version in the metadata of {path}, got {version!r}.",
            remedy="Move the file out of the archive's folder scrapes/: SpotLab did not write it.",
        )
    if int(major) > int(SCHEMA_VERSION.partition(".")[0]):
        raise ArchiveTooNew(
            f"{path} has schema_version {version}; this SpotLab reads up to {SCHEMA_VERSION}.",
            remedy="Upgrade SpotLab.",
        )


GroupRange = Callable[[str], tuple[Any, Any] | None]
"""The lowest and highest value of a named column in one group of rows, None if the file does not say."""


def group_ranges(parquet: pq.ParquetFile) -> Iterator[tuple[int, GroupRange]]:
    """The groups of rows of an open file by number, each with the ranges of its columns."""
    index = {name: position for position, name in enumerate(parquet.schema_arrow.names)}
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)

        def ranges(name: str, group: Any = group) -> tuple[Any, Any] | None:
            statistics = group.column(index[name]).statistics
            return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None

        yield number, ranges


def _seal_place(view: memoryview) -> int:
    """Where the footer begins, and so where a seal ends."""
    return len(view) - FOOTER_END - int.from_bytes(view[-FOOTER_END:-4], "little")


def _sealed(data: pa.Buffer) -> pa.Buffer:
    view = memoryview(data)
    place = _seal_place(view)
    return pa.py_buffer(b"".join([view[:place], SEAL, zlib.crc32(view).to_bytes(4, "little"), view[place:]]))


def _check_seal(data: pa.Buffer) -> bool:
    """Whether there is a seal.

    Raises:
        ValueError: there is, and it is broken.
    """
    view = memoryview(data)
    end = _seal_place(view)
    begin = end - len(SEAL) - 4
    if begin < 0 or view[begin : end - 4] != SEAL:
        return False
    if zlib.crc32(view[end:], zlib.crc32(view[:begin])) != int.from_bytes(view[end - 4 : end], "little"):
        raise ValueError("its checksum is not that of its bytes")
    return True


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
