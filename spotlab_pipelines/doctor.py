"""What `spotlab doctor` looks at: every setting and store, what is wrong with it and what to do. It changes nothing.

Stores that are down are not started: that they are down is the finding. Each check is a function that returns one
line or raises an error of our tree, whose message and remedy become the line.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spotlab_pipelines.errors import LocalStackError, PermanentError, SettingsError, SpotLabError
from spotlab_pipelines.local.stores import StoreStatus, status
from spotlab_pipelines.settings import Settings, get_settings

State = Literal["OK", "WARN", "FAIL"]
UI_PATHS = {"dagster": "/server_info", "mlflow": "/health"}
UI_WORDS = {"dagster": b"dagster", "mlflow": b"OK"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, its state, what was found, and what to do where it is not OK."""

    check: str
    state: State
    found: str
    remedy: str | None = None


class _Warning(Exception):
    """A check found something that need not be wrong."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time; after unreadable settings there is nothing else to look at."""
    try:
        settings = get_settings()
        stores = {store.name: store for store in status(settings)}
    except SpotLabError as error:
        yield _failed("settings", error)
        return
    yield _look("settings", _settings)
    if stores["postgres"].state != "configured" or stores["redis"].state != "configured":
        yield _look("data directory", lambda: _data_directory(settings))
        yield _look("programs", lambda: _programs(settings))
    database = _look("postgres", lambda: _postgres(settings, stores["postgres"]))
    yield database
    yield _look("redis", lambda: _redis(settings, stores["redis"]))
    yield _look("archive", lambda: _archive(settings))
    yield _look("mlruns", lambda: _mlruns(settings))
    yield _look("advisor", lambda: _advisor(settings))
    for name, port in (("dagster", settings.dagster_port), ("mlflow", settings.mlflow_port)):
        yield _look(f"{name} port", lambda name=name, port=port: _port(name, port))
    own = _look("aws credentials", _credentials)
    yield own
    if own.state == "OK" and database.state == "OK":
        yield from _accounts(settings)


def _look(check: str, what: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "OK", what())
    except _Warning as warning:
        return Finding(check, "WARN", str(warning), warning.remedy)
    except SpotLabError as error:
        return _failed(check, error)


def _failed(check: str, error: SpotLabError) -> Finding:
    found = str(error)
    if error.remedy is not None:
        found = found.removesuffix(error.remedy).strip()
    return Finding(check, "FAIL", f"{type(error).__name__}: {found}", error.remedy)


def _settings() -> str:
    known = {f"SPOTLAB_{name.upper()}" for name in Settings.model_fields}
    ours = {name for name in os.environ if name.upper().startswith("SPOTLAB_")}
    unknown = sorted(ours - known)
    if unknown:
        raise _Warning(f"Unknown variables: {', '.join(unknown)}.", "Correct their names; docs/settings.md lists all.")
    return f"{len(ours)} set, {len(known) - len(ours)} at their defaults"


def _data_directory(settings: Settings) -> str:
    from spotlab_pipelines.local.directories import OTHER_DIRECTORY, first_closed_directory, server_user

    directory = settings.data_dir.absolute()
    existing = _existing(directory)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise LocalStackError(f"{directory} cannot be written: see {existing}.", remedy=OTHER_DIRECTORY)
    user = server_user(directory / "postgres")
    closed = first_closed_directory(existing, user) if user is not None else None
    if closed is not None and user is not None:
        raise LocalStackError(
            f"As root, the stores run as {user.name}, who cannot enter {closed}.", remedy=OTHER_DIRECTORY
        )
    return str(directory) if existing == directory else f"{directory} will be created"


def _programs(settings: Settings) -> str:
    from spotlab_pipelines.local.binaries import choose_postgres, choose_redis
    from spotlab_pipelines.local.directories import server_user

    wanted = []
    if settings.database_url is None:
        directory = settings.data_dir.absolute() / "postgres"
        wanted.append(f"Postgres {choose_postgres(settings, directory / 'data', server_user(directory))}")
    if settings.redis_url is None:
        wanted.append(f"Redis {choose_redis(settings, server_user(settings.data_dir.absolute() / 'redis'))}")
    return "; ".join(wanted)


