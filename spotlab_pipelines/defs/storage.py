"""Where Dagster keeps what it knows: dagster-postgres on our own server, with one connection pool per process.

As shipped, each of its three storages opens a new connection for every statement. Nothing here takes a URL or a folder
from dagster.yaml: both come from SpotLab's settings, so that neither `dagster dev` nor the processes it starts need an
environment of their own. This leans on internals of dagster-postgres, whose version is pinned for that reason.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import set_pg_statement_timeout
from sqlalchemy import event

from spotlab_pipelines.database.engine import database_errors, database_url, engine_for
from spotlab_pipelines.database.migrate import ensure_databases
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.settings import Settings, get_settings

POOL_SIZE = 2
MAX_OVERFLOW = 20
MAIN_TABLES = {"runs", "instance_info", "event_logs", "dynamic_partitions", "instigators"}

_ready: set[tuple[int, str]] = set()
_preparing = threading.Lock()


class _Pooled:
    """What the three storages share: the engine of their URL, and a configuration that has nothing in it."""

    _engine: sa.Engine

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Any:
        url = dagster_url(get_settings())
        storage = cls(url, should_autocreate_tables=False, inst_data=inst_data)  # type: ignore[call-arg]
        storage._engine = pooled_engine(url)
        return storage

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Bound the webserver's statements; its pool stays the one of the process, with our limits."""
        pool = self._engine.pool
        if getattr(pool, "spotlab_bounded", False):
            return
        event.listen(pool, "connect", lambda connection, _: set_pg_statement_timeout(connection, statement_timeout))
        # Connections opened so far have no bound; the pool that replaces theirs inherits the listener.
        self._engine.dispose()
        self._engine.pool.spotlab_bounded = True  # type: ignore[attr-defined]


class PooledRunStorage(_Pooled, PostgresRunStorage):
    """Runs, ticks' daemons and snapshots."""


class PooledScheduleStorage(_Pooled, PostgresScheduleStorage):
    """Schedules, sensors and their ticks."""


class PooledEventLogStorage(_Pooled, PostgresEventLogStorage):
    """Events, materialisations and partitions."""

    _partitions_table_seen = False

    def _check_partitions_table(self) -> None:
        """As shipped, but asked once: a table that is there stays there."""
        if not self._partitions_table_seen:
            super()._check_partitions_table()
            self._partitions_table_seen = True


class DataDirArtifactStorage(LocalArtifactStorage):
    """Dagster's own folder, below SpotLab's data directory."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DataDirArtifactStorage:
        return cls(base_dir=str(dagster_folder(get_settings())), inst_data=inst_data)


class DataDirComputeLogManager(LocalComputeLogManager):
    """What steps print, below SpotLab's data directory."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DataDirComputeLogManager:
        return cls(base_dir=str(dagster_folder(get_settings()) / "compute_logs"), inst_data=inst_data)


def dagster_folder(settings: Settings) -> Path:
    """Where Dagster keeps files."""
    return settings.data_dir / "dagster"


def dagster_url(settings: Settings) -> str:
    """The URL of Dagster's database, which is created with its tables at its first use, by one process at a time.

    Raises:
        StoreUnavailable, LocalStackError: there is no Postgres.
    """
    url = database_url(settings, "dagster", driver="psycopg2")
    with _preparing:
        if (os.getpid(), url) not in _ready:
            try:
                _create_tables(url)
            except StoreUnavailable:
                # Perhaps only the database is missing. If Postgres itself does not answer, this says so again.
                ensure_databases(settings)
                _create_tables(url)
            _ready.add((os.getpid(), url))
    return url


def pooled_engine(url: str) -> sa.Engine:
    """The process's engine for Dagster's database; a forked child has its own."""
    return engine_for(url, pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW, isolation_level="AUTOCOMMIT")


def _create_tables(url: str) -> None:
    """Let dagster-postgres create what is missing; a process that comes second waits, and finds it complete."""
    with database_errors(), pooled_engine(url).connect() as connection:
        connection.execute(sa.text("select pg_advisory_lock(hashtextextended('spotlab/dagster/schema', 0))"))
        try:
            if not set(sa.inspect(connection).get_table_names()) >= MAIN_TABLES:
                for storage in (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage):
                    storage(url)
        finally:
            connection.execute(sa.text("select pg_advisory_unlock(hashtextextended('spotlab/dagster/schema', 0))"))
