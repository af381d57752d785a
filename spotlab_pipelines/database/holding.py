"""Who is still at work: names that a process holds in Postgres, and loses when it dies, however it dies.

A name is an advisory lock of a session of its own, so any machine can ask. How an evaluation ended is evaluations.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from spotlab_pipelines.database.engine import database_errors


@contextmanager
def held(engine: sa.Engine, name: str) -> Iterator[None]:
    """Hold a name while the block runs. It costs one connection of the engine's pool for as long.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    with database_errors():
        connection = engine.connect()
    try:
        with database_errors():
            connection.execute(sa.select(sa.func.pg_advisory_lock(_key(name))))
            connection.commit()
        yield
    finally:
        # Postgres takes a moment to end a session, and may be gone by now: then the lock is too.
        with suppress(SQLAlchemyError):
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_key(name))))
        connection.invalidate()
        connection.close()


def not_held(engine: sa.Engine, names: Iterable[str]) -> set[str]:
    """Those of the names that no process holds now; asking takes each for a moment, and never waits.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    with database_errors(), engine.begin() as connection:
        return {name for name in names if connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_key(name))))}


def _key(name: str) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(f"spotlab/held/{name}", 0)