def _postgres(settings: Settings, store: StoreStatus) -> str:
    import sqlalchemy as sa

    from spotlab_pipelines.database.engine import database_errors
    from spotlab_pipelines.database.migrate import drift, require_current

    _not_stopped(store)
    engine = require_current(settings)
    with database_errors(), engine.connect() as connection:
        version = connection.scalar(sa.text("show server_version"))
    differences = drift(settings)
    if differences:
        raise PermanentError(
            f"The tables differ from what the code expects in {len(differences)} points: {differences[0]}.",
            remedy="Undo the change that was made by hand, or write a migration.",
        )
    return f"version {version} at {store.address}, migrated, no drift"


def _redis(settings: Settings, store: StoreStatus) -> str:
    from spotlab_pipelines.database.redis import connect_redis, redis_errors
    from spotlab_pipelines.local.binaries import OLDEST_REDIS

    _not_stopped(store)
    with redis_errors():
        information = connect_redis(settings).info()
    version = str(information["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        raise PermanentError(f"Redis {version} at {store.address} is older than 6.2.", remedy="Use a newer one.")
    policy = information.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise _Warning(
            f"Redis at {store.address} drops keys by itself when it is full (maxmemory-policy {policy}).",
            "Set maxmemory-policy to noeviction: a missing value stops an evaluation.",
        )
    return f"version {version} at {store.address}"


def _archive(settings: Settings) -> str:
    from spotlab_pipelines.market.archive import Archive

    location = settings.archive_location
    if "://" in location or Path(location).is_dir():
        Archive(location).probe()
        return f"{location} can be written"
    return _writable(Path(location), "SPOTLAB_ARCHIVE_URL")


def _mlruns(settings: Settings) -> str:
    return _writable(settings.mlruns_dir, "SPOTLAB_MLRUNS_DIR")


def _advisor(settings: Settings) -> str:
    from spotlab_pipelines.market.advisor import fetch_document
    from spotlab_pipelines.market.parse import parse_advisor

    rows = parse_advisor(fetch_document(settings.advisor_url, settings.http_timeout_s))
    return f"{len(rows)} rows for {rows['region'].nunique()} regions from {settings.advisor_url}"


def _port(name: str, port: int) -> str:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise SettingsError(
                    f"Port {port} may not be opened by this user.",
                    remedy=f"Set SPOTLAB_{name.upper()}_PORT above 1024.",
                ) from error
        else:
            return f"{port} is free"
    if _is_ui(name, port):
        return f"{port} is {name}'s"
    raise _Warning(
        f"Port {port} is taken by another program.", f"End it, or set SPOTLAB_{name.upper()}_PORT to another port."
    )


def _is_ui(name: str, port: int) -> bool:
    import requests

    try:
        answer = requests.get(f"http://127.0.0.1:{port}{UI_PATHS[name]}", timeout=3)
    except requests.RequestException:
        return False
    return answer.ok and UI_WORDS[name] in answer.content[:1000]


def _credentials() -> str:
    from spotlab_pipelines.accounts.sessions import own_account_id

    return f"SpotLab is AWS account {own_account_id()}"


def _accounts(settings: Settings) -> Iterator[Finding]:
    from spotlab_pipelines.accounts.registry import list_accounts
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.engine import connect

    engine = connect(settings)
    sessions = AccountSessions(engine, run_id="doctor")
    for account in list_accounts(engine):

        def assume(account_id: str = account.account_id, region: str = account.regions[0]) -> str:
            sessions.get_cross_account_session(account_id, region)
            return "its role can be assumed"

        yield _look(f"account {account.account_id}", assume)


def _not_stopped(store: StoreStatus) -> None:
    if store.state == "stopped":
        raise _Warning("The embedded one is not running.", "Start it with `spotlab up`.")


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _writable(path: Path, variable: str) -> str:
    path = path.absolute()
    existing = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror} ({existing}).", remedy=f"Set {variable} to another place."
        ) from error
    return f"{path} can be written" if existing == path else f"{path} will be created"
