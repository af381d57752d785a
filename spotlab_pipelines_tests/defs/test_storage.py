"""Dagster's storage: our settings' Postgres and folders, one pool a process, safe at first use and in children."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from spotlab_pipelines.defs.storage import PooledEventLogStorage, PooledRunStorage, PooledScheduleStorage, pooled_engine
from spotlab_pipelines.settings import PROJECT_ROOT, Settings, get_settings

DAGSTER_YAML = PROJECT_ROOT / "dagster.yaml"


@dg.asset
def greeting() -> str:
    print("hello from the step")
    return "hello"


@pytest.fixture
def home(
    engine: sa.Engine, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A DAGSTER_HOME that holds nothing but the project's dagster.yaml, with the test's settings."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(DAGSTER_YAML.read_text())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield folder
    get_settings.cache_clear()


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


def engine_of(storage: Any) -> sa.Engine:
    return storage._engine


def connections_to(server: sa.Engine, database: str) -> int:
    with server.connect() as connection:
        return connection.execute(
            sa.text("select count(*) from pg_stat_activity where datname = :name"), {"name": database}
        ).scalar_one()


def test_a_job_runs_and_its_events_and_output_are_kept_where_the_settings_say(
    instance: dg.DagsterInstance, settings: Settings, home: Path, server: sa.Engine
) -> None:
    result = dg.materialize([greeting], instance=instance)
    assert result.success
    kinds = {entry.dagster_event.event_type_value for entry in instance.all_logs(result.run_id) if entry.dagster_event}
    assert {"PIPELINE_START", "ASSET_MATERIALIZATION", "PIPELINE_SUCCESS"} <= kinds
    assert instance.get_latest_materialization_event(dg.AssetKey("greeting")) is not None
    printed = [path for path in (settings.data_dir / "dagster" / "compute_logs").rglob("*.out") if path.stat().st_size]
    assert [path.read_text().strip() for path in printed] == ["hello from the step"]
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"]
    assert connections_to(server, settings.dagster_database) >= 1


def test_the_three_storages_share_the_one_pool_of_the_process(
    instance: dg.DagsterInstance, home: Path, settings: Settings, server: sa.Engine
) -> None:
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    assert [type(each) for each in storages] == [PooledRunStorage, PooledEventLogStorage, PooledScheduleStorage]
    with dg.DagsterInstance.from_config(str(home)) as another:
        engines = {engine_of(each) for each in (*storages, another.run_storage, another.event_log_storage)}
    assert len(engines) == 1
    for _ in range(3):
        dg.materialize([greeting], instance=instance)
    assert connections_to(server, settings.dagster_database) <= 3


def test_the_dynamic_partitions_table_is_looked_for_once(instance: dg.DagsterInstance) -> None:
    asked = []
    engine = engine_of(instance.event_log_storage)
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    instance.add_dynamic_partitions("accounts", ["1", "2"])
    before = len(asked)
    assert list(instance.get_dynamic_partitions("accounts")) == ["1", "2"]
    assert len(asked) == before + 1


def test_the_webserver_bounds_its_statements_in_the_same_pool(instance: dg.DagsterInstance) -> None:
    instance.optimize_for_webserver(statement_timeout=7000, pool_recycle=60, max_overflow=1)
    assert engine_of(instance.run_storage) is engine_of(instance.event_log_storage)
    with engine_of(instance.run_storage).connect() as connection:
        assert connection.scalar(sa.text("show statement_timeout")) == "7s"


def test_the_instance_travels_to_a_child_process(instance: dg.DagsterInstance, home: Path) -> None:
    result = dg.materialize([greeting], instance=instance)
    code = (
        "import sys\n"
        "from dagster import DagsterInstance\n"
        "from dagster._core.instance import InstanceRef\n"
        "from dagster._serdes import deserialize_value\n"
        "ref = deserialize_value(sys.stdin.read(), InstanceRef)\n"
        "with DagsterInstance.from_ref(ref) as instance:\n"
        "    print(type(instance.run_storage).__name__, instance.get_run_by_id(sys.argv[1]).status.value)\n"
    )
    from dagster._serdes import serialize_value

    child = subprocess.run(
        [sys.executable, "-c", code, result.run_id],
        input=serialize_value(instance.get_ref()),
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert child.stdout.split() == ["PooledRunStorage", "SUCCESS"]
    assert "password" not in serialize_value(instance.get_ref())


def test_a_forked_child_does_not_use_its_parents_connections(instance: dg.DagsterInstance) -> None:
    engine = engine_of(instance.run_storage)
    backend = sa.text("select pg_backend_pid()")
    with engine.connect() as connection:
        ours = connection.scalar(backend)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with engine.connect() as connection:
                os.write(writer, str(connection.scalar(backend)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(reader, 32))
    os.close(reader)
    os.close(writer)
    assert theirs != ours
    with engine.connect() as connection:
        assert connection.scalar(backend) == ours


def test_processes_that_start_at_once_on_a_new_database_all_come_up(
    home: Path,
) -> None:
    code = (
        "import sys\n"
        "import dagster as dg\n"
        "import spotlab_pipelines.defs.storage\n"
        "sys.stdin.readline()\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    instance.add_dynamic_partitions('accounts', ['1'])\n"
        "    print(instance.run_storage.has_built_index('run_partitions'), len(instance.get_runs()))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [out.split() for out, _ in answers] == [["True", "0"]] * 2, answers
    assert all("Retrying" not in err for _, err in answers)


def test_one_engine_per_url() -> None:
    url = "postgresql+psycopg2://nobody@localhost:1/nowhere"
    assert pooled_engine(url) is pooled_engine(url)
