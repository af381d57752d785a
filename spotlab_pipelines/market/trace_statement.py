"""What the columns of a trace mean, as whoever imports it states it, and the observations that follow. Pure.

Sources differ in polarity, clock and names: nothing of it is guessed. What a statement does not cover is an error that
names it, and a row that cannot be read refuses the whole trace. Reading files is trace_files.py's, storing traces.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from spotlab_pipelines.errors import InvalidInput, SourceMalformed
from spotlab_pipelines.market.frames import (
    OBSERVATION_COLUMNS,
    OBSERVATION_KINDS,
    PRICING_OS,
    check_observations,
    text,
)
from spotlab_pipelines.market.trace_times import lacking, times_of

ROW = "#"
"""Stands for a column: the number of the row, from 0."""
EC2_BEGAN = pd.Timestamp("2006-08-01", tz="UTC")
SHOWN = 5
SUFFIX = " (Amazon VPC)"
"""A product with it is the same pool; it is never stored."""
PRODUCT = f"(?:{'|'.join(map(re.escape, PRICING_OS))})(?:{re.escape(SUFFIX)})?"
SHAPES = {
    "region": (re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]"), "a region such as us-east-1"),
    "az_id": (re.compile(r"[a-z0-9-]+"), "a zone such as use1-az1"),
    "instance_type": (re.compile(r"[a-z0-9-]+\.[a-z0-9-]+"), "an instance type such as m5.large"),
    "product": (re.compile(PRODUCT), f"one of the products {', '.join(PRICING_OS)}"),
}
OPTIONS = {"region": "--region", "az_id": "--zone", "instance_type": "--type", "product": "--product"}
"""What tells a part of the pool's key for all rows; with -column, which column does."""
NOTHING_STORED = "Nothing was stored. Mend the file, or state with --ignore-when that such rows say nothing."
OTHER_CLOCK = "Nothing was stored. Mend the file, or correct --time-unit, --start or --time-zone."


@dataclass(frozen=True)
class Told:
    """Where a part of the pool's key is told: by a column, or by one value for all rows."""

    column: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class TraceStatement:
    """What the columns of a trace mean.

    Attributes:
        time: the column of times; ROW for the row's number.
        region, zone, instance_type, product: the pool. A trace's own names of zones do, as long as they are the same
            throughout: a trace is kept apart from live pools.
        available, failed, ignored: (column, value) pairs: a row that holds one says that the pool gave or kept
            capacity, that it did not, or nothing. All of one column, and together all of its values.
        kind: what was observed, unless `kinds` says otherwise for a value of that column.
        time_unit: of times that are numbers, such as ms or 34s; they count from `start`, or from 1970 without it.
        time_zone: of times that name none.
    """

    time: str
    region: Told
    zone: Told
    instance_type: Told
    product: Told
    available: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...] = ()
    kind: str = "probe"
    kinds: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    time_zone: str | None = None
    start: datetime | None = None


def observations_from(rows: pd.DataFrame, statement: TraceStatement, *, name: str, now: datetime) -> pd.DataFrame:
    """What the rows of a trace say of their pools.

    Args:
        rows: as trace_files.py reads them: texts, missing where empty, or times.
        name: the trace's.
        now: nothing was observed after it.

    Returns:
        Pool observations frame, sorted; one row for each of the trace's that says something.

    Raises:
        InvalidInput: the statement is incomplete, contradicts itself, or does not cover what a column holds.
        SourceMalformed: rows without a time, a pool or an outcome, the first of them named.
    """
    check_statement(statement)
    verdict, kinds = _verdicts(rows, statement)
    says = (verdict != "").to_numpy()
    rows, verdict = rows[says], verdict[says]
    at = times_of(column_of(rows, statement.time), statement)
    _refuse(rows, at.isna(), statement.time, "a time such as 2022-10-26T22:05:00Z", lacking(statement))
    future = at > pd.Timestamp(now) + timedelta(days=1)
    _refuse(rows, at < EC2_BEGAN, statement.time, "a time", "lie before EC2 was there", remedy=OTHER_CLOCK)
    _refuse(rows, future, statement.time, "a time of the past", "lie in the future", remedy=OTHER_CLOCK)
    pool = {part: _part(rows, part, told) for part, told in _parts(statement).items()}
    frame = pd.DataFrame(
        {
            **pool,
            "observed_at": at.dt.as_unit("us").array,
            "available": (verdict == "available").to_numpy(dtype=bool),
            "kind": kinds[says].array,
            "source": text([f"trace {name}"]).repeat(len(rows)),
        }
    )
    if frame.empty:
        raise SourceMalformed("Expected rows that say something of a pool; the trace has none.")
    frame = frame.sort_values(list(OBSERVATION_COLUMNS), ignore_index=True)
    return check_observations(frame, f"Trace {name}")


