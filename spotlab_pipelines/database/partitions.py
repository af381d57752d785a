"""The monthly partitions of experiment_logs: which months, and their tables. There is no default partition.

A default partition would take rows of months that nobody prepared and then forbid to create those months' tables; a
missing month is an error instead, and whoever writes calls `ensure_partitions` first.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import sqlalchemy as sa

from spotlab_pipelines.database.tables import ExperimentLog
from spotlab_pipelines.errors import InvalidInput

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


def ensure_partitions(engine: sa.Engine, around: datetime) -> list[str]:
    """Create the log's partitions of the month before, of and after `around`, where missing; return the new ones.

    Any number of processes may call it at once. Usually nothing is missing and it costs one query.
    """
    months = [month_start(around, offset) for offset in (-1, 0, 1)]
    with engine.connect() as connection:
        if not _missing(connection, months):
            return []
    with engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('spotlab/partitions', 0))"))
        missing = _missing(connection, months)
        for month in missing:
            name = partition_name(month)
            # ATTACH, not PARTITION OF: it lets reads and writes of the other months go on.
            connection.execute(sa.text(f"create table {name} (like {PARENT} including defaults including constraints)"))
            connection.execute(
                sa.text(
                    f"alter table {PARENT} attach partition {name} "
                    f"for values from ('{month.isoformat()}') to ('{month_start(month, 1).isoformat()}')"
                )
            )
        return [partition_name(month) for month in missing]


def _missing(connection: sa.Connection, months: list[datetime]) -> list[datetime]:
    attached = set(
        connection.scalars(
            sa.text("select inhrelid::regclass::text from pg_inherits where inhparent = cast(:parent as regclass)"),
            {"parent": PARENT},
        )
    )
    return [month for month in months if partition_name(month) not in attached]
