"""What the doctor looks at of the stores: the embedded ones' place and programs, Postgres, Redis, archive, mlruns.

None of these looks starts a store that is down; those that would are only called where it is up.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from spotlab_pipelines.doctor.findings import Doubt
from spotlab_pipelines.errors import LocalStackError, PermanentError, SettingsError, StoreUnavailable
from spotlab_pipelines.local.stores import StoreStatus
from spotlab_pipelines.settings import Settings


def data_directory(settings: Settings) -> str:
    """Whether the embedded stores' directory can be used, by their unprivileged user too."""
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


def programs(settings: Settings) -> str:
    """Which programs the embedded stores run."""
    from spotlab_pipelines.local.binaries import choose_postgres, choose_redis
    from spotlab_pipelines.local.directories import server_user

    wanted = []
    if settings.database_url is None:
        directory = settings.data_dir.absolute() / "postgres"
        wanted.append(f"Postgres {choose_postgres(settings, directory / 'data', server_user(directory))}")
    if settings.redis_url is None:
        wanted.append(f"Redis {choose_redis(settings, server_user(settings.data_dir.absolute() / 'redis'))}")
    return "; ".join(wanted)


def postgres(settings: Settings, store: StoreStatus) -> str:
    """Whether the domain database answers, is migrated, and has the tables that the code expects."""
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


def other_database(settings: Settings, name: str) -> str:
    """Whether Dagster's or MLflow's database answers and has its tables; both make them at their first use."""
    import sqlalchemy as sa

    from spotlab_pipelines.database.engine import database_errors, database_url, engine_for

    database = {"dagster": settings.dagster_database, "mlflow": settings.mlflow_database}[name]
    try:
        with database_errors(), engine_for(database_url(settings, name), pool_size=1).connect() as connection:
            tables = sa.inspect(connection).get_table_names()
    except StoreUnavailable as error:
        # psycopg gives a refused connection no SQLSTATE: the server's words decide, as in database/migrate.py.
        if "does not exist" not in str(error):
            raise
        raise Doubt(f"The database {database} does not exist yet.", "Create it with `spotlab up`.") from error
    if not tables:
        return f"{database} is empty: its tables come at the first use"
    if "alembic_version" not in tables:
        raise Doubt(
            f"{database} has {len(tables)} tables, but none of them is {name}'s record of its schema.",
            f"Give {name} a database of its own: SPOTLAB_{name.upper()}_DATABASE.",
        )
    return f"{database}, {len(tables)} tables"


def redis(settings: Settings, store: StoreStatus) -> str:
    """Whether Redis answers, is new enough and never drops a key by itself."""
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
        raise Doubt(
            f"Redis at {store.address} drops keys by itself when it is full (maxmemory-policy {policy}).",
            "Set maxmemory-policy to noeviction: a missing value stops an evaluation.",
        )
    return f"version {version} at {store.address}"


def archive(settings: Settings) -> str:
    """Whether the archive can be written."""
    from spotlab_pipelines.market.archive import Archive

    location = settings.archive_location
    if "://" in location or Path(location).is_dir():
        Archive(location).probe()
        return f"{location} can be written"
    return _writable(Path(location), "SPOTLAB_ARCHIVE_URL")


def mlruns(settings: Settings) -> str:
    """Whether MLflow's artifacts can be written."""
    return _writable(settings.mlruns_dir, "SPOTLAB_MLRUNS_DIR")


def _not_stopped(store: StoreStatus) -> None:
    if store.state == "stopped":
        raise Doubt("The embedded one is not running.", "Start it with `spotlab up`.")


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
