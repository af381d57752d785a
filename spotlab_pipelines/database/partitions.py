"""The monthly partitions of experiment_logs: which months, and their tables. There is no default partition.

A default partition would take rows of months that nobody prepared and then forbid to create those months' tables; a
missing month is an error instead, and whoever writes calls `ensure_partitions` first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from spotlab_pipelines.database.engine import connect, database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import ExperimentLog
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.settings import Settings

PARENT = ExperimentLog.__tablename__
PARTITION_NAME = re.compile(rf"{PARENT}_\d{{4}}_\d{{2}}")


def month_start(moment: datetime, offset: int = 0) -> datetime:
    """Midnight UTC of the first day of the month `offset` months after that of `moment`."""
    if moment.utcoffset() is None:
        raise InvalidInput(f"A time must carry a zone; got {moment!r}.")
    moment = moment.astimezone(UTC)
    months = moment.year * 12 + moment.month - 1 + offset
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def partition_name(month: datetime) -> str:
    """The table of the rows whose window starts in this month."""
    return f"{PARENT}_{month:%Y_%m}"


def is_partition(table: str | None) -> bool:
    """Whether a table is a partition of the log: those are not in tables.py, and Alembic leaves them alone."""
    return table is not None and PARTITION_NAME.fullmatch(table) is not None


def ensure_partitions(engine: sa.Engine, around: datetime, *, ahead: int = 1) -> list[str]:
    """Create the log's partitions from the month before `around` to `ahead` months after it; return the new ones.

    Any number of processes may call it at once, as the owner or as the pipeline: a function of the owner's makes them.
    Usually nothing is missing and it costs one query.
    """
    with database_errors():
        with engine.connect() as connection:
            missing = missing_months(connection, around, ahead=ahead)
        if not missing:
            return []
        with engine.begin() as connection:
            return [partition_name(month) for month in missing if connection.scalar(sa.func.make_log_partition(month))]


def missing_months(connection: sa.Connection, around: datetime, *, ahead: int = 1) -> list[datetime]:
    """The months for which `ensure_partitions` would create a partition."""
    existing = existing_months(connection)
    months = (month_start(around, offset) for offset in range(-1, ahead + 1))
    return [month for month in months if month not in existing]


@dataclass(frozen=True)
class PartitionReport:
    """What maintenance did: the partitions it made and dropped, by name, and how many there are now."""

    made: list[str]
    dropped: list[str]
    rows: int


def maintain_partitions(settings: Settings, now: datetime) -> PartitionReport:
    """Make the log's partitions `log_months_ahead` months ahead, and drop those beyond `log_retention_months`."""
    owner = connect(settings, role="owner")
    made = ensure_partitions(owner, now, ahead=settings.log_months_ahead)
    dropped = drop_partitions(owner, before=month_start(now, -settings.log_retention_months))
    with database_errors(), owner.connect() as connection:
        return PartitionReport(made, dropped, len(existing_months(connection)))


def drop_partitions(engine: sa.Engine, *, before: datetime) -> list[str]:
    """Drop the log's partitions whose month ended by `before`, rows and all; return their names, oldest first.

    Args:
        engine: an engine of the owner.
    """
    with database_errors(), engine.begin() as connection:
        lock(connection, "partitions")
        old = [
            partition_name(month) for month in sorted(existing_months(connection)) if month_start(month, 1) <= before
        ]
        for name in old:
            connection.execute(sa.text(f"drop table {name}"))
    return old


def existing_months(connection: sa.Connection) -> set[datetime]:
    """The months that have a partition."""
    names = connection.scalars(
        sa.text("select inhrelid::regclass::text from pg_inherits where inhparent = cast(:parent as regclass)"),
        {"parent": PARENT},
    )
    return {datetime.strptime(name, f"{PARENT}_%Y_%m").replace(tzinfo=UTC) for name in names}
