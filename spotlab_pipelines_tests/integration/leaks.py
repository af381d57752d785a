"""Reading every place that keeps something, as text to search in; no test lives here."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import redis as redis_py
import sqlalchemy as sa


def text_of(value: Any) -> str:
    """A value of a database or a file as text; what is compressed is unpacked first."""
    if isinstance(value, memoryview):
        value = value.tobytes()
    if isinstance(value, bytes):
        with suppress(zlib.error):
            value = zlib.decompress(value)
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else json.dumps(value, default=str)


def database_text(engine: sa.Engine, *, but: tuple[str, str] | None = None) -> str:
    """Every column of every table, except the column `but` = (table, column)."""
    parts = []
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.execute(sa.text(f'select * from "{table}"')).mappings():
                parts += [text_of(value) for column, value in row.items() if (table, column) != but]
    return "\n".join(parts)


def redis_text(client: redis_py.Redis) -> str:
    """Every key with its value."""
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }
    parts = []
    for key in client.scan_iter(count=1000):
        value: Any = readers[client.type(key)](key)  # type: ignore[index]
        parts.append(f"{key!r} {text_of(value) if isinstance(value, bytes) else value!r}")
    return "\n".join(parts)


def files_text(folder: Path) -> str:
    """Every file below a folder with its path; Parquet files and archives unpacked."""
    return "\n".join(f"{path}\n{text}" for path in folder.rglob("*") if path.is_file() for text in _file(path))


def _file(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield _parquet(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from (text_of(packed.read(name)) for name in packed.namelist())
    else:
        yield text_of(path.read_bytes())


def _parquet(path: Path) -> str:
    """What is said in a table, once: numbers hold no secret."""
    table = pq.ParquetFile(path).read()
    parts = [str(table.schema)]
    for column in table.columns:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_nested(kind):
            parts.append(str(column.to_pylist()))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            parts += [text_of(value) for value in column.unique().to_pylist() if value is not None]
    return "\n".join(parts)
