"""How a frame becomes Parquet and comes back: floats bit for bit, objects as JSON text, and the schema's version.

Bytes in, bytes out: where they lie is archive.py's business, what a table means that of the room that writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
SCHEMA_VERSION = "1.0"
"""Of the archived scrapes, major.minor: a minor adds columns, a major changes what is there."""

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
    json_columns = [str(name) for name, dtype in frame.dtypes.items() if dtype == np.dtype(object)]
    return pa.table({str(name): _to_arrow(column) for name, column in frame.items()}), json_columns


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
    return sink.getvalue()


def decode(data: pa.Buffer) -> pd.DataFrame:
    """The frame of a Parquet file that `encode` made."""
    # Opened as one file, not as a data set: else the path's `table=…` folders would turn into columns.
    return to_frame(pq.ParquetFile(pa.BufferReader(data)).read())


def to_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame; columns that its metadata calls JSON are decoded."""
    json_columns = orjson.loads((table.schema.metadata or {}).get(JSON_COLUMNS_KEY, b"[]"))
    frame = table.to_pandas()
    if json_columns:
        frame = frame.assign(**{name: _from_json(table[name]) for name in json_columns if name in frame})
    return frame


def metadata_of(data: pa.Buffer) -> dict[str, Any]:
    """The metadata that `encode` was given."""
    stored = pq.read_schema(pa.BufferReader(data)).metadata or {}
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
