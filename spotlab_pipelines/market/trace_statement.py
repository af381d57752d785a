"""What the columns of a trace mean, as whoever imports it states it, and the observations that follow. Pure.

Sources differ in polarity, clock and names: nothing of it is guessed. What a statement does not cover is an error that
names it, and a row that cannot be read refuses the whole trace. Reading files is trace_files.py's, storing traces.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, SourceMalformed
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS, OBSERVATION_KINDS, check_observations, text

ROW = "#"
"""Stands for a column: the number of the row, from 0."""
UNIT = re.compile(r"(?P<number>\d+(\.\d+)?)?(?P<unit>ns|us|ms|s|min|h)")
UNIT_US = {"ns": 0.001, "us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7, "h": 3.6e9}
WITH_ZONE = r"(?:Z|[+-]\d{2}:?\d{2}|UTC|GMT)$"
EC2_BEGAN = pd.Timestamp("2006-08-01", tz="UTC")
SHOWN = 5
SHAPES = {
    "region": (re.compile(r"[a-z]{2}(-[a-z]+)+-\d"), "a region such as us-east-1"),
    "az_id": (re.compile(r"[a-z0-9-]+"), "a zone such as use1-az1"),
    "instance_type": (re.compile(r"[a-z0-9-]+\.[a-z0-9-]+"), "an instance type such as m5.large"),
    "product": (re.compile(r"\S.*"), "a product such as Linux/UNIX"),
}


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
    verdict, kinds = _verdicts(rows, statement)
    says = (verdict != "").to_numpy()
    rows, verdict = rows[says], verdict[says]
    at = _times(rows, statement)
    _refuse(rows, at.isna() | (at < EC2_BEGAN) | (at > pd.Timestamp(now) + timedelta(days=1)), statement.time, "a time")
    parts = {"region": statement.region, "instance_type": statement.instance_type}
    parts |= {"az_id": statement.zone, "product": statement.product}
    pool = {part: _part(rows, part, told) for part, told in parts.items()}
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


def column_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column by its name.

    Raises:
        InvalidInput: there is none.
    """
    if name == ROW:
        return pd.Series(np.arange(len(rows)).astype(str), index=rows.index, dtype="str")
    if name not in rows:
        raise InvalidInput(f"Expected a column {name!r}; the trace has {', '.join(map(repr, rows.columns))}.")
    return rows[name]


def _verdicts(rows: pd.DataFrame, statement: TraceStatement) -> tuple[pd.Series, pd.Series]:
    """Of each row available, failed or "" (it says nothing), and what kind of observation it is."""
    stated = {"available": statement.available, "failed": statement.failed, "": statement.ignored}
    columns = {column for pairs in stated.values() for column, _ in pairs}
    if not statement.available or not statement.failed or len(columns) != 1:
        raise InvalidInput(
            "Expected which values of one column say that a pool was available, and which that it failed; got "
            f"{len(statement.available)} and {len(statement.failed)}, of the columns {sorted(columns) or 'none'}.",
            remedy="State both: polarity differs by source and is never guessed.",
        )
    meaning = {value: verdict for verdict, pairs in stated.items() for _, value in pairs}
    if len(meaning) < sum(map(len, stated.values())):
        values = [value for pairs in stated.values() for _, value in pairs]
        twice = ", ".join(sorted({repr(value) for value in values if values.count(value) > 1}))
        raise InvalidInput(
            f"Expected each value of {next(iter(columns))} to say one thing; {twice} is stated more than once.",
            remedy="Name it in one of --available-when, --failed-when and --ignore-when.",
        )
    column = columns.pop()
    values = column_of(rows, column).astype("str").fillna("")
    unknown = values[~values.isin(list(meaning))]
    if len(unknown):
        counts = unknown.value_counts().head(SHOWN)
        told = ", ".join(
            f"{value!r} ({n} rows, first row {_number(rows, unknown == value)})" for value, n in counts.items()
        )
        raise InvalidInput(
            f"Expected to be told what every value of {column!r} means; nothing says so of {told}.",
            remedy="State it as available, failed or ignored.",
        )
    odd = {statement.kind, *statement.kinds.values()} - {*OBSERVATION_KINDS}
    strange = set(statement.kinds) - set(meaning)
    if odd or strange:
        raise InvalidInput(
            f"Expected a kind among {', '.join(OBSERVATION_KINDS)} for stated values; got "
            f"{', '.join(sorted(odd | strange))}."
        )
    kinds = values.map({value: statement.kinds.get(value, statement.kind) for value in meaning}).astype("str")
    return values.map(meaning), kinds


