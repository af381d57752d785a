"""Connections to Postgres: one pooled engine per process, URL and role. Tables are tables.py's, DDL is migrations/'.

Whoever works for all accounts connects as the role `pipeline`, the Lab API as `api`, behind row-level security, and
what checks passwords as `login`; only migrations, maintenance, the administration of users and what says which models
are served are the tables' owner.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from spotlab_pipelines.errors import PermanentError, SettingsError, StoreUnavailable
from spotlab_pipelines.local import store_urls
from spotlab_pipelines.settings import Settings

CONNECT_TIMEOUT_S = 10
POOL_TIMEOUT_S = 30
RECYCLE_AFTER_S = 600
LOGICAL_NAMES = ("spotlab", "dagster", "mlflow")

Role = Literal["owner", "pipeline", "api", "login"]
FOREIGN: tuple[Role, ...] = ("api", "login")
"""The roles whose connections serve one user after another."""

FORGET = (
    "select pg_advisory_unlock_all(); close all; unlisten *; set session authorization default; reset all; reset role; "
    "discard temp"
)
"""What ends everything that a session keeps beyond its transactions, but for what libpq said when it connected."""

_engines: dict[tuple[str, Role], sa.Engine] = {}
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


def connect(settings: Settings, *, role: Role = "pipeline") -> sa.Engine:
    """The pooled engine (psycopg 3) of the domain database; the same one for every caller of a role in this process.

    It connects when it is used. A child that is forked gets engines of its own: connections cannot be shared. Errors
    of SQLAlchemy never quote parameters, which may hold an external id.

    Args:
        role: as whom to work; `owner` is the user of the URL, the others are roles that this user is a member of.
    """
    return engine_for(database_url(settings), pool_size=settings.database_pool_size, role=role)


def acting_as(engine: sa.Engine, token: SecretStr) -> sa.Engine:
    """An engine, of the same pool, whose every transaction is that of a login's user; with it any service acts so.

    Row-level security shows what this user may see. When a transaction ends, its connection is nobody's again. A token
    that is unknown or has expired is nobody's, and nobody sees nothing.

    Args:
        engine: an engine of the role `api`. A transaction of any other role raises PermanentError.
        token: from `accounts.logins.open_login`.
    """
    return engine.execution_options(login=token)


@contextmanager
def acting_for(engine: sa.Engine, token: SecretStr) -> Iterator[sa.Connection]:
    """One transaction of `acting_as`."""
    with acting_as(engine, token).begin() as connection:
        yield connection


def _carry_login(connection: sa.Connection) -> None:
    token: SecretStr | None = connection.get_execution_options().get("login")
    if token is None:
        return
    carried = sa.select(sa.func.set_config("app.login", token.get_secret_value(), True), sa.text("current_user::text"))
    _, role = connection.execute(carried).one()
    if role != "spotlab_api":
        raise PermanentError(
            f"Expected the role spotlab_api to act for a user, got {role}, from whom nothing is hidden.",
            remedy="Connect with the role `api`.",
        )


def _forget_session(driver: Any, _record: object, state: Any) -> None:
    """A connection goes back to the pool as it came: what one user set, locked or made in it reaches no other."""
    if state.terminate_only:
        return
    driver.rollback()
    before, driver.autocommit = driver.autocommit, True
    driver.execute(FORGET)
    driver.autocommit = before


def engine_for(
    url: str, *, pool_size: int, max_overflow: int | None = None, role: Role = "owner", **options: Any
) -> sa.Engine:
    """The process's engine for a URL; `options` of SQLAlchemy's create_engine count when it is first asked for."""
    with _lock:
        if not _engines:
            _forget_after_fork()
        if (url, role) not in _engines:
            # pg_temp last: else it comes first, and a temporary table stands before the table of its name.
            set_role = "" if role == "owner" else f" -c role=spotlab_{role} -c search_path=public,pg_temp"
            try:
                _engines[url, role] = sa.create_engine(
                    url,
                    pool_size=pool_size,
                    max_overflow=pool_size if max_overflow is None else max_overflow,
                    pool_timeout=POOL_TIMEOUT_S,
                    pool_recycle=RECYCLE_AFTER_S,
                    pool_pre_ping=True,
                    hide_parameters=True,
                    json_deserializer=orjson.loads,
                    connect_args={
                        "connect_timeout": CONNECT_TIMEOUT_S,
                        "application_name": "spotlab",
                        # A connection that only holds a name is idle for as long: nothing on the way may forget it.
                        "keepalives_idle": 60,
                        "options": f"-c timezone=UTC{set_role}",
                    },
                    **options,
                )
                event.listen(_engines[url, role], "begin", _carry_login)
                if role in FOREIGN:
                    event.listen(_engines[url, role], "reset", _forget_session)
            except ArgumentError:
                raise SettingsError(
                    "SPOTLAB_DATABASE_URL cannot be read as a URL of Postgres.",
                    remedy="Expected postgresql://user:password@host:5432/spotlab.",
                ) from None
        return _engines[url, role]


def disconnect(engine: sa.Engine) -> None:
    """Close the connections to an engine's database, whatever their role, and forget them: before it is dropped."""
    with _lock:
        urls = {url for (url, _), known in _engines.items() if known is engine}
        gone = [_engines.pop(key) for key in list(_engines) if key[0] in urls]
    for each in (*gone, engine):
        each.dispose()


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn "Postgres does not answer" into StoreUnavailable; every other database error passes as it is."""
    try:
        yield
    except (InterfaceError, PoolTimeout, OperationalError) as error:
        if not _is_lost(error):
            raise
        raise _unavailable(error) from error


def database_lost(error: BaseException | None) -> StoreUnavailable | None:
    """The error to raise if "Postgres does not answer" is what an error of a library stems from, else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StoreUnavailable):
            return error
        if _is_lost(error):
            return _unavailable(error)
        error = error.__cause__ or error.__context__
    return None


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, OperationalError):
        return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None
    return isinstance(error, InterfaceError | PoolTimeout)


def _unavailable(error: BaseException) -> StoreUnavailable:
    """The error of a server that does not let us work; it gives a refused connection no SQLSTATE, only words."""
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
