"""Fixtures that every room's tests share: real stores in a throw-away directory, settings that know nothing but them.

The servers start once per session, with fsync off; every test that asks for `engine` gets a database of its own, copied
from a migrated template. Nothing of the developer's environment gets in, and no server outlives the session.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import psutil
import pytest
import redis as redis_py
import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.database.engine import connect, database_url, disconnect
from spotlab_pipelines.database.migrate import ensure_databases, upgrade
from spotlab_pipelines.database.redis import connect_redis
from spotlab_pipelines.local import StoreUrls, down, up
from spotlab_pipelines.settings import Settings, get_settings
from spotlab_pipelines_tests.order import longest_first

if find_spec("spotlab_pipelines_tests.local_aws.fixtures") is not None:
    pytest_plugins = ["spotlab_pipelines_tests.local_aws.fixtures"]

FAST_POSTGRES = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=64MB")
DIRECTORY_PREFIX = "spotlab-tests-"
MEMORY = Path("/dev/shm")  # noqa: S108  not a fixed name in a shared folder: mkdtemp makes the name
MEMORY_NEEDED = 4 * 2**30
"""Bytes. What all processes of `make test` hold at a time is less than half of it."""
FOREIGN_VARIABLES = ("SPOTLAB_", "AWS_", "DAGSTER_", "MLFLOW_", "PG")
TEMPLATE = "spotlab"
TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """Forget the developer's settings and credentials, and end the servers of sessions that were killed.

    A shell starts background jobs with SIGINT ignored, and every child inherits that: none could be ended by Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(FOREIGN_VARIABLES)]:
        del os.environ[name]
    # Not a promise of ours: an example that is slow on a busy machine, or because it is the first, is not wrong.
    hypothesis.settings.register_profile("spotlab", deadline=None)
    hypothesis.settings.load_profile("spotlab")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    get_settings.cache_clear()
    rooms = (MEMORY, Path(tempfile.gettempdir()))
    for directory in [found for room in rooms for found in room.glob(f"{DIRECTORY_PREFIX}*")]:
        owner = directory.name.removeprefix(DIRECTORY_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and directory.owner() == _ourselves():
            down(Settings(data_dir=directory))
            shutil.rmtree(directory, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the processes of `make test` begin with the longest tests; alone, they stay as they are written."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        items[:] = longest_first([(item.path.as_posix(), item) for item in items], processes)


def _ourselves() -> str:
    return Path(f"/proc/{os.getpid()}").owner() if Path("/proc").is_dir() else os.environ.get("USER", "")


def new_directory() -> Path:
    """A new directory in which stores may run: their unprivileged user can pass through it."""
    directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-", dir=_room()))
    directory.chmod(0o711)
    return directory


def _room() -> Path | None:
    """Memory, if it has room and programs can run there: every test copies a database, and a disk takes its time."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    found = os.statvfs(MEMORY)
    fits = found.f_bavail * found.f_frsize >= MEMORY_NEEDED and not found.f_flag & os.ST_NOEXEC
    return MEMORY if fits else None


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment in which a child process has these settings."""
    changed = {name: getattr(settings, name) for name in settings.model_fields_set}
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in changed.items()
        if value is not None and not isinstance(value, tuple)
    }
    return {**os.environ, **{f"SPOTLAB_{name.upper()}": value for name, value in values.items()}}


@pytest.fixture(scope="session")
def stores_directory() -> Iterator[Path]:
    """The data directory of the session's stores; whatever runs in it is stopped at the end."""
    directory = new_directory()
    yield directory
    down(Settings(data_dir=directory))
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stores(stores_directory: Path) -> StoreUrls:
    """A running Postgres with a migrated `spotlab` to copy from, and a running Redis."""
    settings = Settings(data_dir=stores_directory)
    urls = up(settings, postgres_options=FAST_POSTGRES).urls
    ensure_databases(settings)
    upgrade(settings)
    # A database can only be copied while nobody is connected to it.
    disconnect(connect(settings))
    return urls


@pytest.fixture
def settings(stores: StoreUrls, tmp_path: Path) -> Settings:
    """Settings of one test: its own (not yet existing) databases on the session's stores, its own folders."""
    name = f"t_{secrets.token_hex(6)}"
    return Settings(
        data_dir=tmp_path / "data",
        database_url=stores.database(name),
        dagster_database=f"{name}_dagster",
        mlflow_database=f"{name}_mlflow",
        redis_url=stores.redis,
        archive_url=str(tmp_path / "archive"),
        mlruns_dir=tmp_path / "mlruns",
        # A first scrape of 90 days takes botocore seconds to read.
        price_history_days=7,
    )


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process that shall have this test's settings."""
    return environment_of(settings)


@pytest.fixture(scope="session")
def server(stores: StoreUrls) -> Iterator[sa.Engine]:
    """An autocommitting connection to the server itself, to create and drop databases."""
    url = stores.database("postgres").get_secret_value().replace("postgresql:", "postgresql+psycopg:", 1)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def empty_database(settings: Settings, server: sa.Engine) -> Iterator[Settings]:
    """The test's settings with a domain database that has no table yet; all its databases are dropped at the end."""
    yield from _database(settings, server, template="template0")


@pytest.fixture
def engine(settings: Settings, server: sa.Engine) -> Iterator[sa.Engine]:
    """The pipeline's engine of a fresh, migrated domain database; all the test's databases are dropped at the end."""
    for _ in _database(settings, server, template=TEMPLATE):
        yield connect(settings)


@pytest.fixture
def owner(settings: Settings, engine: sa.Engine) -> sa.Engine:
    """The engine of the tables' owner, for what the pipeline may not do."""
    return connect(settings, role="owner")


@pytest.fixture(scope="session")
def mlflow_template(stores: StoreUrls, server: sa.Engine) -> str:
    """The name of a database with MLflow's tables, to copy from: making them takes more than a second."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    url = stores.database("mlflow").get_secret_value().replace("postgresql:", "postgresql+psycopg:", 1)
    with tempfile.TemporaryDirectory() as artifacts:
        SqlAlchemyStore(url, artifacts).engine.dispose()
    return "mlflow"


@pytest.fixture
def mlflow_database(settings: Settings, engine: sa.Engine, mlflow_template: str, server: sa.Engine) -> str:
    """The URL of a fresh MLflow database with all its tables, the one that `settings` names."""
    copy_database(server, mlflow_template, settings.mlflow_database)
    return database_url(settings, "mlflow")


@pytest.fixture(scope="session")
def dagster_template(stores: StoreUrls, stores_directory: Path) -> str:
    """The name of a database with Dagster's tables, to copy from."""
    from spotlab_pipelines.defs.storage import dagster_url, pooled_engine

    settings = Settings(data_dir=stores_directory)
    pooled_engine(dagster_url(settings)).dispose()
    return settings.dagster_database


@pytest.fixture
def dagster_database(settings: Settings, engine: sa.Engine, dagster_template: str, server: sa.Engine) -> None:
    """A fresh Dagster database with all its tables, the one that `settings` names."""
    copy_database(server, dagster_template, settings.dagster_database)


def copy_database(server: sa.Engine, template: str, name: str) -> None:
    """Make a database out of a template's files: through the log, which is the default, it takes twice as long."""
    with server.connect() as connection:
        connection.execute(sa.text(f"create database {name} template {template} strategy file_copy"))


@pytest.fixture
def redis(settings: Settings) -> Iterator[redis_py.Redis]:
    """The session's Redis, empty."""
    client = connect_redis(settings)
    client.flushall()
    yield client
    client.flushall()


def _database(settings: Settings, server: sa.Engine, *, template: str) -> Iterator[Settings]:
    assert settings.database_url is not None
    name = urlsplit(settings.database_url.get_secret_value()).path[1:]
    copy_database(server, template, name)
    try:
        yield settings
    finally:
        disconnect(connect(settings))
        with server.connect() as connection:
            for database in (name, settings.dagster_database, settings.mlflow_database):
                connection.execute(sa.text(f"drop database if exists {database} with (force)"))
