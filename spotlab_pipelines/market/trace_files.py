"""Reading a trace's file as rows of text and times: Parquet, CSV or JSON. What they mean is trace_statement.py's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from pandas.errors import ParserWarning

from spotlab_pipelines.errors import InvalidInput, NotFound, SourceMalformed

FORMATS = ("parquet", "csv", "json", "jsonl")


def read_rows(path: Path, *, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a file, numbered from 1, by its ending.

    JSON is a list of rows, a row a line, or one object with lists of the same length, which are the columns.

    Args:
        columns: the names of a CSV file's columns, if it has no line that names them.

    Returns:
        Texts, missing where empty (a whole number without a point, booleans as true and false), or times.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it has another ending.
        SourceMalformed: it cannot be read as what its ending says.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InvalidInput(f"Expected a file that ends with {', '.join(FORMATS)}; got {path.name}.")
    if columns and ending != "csv":
        raise InvalidInput(f"Only a CSV file's columns can be named; {path.name} names its own.")
    try:
        frame = _read(path, ending, columns)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"There is no file {path}.") from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, ParserWarning, pa.ArrowException) as error:
        raise SourceMalformed(
            f"Expected {path.name} to be {ending}: {type(error).__name__}, {' '.join(str(error).split())}.",
            remedy="Nothing was stored.",
        ) from error
    if frame.empty:
        raise SourceMalformed(f"Expected rows in {path.name}; it has none.", remedy="Nothing was stored.")
    plain = pd.DataFrame({str(name): _plain(frame[name]) for name in frame.columns})
    return plain.set_index(pd.RangeIndex(1, len(plain) + 1))


def _read(path: Path, ending: str, columns: Sequence[str]) -> pd.DataFrame:
    if ending == "parquet":
        frame = pd.read_parquet(path)
        # What pandas has kept as the index of a frame are columns like others.
        return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    if ending == "csv":
        named: dict[str, Any] = {"header": None, "names": list(columns)} if columns else {}
        with warnings.catch_warnings():
            # Rows that are longer than their line of names would be cut.
            warnings.simplefilter("error", ParserWarning)
            if not columns:
                # pandas would name the second one otherwise.
                first = pd.read_csv(path, dtype="str", keep_default_na=False, header=None, nrows=1).iloc[0]
                twice = sorted(set(first[first.duplicated() & (first != "")]))
                if twice:
                    raise ValueError(f"columns of different names; {', '.join(map(repr, twice))} is there twice")
            frame = pd.read_csv(
                path, dtype="str", keep_default_na=False, index_col=False, skip_blank_lines=False, **named
            )
        # An empty line is a row of which nothing is known, but at the end.
        filled = np.flatnonzero((frame.notna() & (frame != "")).any(axis=1))
        return frame.iloc[: filled[-1] + 1 if len(filled) else 0]
    data = path.read_bytes()
    if ending == "jsonl":
        return pd.DataFrame([orjson.loads(line) for line in data.splitlines() if line.strip()])
    document = orjson.loads(data)
    if isinstance(document, dict):
        lists = {name: value for name, value in document.items() if isinstance(value, list)}
        if len({len(value) for value in lists.values()}) != 1:
            raise ValueError(f"lists of one length; got { ({name: len(value) for name, value in lists.items()}) }")
        return pd.DataFrame(lists)
    return pd.DataFrame(document)


def _plain(column: pd.Series) -> pd.Series:
    """A column as texts, or as the times that it holds."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.reset_index(drop=True)
    if pd.api.types.is_bool_dtype(column):
        column = column.map({True: "true", False: "false"})
    elif pd.api.types.is_float_dtype(column):
        # A whole number is a float where some row has none.
        values = column.to_numpy(dtype=float, na_value=np.nan)
        whole = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53)
        texts = pd.Series(values).astype(str)
        texts[whole] = pd.Series(values[whole].astype(np.int64)).astype(str).to_numpy()
        column = texts.mask(np.isnan(values))
    texts = column.reset_index(drop=True)
    missing = texts.isna()
    if not pd.api.types.is_string_dtype(texts) or pd.api.types.is_object_dtype(texts):
        # What a column of several types holds, value by value.
        texts = texts.map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))
    texts = texts.astype("str").str.strip()
    return texts.mask(missing | (texts == ""))
