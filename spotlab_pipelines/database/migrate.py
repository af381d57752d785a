"""Databases and their schema: created, migrated up and down, compared with tables.py. The steps are in migrations/."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.exc import OperationalError, ProgrammingError

from spotlab_pipelines.database.engine import LOGICAL_NAMES, Role, connect, database_errors, database_url
from spotlab_pipelines.database.partitions import ensure_partitions, is_partition
from spotlab_pipelines.errors import IntegrityError, PermanentError, SettingsError, StoreUnavailable
from spotlab_pipelines.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
MAINTENANCE_DATABASE = "postgres"
DUPLICATE_DATABASE = ("42P04", "23505")
INSUFFICIENT_PRIVILEGE = "42501"


def ensure_databases(settings: Settings) -> list[str]:
    """Create the databases that are missing (spotlab, dagster, mlflow); return the names of the new ones.

    Raises:
        SettingsError: one is missing and our user may not create it.
        StoreUnavailable: Postgres does not answer.
    """
    urls = [sa.make_url(database_url(settings, name)) for name in LOGICAL_NAMES]
    wanted = [url.database for url in urls if url.database]
    with database_errors():
        connection = _open_any(urls[0])
        try:
            existing = set(connection.scalars(sa.text("select datname from pg_database")))
            created = [name for name in wanted if name not in existing]
            for name in created:
                _create_database(connection, name)
        finally:
            connection.close()
            connection.engine.dispose()
    return created


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the domain database's schema to `revision`, and prepare the log's partitions around now.

    One transaction under an advisory lock: it happens as a whole or not at all, and once, however many ask for it.
    """
    from alembic import command

    engine = connect(settings, role="owner")

    def work(config: Config) -> None:
        command.upgrade(config, revision)
        _close_to_temporary_tables(config.attributes["connection"])

    _under_lock(engine, work)
    if current_revision(engine) == head_revision():
        ensure_partitions(engine, datetime.now(UTC))


def downgrade(settings: Settings, revision: str) -> None:
    """Take the schema back to `revision`; `base` removes everything, data included."""
    from alembic import command

    _under_lock(connect(settings, role="owner"), lambda config: command.downgrade(config, revision))


def head_revision() -> str:
    """The newest revision that this code brings."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise IntegrityError(f"There are no migrations in {MIGRATIONS}.")
    return head


def current_revision(engine: sa.Engine) -> str | None:
    """The revision that the database is at; None before the first."""
    from alembic.migration import MigrationContext

    with database_errors(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_current(settings: Settings, role: Role = "pipeline") -> sa.Engine:
    """The engine, of a role, of a domain database that is at the revision of this code.

    It is asked as the role that will work with it: the pipeline's login need not be able to do more.

    Raises:
        PermanentError: it is not there, at another revision, or not to be read by our user.
        StoreUnavailable: Postgres does not answer.
    """
    try:
        current = current_revision(connect(settings, role=role))
    except StoreUnavailable as error:
        if not _is_missing(error):
            raise
        current = None
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise PermanentError(
            f"The database's revision cannot be read: {error.orig}.",
            remedy="Run `spotlab up` as the owner of its tables, which migrates it and grants the rights.",
        ) from error
    if current != head_revision():
        raise PermanentError(
            f"The database is at revision {current or 'none'}, this code needs {head_revision()}.",
            remedy="Run `spotlab up`, which creates and migrates it.",
        )
    return connect(settings, role=role)


def _is_missing(error: StoreUnavailable) -> bool:
    """Whether the server has no such database, or none of our roles yet: a refused connection has no SQLSTATE."""
    return "does not exist" in str(error) and ("database" in str(error) or 'role "spotlab_pipeline"' in str(error))


def drift(settings: Settings) -> list[str]:
    """How the database's schema differs from tables.py, a line a difference; empty if it does not."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from spotlab_pipelines.database.tables import Base

    with database_errors(), connect(settings, role="owner").connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": include_name, "compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Alembic's filter: the log's partitions are made by the month, not by a migration."""
    return not (type_ == "table" and is_partition(name))


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _under_lock(engine: sa.Engine, work: Any) -> None:
    config = _config()
    with database_errors(), engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('spotlab/migrations', 0))"))
        config.attributes["connection"] = connection
        work(config)


def _close_to_temporary_tables(connection: sa.Connection) -> None:
    """Let only the pipeline make temporary tables, which it copies through: Postgres lets everybody by default.

    No migration, since this belongs to the database and not to its schema: no copy and no dump takes it along.
    """
    may = sa.text(
        "select pg_has_role(datdba, 'usage') and to_regrole('spotlab_pipeline') is not null "
        "from pg_database where datname = current_database()"
    )
    if connection.scalar(may):
        name = connection.dialect.identifier_preparer.quote_identifier(str(connection.engine.url.database))
        connection.exec_driver_sql(f"grant temporary on database {name} to spotlab_pipeline")
        connection.exec_driver_sql(f"revoke temporary on database {name} from public")


def _open_any(url: sa.URL) -> sa.Connection:
    """A connection from which databases can be created: to ours, or, before ours exists, to Postgres' own."""
    for name in (url.database, MAINTENANCE_DATABASE):
        engine = sa.create_engine(
            url.set(database=name), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": 10},
        )  # fmt: skip
        try:
            return engine.connect()
        except OperationalError as error:
            # psycopg gives a failed connection no SQLSTATE, so the server's words decide; a translated server only
            # makes us try the maintenance database, which then tells the real reason.
            if name == MAINTENANCE_DATABASE or "password authentication" in str(error.orig):
                raise
    raise AssertionError("unreachable")


def _create_database(connection: sa.Connection, name: str) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier(name)
    try:
        connection.execute(sa.text(f"create database {quoted} template template0 encoding 'UTF8'"))
    except (ProgrammingError, DatabaseIntegrityError) as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == INSUFFICIENT_PRIVILEGE:
            raise SettingsError(
                f"The database {name!r} does not exist and our user may not create it.",
                remedy="Create it, or give the user of SPOTLAB_DATABASE_URL the right CREATEDB.",
            ) from error
        if state not in DUPLICATE_DATABASE:
            raise
