"""A process killed, or a store lost, in the middle of recording an evaluation leaves nothing half done."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.tables import Evaluation, ExperimentLog
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.tracking import record_evaluation, track_evaluation
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import CHAMPION, KEY, decided, decisions, register

LOG_IN_A_PROCESS = """
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import get_settings
from spotlab_pipelines_tests.experiments.factory import KEY

settings = get_settings()
print(log_evaluation(connect(settings), Archive(settings.archive_location), KEY).written)
"""
WAITING_TO_MARK = sa.text(
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' "
    "and query ilike '%update evaluations%'"
)


def wait_until(engine: sa.Engine, statement: sa.TextClause, expected: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.scalar(statement) == expected:
                return
        time.sleep(0.05)
    raise AssertionError(f"{statement} did not become {expected} within 60 s")


def log_size(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(ExperimentLog)) or 0


def state(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return connection.scalar(sa.select(Evaluation.state))


def start_logging(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOG_IN_A_PROCESS], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_process_killed_after_its_insert_leaves_no_row_and_a_retry_completes(
    engine: sa.Engine, owner: sa.Engine, settings: Settings, environment: dict[str, str]
) -> None:
    archive = Archive(settings.archive_location)
    register(engine)
    decided(engine, archive, frame=decisions(20))
    with engine.begin() as holder:
        # Whoever wants to mark the evaluation as logged waits here, with its rows inserted and not committed.
        holder.execute(sa.select(Evaluation.id).with_for_update())
        process = start_logging(environment)
        try:
            wait_until(owner, WAITING_TO_MARK, 1)
        finally:
            process.kill()
            process.communicate()
        assert log_size(engine) == 0
    # The server notices the lost client when it next writes to it, and gives up the transaction.
    wait_until(owner, WAITING_TO_MARK, 0)

    assert log_evaluation(engine, archive, KEY).written == 120
    assert (log_size(engine), state(engine)) == (120, "logged")


def test_two_processes_at_once_write_once(
    engine: sa.Engine, owner: sa.Engine, settings: Settings, environment: dict[str, str]
) -> None:
    register(engine)
    decided(engine, Archive(settings.archive_location), frame=decisions(20))
    with engine.begin() as holder:
        holder.execute(sa.select(Evaluation.id).with_for_update())
        processes = [start_logging(environment) for _ in range(2)]
        wait_until(owner, WAITING_TO_MARK, 1)
    written = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
    assert written == [0, 120]
    assert log_size(engine) == 120


@contextmanager
def closed(server: sa.Engine, database: str) -> Iterator[None]:
    """A database that throws everybody out and lets nobody in."""
    with server.connect() as connection:
        connection.execute(sa.text(f"alter database {database} allow_connections false"))
        connection.execute(
            sa.text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name"), {"name": database}
        )
    try:
        yield
    finally:
        with server.connect() as connection:
            connection.execute(sa.text(f"alter database {database} allow_connections true"))


@pytest.mark.parametrize("used_before", [False, True])
def test_mlflow_down_fails_by_name_with_the_log_committed_and_a_retry_tracks_it(
    engine: sa.Engine, settings: Settings, server: sa.Engine, mlflow_database: str, used_before: bool
) -> None:
    archive = Archive(settings.archive_location)
    register(engine)
    decided(engine, archive)
    if used_before:
        mlflow_client(settings).search_experiments(max_results=1)
    with closed(server, settings.mlflow_database):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            record_evaluation(settings, engine, archive, KEY)
        assert time.monotonic() - started < 10
        assert (log_size(engine), state(engine)) == (18, "logged")

    report = record_evaluation(settings, engine, archive, KEY)
    assert (report.rows_written, report.already_logged) == (0, True)
    run = mlflow_client(settings).get_run(report.mlflow_runs[CHAMPION])
    assert run.data.metrics["instances/decided"] == 3


CREATE_IN_A_PROCESS = """
import sys
from spotlab_pipelines.inference.mlflow_store import experiment_id, mlflow_client
from spotlab_pipelines.settings import get_settings

sys.stdin.readline()
settings = get_settings()
print(experiment_id(mlflow_client(settings), settings, "evaluations"))
"""


def test_two_processes_that_use_a_new_mlflow_database_at_once_share_it(
    engine: sa.Engine, settings: Settings, server: sa.Engine, environment: dict[str, str]
) -> None:
    with server.connect() as connection:
        connection.execute(sa.text(f"create database {settings.mlflow_database}"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_IN_A_PROCESS],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert answers[0] == answers[1] != ""
    register(engine)
    archive = Archive(settings.archive_location)
    decided(engine, archive)
    log_evaluation(engine, archive, KEY)
    assert track_evaluation(settings, engine, KEY).experiment_id == answers[0]
