"""A quick look at whether a frame has its pandera schema's columns, dtypes and ranges.

pandera takes one to two milliseconds a column, most of it for reports that nobody needs when all is well; an
evaluation checks a hundred columns. What this module cannot vouch for (a rule it does not know, a value that does not
fit) goes to pandera, which stays the judge and writes the report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pandera.pandas import Check, Column, DataFrameSchema

TEXT = "string[pyarrow]"
"""What pandera calls the dtype that pandas calls `str`."""

RULES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "finite": lambda values, _: np.isfinite(values),
    "greater_than": lambda values, limit: values > limit["min_value"],
    "greater_than_or_equal_to": lambda values, limit: values >= limit["min_value"],
    "less_than": lambda values, limit: values < limit["max_value"],
    "less_than_or_equal_to": lambda values, limit: values <= limit["max_value"],
}


def plainly_fits(schema: DataFrameSchema, frame: pd.DataFrame) -> bool:
    """Whether `frame` certainly fits `schema`; False says nothing but that pandera has to look."""
    columns = schema.columns
    if schema.checks or schema.index is not None or schema.coerce or schema.ordered or schema.parsers:
        return False
    if not frame.columns.is_unique or (schema.strict and not set(frame.columns) <= set(columns)):
        return False
    if schema.unique and frame.duplicated(list(schema.unique)).any():
        return False
    found = dict(frame.items())
    return all(
        _column_fits(column, found[name]) if name in found else not column.required for name, column in columns.items()
    )


def _column_fits(column: Column, values: pd.Series) -> bool:
    dtype = str(values.dtype)
    if column.regex or column.parsers or str(column.dtype) != (TEXT if dtype == "str" else dtype):
        return False
    # Arrays, because a comparison of Series takes several times as long.
    known = values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array
    unknown = pd.isna(known)
    if unknown.any():
        if not column.nullable:
            return False
        known = known[~unknown]
    if column.unique and not pd.Index(known).is_unique:
        return False
    return all(_check_holds(check, known) for check in column.checks)


def _check_holds(check: Check, values: Any) -> bool:
    name, limits = str(check.name), check.statistics or {}
    if name in RULES:
        return bool(np.all(RULES[name](values, limits)))
    if name == "in_range" and limits["include_min"] and limits["include_max"]:
        return bool(((values >= limits["min_value"]) & (values <= limits["max_value"])).all())
    if name == "isin":
        return set(pd.unique(values)) <= set(limits["allowed_values"])
    if name == "str_length" and limits == {"min_value": 1, "max_value": None, "exact_value": None}:
        return not (values == "").any()
    if name == "str_matches":
        return bool(pd.Series(values).str.match(limits["pattern"]).all())
    return False
