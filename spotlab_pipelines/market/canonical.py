"""The identity of a snapshot: one hash over the content of its frames, whatever their row order or file bytes.

Pure: no I/O. A frame's content is its column names, dtypes and values. Columns are taken in the order of their names
and rows in the order of their values, so equal content gives equal bytes; NaN of any bit pattern is one NaN, and
0.0 and -0.0 differ, because a replay must be identical bit for bit.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from spotlab_pipelines.errors import InvalidInput

PACKABLE = 2**62
"""Columns of fewer distinct rows than this are sorted as one column of integers."""
JSON_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY


def content_id(frames: dict[str, pd.DataFrame], metadata: dict[str, Any]) -> str:
    """Hash frames and JSON-able metadata to 64 hex digits (SHA-256).

    Raises:
        InvalidInput: a column has a dtype that has no canonical form here.
    """
    digest = hashlib.sha256(b"spotlab snapshot 1\n")
    for name in sorted(frames):
        digest.update(orjson.dumps([name, len(frames[name])]))
        _update(digest, frames[name])
    digest.update(orjson.dumps(metadata, option=JSON_OPTIONS))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, frame: pd.DataFrame) -> None:
    columns = sorted(((name, *_codes(column)) for name, column in frame.items()), key=itemgetter(0))
    if not columns:
        return
    order = row_order([codes for _, _, codes, _ in columns])
    for name, kind, codes, words in columns:
        digest.update(orjson.dumps([name, kind, words]))
        digest.update(codes[order].tobytes())


def row_order(columns: list[np.ndarray]) -> np.ndarray:
    """Rows by the first column, then the second and so on; alike rows in any order, for they give the same bytes."""
    packed, room = np.zeros(len(columns[0]), dtype=np.int64), 1
    for codes in columns if len(packed) else []:
        lowest = int(codes.min())
        span = int(codes.max()) - lowest + 1
        if room * span >= PACKABLE:
            break
        packed, room = packed * span + (codes - lowest), room * span
    order = np.argsort(packed)
    # One sort of one column, as long as it tells all rows apart.
    tied = packed[order[1:]] == packed[order[:-1]]
    return np.lexsort(columns[::-1]) if tied.any() else order


def _codes(column: pd.Series) -> tuple[str, np.ndarray, list[str] | None]:
    """A column as (kind, little-endian 8-byte integers that stand for its values, the words they index if any)."""
    dtype = column.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        return f"timestamp[{dtype.unit}, UTC]", utc_ticks(column), None
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        values = column.to_numpy(dtype="<f8", copy=True)
        values[np.isnan(values)] = np.nan
        return str(dtype), values.view("<i8"), None
    if isinstance(dtype, np.dtype) and dtype.kind in "iub":
        return str(dtype), column.to_numpy().astype("<i8"), None
    if dtype == np.dtype(object):
        texts = [None if value is None else orjson.dumps(value, option=JSON_OPTIONS).decode() for value in column]
        return "json", *text_codes(pa.array(texts, pa.large_string()))
    if isinstance(dtype, pd.StringDtype):
        return "str", *text_codes(pa.array(column.array, pa.large_string()))
    if isinstance(dtype, pd.CategoricalDtype):
        return "str", *text_codes(pa.array(column, from_pandas=True).cast(pa.large_string()))
    raise InvalidInput(f"Column {column.name!r} has dtype {dtype}, which a snapshot cannot hold.")


def utc_ticks(column: pd.Series) -> np.ndarray:
    """A tz-aware column as int64 ticks of its own unit since the epoch (the smallest int64 for a missing time)."""
    return pd.DatetimeIndex(column).asi8


def text_codes(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Texts as (ranks among their sorted distinct values, -1 for null; those values)."""
    # A column that pandas has concatenated comes in chunks, each of which would get a dictionary of its own.
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    encoded = whole.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.empty(len(words) + 1, dtype="<i8")
    ranks[order] = np.arange(len(words))
    ranks[-1] = -1
    codes = encoded.indices.fill_null(len(words)) if encoded.null_count else encoded.indices
    return ranks[codes.to_numpy(zero_copy_only=False)], [words[index] for index in order]