def _times(rows: pd.DataFrame, statement: TraceStatement) -> pd.Series:
    """The times in UTC, NaT where one cannot be read."""
    column = column_of(rows, statement.time)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        _without(statement, "time_unit", "start")
        return column.dt.tz_convert("UTC")
    if pd.api.types.is_datetime64_any_dtype(column):
        _without(statement, "time_unit", "start")
        return _localized(column, statement)
    if statement.time_unit is not None or statement.start is not None:
        return _counted(column, statement)
    if len(column) and bool(pd.to_numeric(column, errors="coerce").notna().all()):
        raise InvalidInput(
            f"Expected the unit of the times in {statement.time!r} to be told; they are numbers, {column.iloc[0]!r}.",
            remedy="Say the unit, as s or ms, and from when they count unless it is 1970.",
        )
    zoned = column.str.contains(WITH_ZONE, regex=True, na=False)
    told = pd.to_datetime(column.where(zoned), utc=True, format="ISO8601", errors="coerce")
    if bool(zoned[column.notna()].all()):
        return told
    plain = pd.to_datetime(column.mask(zoned), format="ISO8601", errors="coerce")
    return told.fillna(_localized(plain, statement))


def _counted(column: pd.Series, statement: TraceStatement) -> pd.Series:
    match = UNIT.fullmatch(statement.time_unit or "")
    if match is None:
        raise InvalidInput(f"Expected a unit of time such as s, ms or 34s; got {statement.time_unit!r}.")
    if statement.start is not None and statement.start.utcoffset() is None:
        raise InvalidInput(f"Expected a start with a time zone; got {statement.start.isoformat()}.")
    start = pd.Timestamp(statement.start or datetime.fromtimestamp(0, UTC)).tz_convert("UTC")
    unit_us = float(match["number"] or 1) * UNIT_US[match["unit"]]
    # As whole microseconds, where what is no number or beyond the calendar stays missing.
    us = (pd.to_numeric(column, errors="coerce").astype("float64") * unit_us).round()
    us = us.where(us.abs() < 1e16)
    return start + pd.to_timedelta(us.astype("Int64"), unit="us").astype("timedelta64[us]")


def _localized(column: pd.Series, statement: TraceStatement) -> pd.Series:
    if statement.time_zone is None:
        raise InvalidInput(
            f"The times in {statement.time!r} name no time zone, as {column.dropna().astype(str).head(1).tolist()}.",
            remedy="Say the zone, such as UTC or America/Los_Angeles.",
        )
    try:
        zone = ZoneInfo(statement.time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidInput(f"Expected a time zone such as UTC; got {statement.time_zone!r}.") from error
    # An hour that a clock shows twice, or never, is not a time.
    return column.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")


def _without(statement: TraceStatement, *names: str) -> None:
    for name in names:
        if getattr(statement, name) is not None:
            raise InvalidInput(f"{statement.time!r} holds times, not numbers; {name} has no meaning there.")


def _part(rows: pd.DataFrame, part: str, told: Told) -> pd.Series:
    pattern, expected = SHAPES[part]
    if (told.column is None) == (told.value is None):
        raise InvalidInput(f"Expected {part} to be told by a column or by one value, and by one of them only.")
    if told.column is None:
        if not pattern.fullmatch(told.value or ""):
            raise InvalidInput(f"Expected {expected}, got {told.value!r}.")
        return pd.Series(text([told.value]).repeat(len(rows)))
    column = column_of(rows, told.column).astype("str")
    _refuse(rows, ~column.str.fullmatch(pattern.pattern, na=False).astype(bool), told.column, expected)
    return column.reset_index(drop=True)


def _refuse(rows: pd.DataFrame, bad: pd.Series, column: str, expected: str) -> None:
    """Raise if any row is bad, naming the first ones."""
    if bad.any():
        values = column_of(rows, column)[bad].head(SHOWN)
        shown = ", ".join(f"row {row} ({_quoted(value)})" for row, value in values.items())
        raise SourceMalformed(
            f"Expected {expected} in {column!r} of every row that says something; {int(bad.sum())} have none: {shown}.",
            remedy="Nothing was stored. Mend the file, or state that such rows are ignored.",
        )


def _number(rows: pd.DataFrame, which: pd.Series) -> object:
    return which.index[which.to_numpy()][0]


def _quoted(value: Any) -> str:
    return repr(str(value)) if pd.notna(value) else "nothing"