def check_statement(statement: TraceStatement) -> None:
    """Refuse a statement that is incomplete or contradicts itself, whatever the trace.

    Raises:
        InvalidInput: what is wrong with it.
    """
    values = [value for pairs in _stated(statement).values() for _, value in pairs]
    columns = {column for pairs in _stated(statement).values() for column, _ in pairs}
    if not statement.available or not statement.failed or len(columns) != 1:
        raise InvalidInput(
            "Expected which values of one column say that a pool was available, and which that it failed; got "
            f"{len(statement.available)} and {len(statement.failed)}, of the columns {sorted(columns) or 'none'}.",
            remedy="State both: polarity differs by source and is never guessed.",
        )
    twice = sorted({repr(value) for value in values if values.count(value) > 1})
    if twice:
        raise InvalidInput(
            f"Expected each value of {columns.pop()} to say one thing; {', '.join(twice)} is stated more than once.",
            remedy="Name it in one of --available-when, --failed-when and --ignore-when.",
        )
    odd = {statement.kind, *statement.kinds.values()} - {*OBSERVATION_KINDS}
    strange = set(statement.kinds) - set(values)
    if odd or strange:
        raise InvalidInput(
            f"Expected a kind among {', '.join(OBSERVATION_KINDS)} for stated values; got "
            f"{', '.join(sorted(odd | strange))}.",
            remedy="Correct --kind.",
        )
    for part, told in _parts(statement).items():
        pattern, expected = SHAPES[part]
        if (told.column is None) == (told.value is None):
            raise InvalidInput(
                f"Expected {part} to be told by a column or by one value; got "
                f"{'neither' if told.column is None else 'both'}.",
                remedy=f"Give either {OPTIONS[part]} or {OPTIONS[part]}-column.",
            )
        if told.value is not None and not pattern.fullmatch(told.value):
            raise InvalidInput(f"Expected {expected}; got {told.value!r}.", remedy=f"Correct {OPTIONS[part]}.")


def column_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column by its name, of rows that read_rows has numbered from 1, all or some.

    Raises:
        InvalidInput: there is none.
    """
    if name == ROW:
        return pd.Series((rows.index.to_numpy() - 1).astype(str), index=rows.index, dtype="str")
    if name not in rows:
        raise InvalidInput(
            f"Expected a column {name!r}; the trace has {', '.join(map(repr, rows.columns))}.",
            remedy="Name one of these; those of a CSV file without a line of names are told by --columns.",
        )
    return rows[name]


def _verdicts(rows: pd.DataFrame, statement: TraceStatement) -> tuple[pd.Series, pd.Series]:
    """Of each row available, failed or "" (it says nothing), and what kind of observation it is."""
    meaning = {value: verdict for verdict, pairs in _stated(statement).items() for _, value in pairs}
    column = statement.available[0][0]
    values = column_of(rows, column).astype("str").fillna("")
    unknown = values[~values.isin(list(meaning))]
    if len(unknown):
        counts = unknown.value_counts().head(SHOWN)
        told = ", ".join(
            f"{value!r} ({n} rows, first row {_number(rows, unknown == value)})" for value, n in counts.items()
        )
        raise InvalidInput(
            f"Expected to be told what every value of {column!r} means; nothing says so of {told}.",
            remedy="State it with --available-when, --failed-when or --ignore-when.",
        )
    kinds = values.map({value: statement.kinds.get(value, statement.kind) for value in meaning}).astype("str")
    return values.map(meaning), kinds


def _stated(statement: TraceStatement) -> dict[str, tuple[tuple[str, str], ...]]:
    return {"available": statement.available, "failed": statement.failed, "": statement.ignored}


def _parts(statement: TraceStatement) -> dict[str, Told]:
    """The parts of the pool's key, and where each is told."""
    return {
        "region": statement.region,
        "instance_type": statement.instance_type,
        "az_id": statement.zone,
        "product": statement.product,
    }


def _part(rows: pd.DataFrame, part: str, told: Told) -> pd.Series:
    if told.column is None:
        column = pd.Series(text([told.value]).repeat(len(rows)))
    else:
        pattern, expected = SHAPES[part]
        column = column_of(rows, told.column).astype("str")
        _refuse(rows, ~column.str.fullmatch(pattern.pattern, na=False).astype(bool), told.column, expected)
    return (column.str.removesuffix(SUFFIX) if part == "product" else column).reset_index(drop=True)


def _refuse(
    rows: pd.DataFrame,
    bad: pd.Series,
    column: str,
    expected: str,
    found: str = "have none",
    *,
    remedy: str = NOTHING_STORED,
) -> None:
    """Raise if any row is bad, naming the first ones."""
    if bad.any():
        values = column_of(rows, column)[bad].head(SHOWN)
        shown = ", ".join(f"row {row} ({_quoted(value)})" for row, value in values.items())
        raise SourceMalformed(
            f"Expected {expected} in {column!r} of every row that says something; {int(bad.sum())} {found}: {shown}.",
            remedy=remedy,
        )


def _number(rows: pd.DataFrame, which: pd.Series) -> object:
    return which.index[which.to_numpy()][0]


def _quoted(value: Any) -> str:
    return repr(str(value)) if pd.notna(value) else "nothing"
