"""The clock of a trace: times that are numbers, that name a zone, or that name none, as its statement says. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd

from spotlab_pipelines.errors import InvalidInput

if TYPE_CHECKING:
    from spotlab_pipelines.market.trace_statement import TraceStatement

UNIT = re.compile(r"(?P<number>\d+(\.\d+)?)?(?P<unit>ns|us|ms|s|min|h)")
UNIT_US = {"ns": 0.001, "us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7, "h": 3.6e9}
NAMED_UTC = r" ?(?:UTC|GMT)$"
WITH_ZONE = r"(?:Z|[T ]\d{2}(?::?\d{2}){0,2}(?:\.\d+)? ?[+-]\d{2}(?::?\d{2})?)$"
FARTHEST_US = 1e17
"""Three thousand years: what lies beyond is as wrong as that, whatever the unit should have been."""
OPTIONS = {"time_unit": "--time-unit", "start": "--start"}


def times_of(column: pd.Series, statement: TraceStatement) -> pd.Series:
    """The times in UTC, NaT where one cannot be read.

    Raises:
        InvalidInput: a unit or a zone is needed and not stated, or stated and has no meaning there.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        _without(statement, "time_unit", "start")
        return column.dt.tz_convert("UTC")
    if pd.api.types.is_datetime64_any_dtype(column):
        _without(statement, "time_unit", "start")
        return _localized(column, statement)
    if statement.time_unit is not None or statement.start is not None:
        return _counted(column, statement)
    told = column.dropna()
    numbers = told[pd.to_numeric(told, errors="coerce").notna()]
    # Most of them: with the unit told, what is no number among them is named as a bad row.
    if 2 * len(numbers) > len(told):
        raise InvalidInput(
            f"Expected the unit of the times in {statement.time!r} to be told; they are numbers, {numbers.iloc[0]!r}.",
            remedy="Say --time-unit, such as s or ms, and with --start from when they count unless it is 1970.",
        )
    # "now" and "today" are times to pandas.
    column = column.where(column.str.match(r"\d", na=False)).str.replace(NAMED_UTC, "Z", regex=True)
    zoned = column.str.contains(WITH_ZONE, regex=True, na=False)
    known = pd.to_datetime(column.where(zoned), utc=True, format="ISO8601", errors="coerce")
    plain = pd.to_datetime(column.mask(zoned), format="ISO8601", errors="coerce")
    return known.fillna(_localized(plain, statement))


def lacking(statement: TraceStatement) -> str:
    """What is wrong with rows whose time is NaT."""
    if statement.time_zone is None:
        return "have none"
    return f"have none, or one that the clocks of {statement.time_zone} show twice or never"


def _counted(column: pd.Series, statement: TraceStatement) -> pd.Series:
    match = UNIT.fullmatch(statement.time_unit or "")
    if match is None or float(match["number"] or 1) == 0:
        raise InvalidInput(
            f"Expected a unit of time such as s, ms or 34s; got {statement.time_unit!r}.", remedy="Say --time-unit."
        )
    if statement.start is not None and statement.start.utcoffset() is None:
        raise InvalidInput(
            f"Expected a start with a time zone; got {statement.start.isoformat()}.",
            remedy="Add it to --start, as in 2023-04-22T00:00Z.",
        )
    start = pd.Timestamp(statement.start or datetime.fromtimestamp(0, UTC)).tz_convert("UTC")
    unit_us = float(match["number"] or 1) * UNIT_US[match["unit"]]
    # As whole microseconds, where what is no number stays missing.
    us = (pd.to_numeric(column, errors="coerce").astype("float64") * unit_us).round()
    us = us.where(us.abs() < float("inf")).clip(-FARTHEST_US, FARTHEST_US)
    return start + pd.to_timedelta(us.astype("Int64"), unit="us").astype("timedelta64[us]")


def _localized(column: pd.Series, statement: TraceStatement) -> pd.Series:
    # What is no time is none, whatever the zone.
    if column.isna().all():
        return column.dt.tz_localize("UTC")
    if statement.time_zone is None:
        raise InvalidInput(
            f"The times in {statement.time!r} name no time zone, as {str(column.dropna().iloc[0])!r}.",
            remedy="Say --time-zone, such as UTC or America/Los_Angeles.",
        )
    try:
        zone = ZoneInfo(statement.time_zone)
    # A folder of zones, such as America, is an OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            f"Expected a time zone such as UTC; got {statement.time_zone!r}.", remedy="Correct --time-zone."
        ) from error
    # An hour that a clock shows twice, or never, is not a time.
    return column.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")


def _without(statement: TraceStatement, *names: str) -> None:
    for name in names:
        if getattr(statement, name) is not None:
            raise InvalidInput(
                f"{statement.time!r} holds times, not numbers; {OPTIONS[name]} has no meaning there.",
                remedy="Leave it out.",
            )
