"""Connections to Postgres: one pooled engine per process and URL. Tables are tables.py's, DDL is migrations/'."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from spotlab_pipelines.errors import SettingsError, StoreUnavailable
from spotlab_pipelines.local import store_urls
from spotlab_pipelines.settings import Settings

CONNECT_TIMEOUT_S = 10
POOL_TIMEOUT_S = 30
RECYCLE_AFTER_S = 600
LOGICAL_NAMES = ("spotlab", "dagster", "mlflow")

_engines: dict[str, sa.Engine] = {}
_lock = threading.Lock()


def database_url(settings: Settings, name: str = "spotlab", *, driver: str | None = "psycopg") -> str:
    """The URL, password included, of one of our databases on the one server.

    Args:
        name: `spotlab` (the domain database, which the configured URL may call otherwise), `dagster` or `mlflow`.
        driver: the part after `postgresql+`: psycopg, or psycopg2 for Dagster; None for a plain `postgresql://`.

    Raises:
        LocalStackError: the embedded Postgres cannot start.
        SettingsError: the configured URL is not one of Postgres.
    """
    urls = store_urls(settings)
    match name:
        case "spotlab":
            url = urls.postgres
        case "dagster":
            url = urls.database(settings.dagster_database)
        case "mlflow":
            url = urls.database(settings.mlflow_database)
        case _:
            raise ValueError(f"Unknown database {name!r}; expected one of {', '.join(LOGICAL_NAMES)}.")
    scheme = "postgresql" if driver is None else f"postgresql+{driver}"
    return scheme + url.get_secret_value().removeprefix("postgresql")


def connect(settings: Settings) -> sa.Engine:
    """The pooled engine (psycopg 3) of the domain database; the same one for every caller in this process.

    It connects when it is used. A child that is forked gets engines of its own: connections cannot be shared. Errors
    of SQLAlchemy never quote parameters, which may hold an external id.
    """
    return engine_for(database_url(settings), pool_size=settings.database_pool_size)


def engine_for(url: str, *, pool_size: int, max_overflow: int | None = None, **options: Any) -> sa.Engine:
    """The process's engine for a URL; `options` of SQLAlchemy's create_engine count when it is first asked for."""
    with _lock:
        if not _engines:
            _forget_after_fork()
        if url not in _engines:
            try:
                _engines[url] = sa.create_engine(
                    url,
                    pool_size=pool_size,
                    max_overflow=pool_size if max_overflow is None else max_overflow,
                    pool_timeout=POOL_TIMEOUT_S,
                    pool_recycle=RECYCLE_AFTER_S,
                    pool_pre_ping=True,
                    hide_parameters=True,
                    connect_args={
                        "connect_timeout": CONNECT_TIMEOUT_S,
                        "application_name": "spotlab",
                        "options": "-c timezone=UTC",
                    },
                    **options,
                )
            except ArgumentError:
                raise SettingsError(
                    "SPOTLAB_DATABASE_URL cannot be read as a URL of Postgres.",
                    remedy="Expected postgresql://user:password@host:5432/spotlab.",
                ) from None
        return _engines[url]


def disconnect(engine: sa.Engine) -> None:
    """Close an engine's connections and forget it: for tests, and before its database is dropped."""
    with _lock:
        for url in [url for url, known in _engines.items() if known is engine]:
            del _engines[url]
    engine.dispose()


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn "Postgres does not answer" into StoreUnavailable; every other database error passes as it is."""
    try:
        yield
    except (InterfaceError, PoolTimeout) as error:
        raise _unavailable(error) from error
    except OperationalError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None:
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> StoreUnavailable:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()
    return StoreUnavailable(
        f"Postgres does not answer: {cause[0] if cause else type(error).__name__}.",
        remedy="Start it (`spotlab up`) or check SPOTLAB_DATABASE_URL; `spotlab doctor` tells more.",
    )


_fork_hook_registered = False


def _forget_after_fork() -> None:
    global _fork_hook_registered
    if not _fork_hook_registered:
        os.register_at_fork(after_in_child=_forget)
        _fork_hook_registered = True


def _forget() -> None:
    """In a forked child: drop the parent's engines without closing its connections, and its lock, perhaps held."""
    global _lock
    _lock = threading.Lock()
    for engine in _engines.values():
        engine.dispose(close=False)
    _engines.clear()
