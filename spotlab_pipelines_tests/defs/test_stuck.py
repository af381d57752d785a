"""What a dead process left behind is found and ended by name; what is being worked on is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, fail_evaluation
from spotlab_pipelines.database.holding import held, not_held
from spotlab_pipelines.defs.evaluation import WINDOW_TAG
from spotlab_pipelines.defs.jobs import PARTITION_TAG, stuck_evaluations
from spotlab_pipelines.defs.stuck import IN_PROCESS, at_work, end_stuck
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, register

KEY = EvaluationKey(ACCOUNT, datetime.now(UTC) - timedelta(seconds=30))
HOLD = """
import sys
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.database.holding import held
from spotlab_pipelines.settings import get_settings
with held(connect(get_settings()), "a-name"):
    print("held", flush=True)
    sys.stdin.read()
"""


def later(**time: float) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dg.op
def fleet_instances() -> None:
    """A step by the name of the first asset."""


@dg.job
def evaluation() -> None:
    fleet_instances()


def begin(instance: dg.DagsterInstance, engine: sa.Engine, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """An evaluation on record as running, and its run."""
    register(engine)
    run = instance.create_run_for_job(
        evaluation, status=status, tags={PARTITION_TAG: ACCOUNT, WINDOW_TAG: KEY.window_start.isoformat(), **tags}
    )
    begin_evaluation(engine, KEY, run.run_id)
    return run


def states(engine: sa.Engine) -> list[tuple[str, str | None]]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select state, failed_at_step from evaluations")).tuples())


def test_a_name_is_held_while_its_process_lives_however_it_ends(engine: sa.Engine, environment: dict[str, str]) -> None:
    assert not_held(engine, ["a-name", "other"]) == {"a-name", "other"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not_held(engine, ["a-name", "other"]) == {"other"}
        holder.kill()
    with held(engine, "a-name"):
        assert not_held(engine, ["a-name"]) == set()
    assert not_held(engine, ["a-name"]) == {"a-name"}


def test_a_run_whose_process_is_gone_gives_its_accounts_place_back(
    instance: dg.DagsterInstance, engine: sa.Engine
) -> None:
    run = begin(instance, engine, dg.DagsterRunStatus.STARTED, **IN_PROCESS)
    with at_work(engine, run.run_id):
        assert end_stuck(instance, engine, later(minutes=3)) == []
    assert states(engine) == [("running", None)]
    answer = stuck_evaluations(dg.build_sensor_context(instance=instance), database=engine)
    assert isinstance(answer, dg.SkipReason)
    assert ACCOUNT in str(answer.skip_message)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE
    assert states(engine) == [("failed", "fleet_instances")]
    assert end_stuck(instance, engine, later(minutes=3)) == []


@pytest.mark.parametrize(
    ("status", "after", "stuck"),
    [
        (dg.DagsterRunStatus.STARTED, timedelta(hours=2), False),
        (dg.DagsterRunStatus.STARTING, timedelta(hours=2), False),
        (dg.DagsterRunStatus.FAILURE, timedelta(minutes=1), False),
        (dg.DagsterRunStatus.FAILURE, timedelta(minutes=3), True),
        (dg.DagsterRunStatus.CANCELED, timedelta(minutes=3), True),
        (dg.DagsterRunStatus.SUCCESS, timedelta(minutes=30), False),
        (dg.DagsterRunStatus.SUCCESS, timedelta(hours=2), True),
    ],
)
def test_dagsters_own_runs_are_its_to_watch_and_what_they_leave_is_ended(
    instance: dg.DagsterInstance, engine: sa.Engine, status: dg.DagsterRunStatus, after: timedelta, *, stuck: bool
) -> None:
    begin(instance, engine, status)
    assert [each.key for each in end_stuck(instance, engine, datetime.now(UTC) + after)] == ([KEY] if stuck else [])
    assert states(engine) == [("failed", "fleet_instances") if stuck else ("running", None)]


def test_a_run_that_is_tried_again_is_not_stuck(instance: dg.DagsterInstance, engine: sa.Engine) -> None:
    died = begin(instance, engine, dg.DagsterRunStatus.FAILURE)
    instance.create_run_for_job(
        evaluation,
        status=dg.DagsterRunStatus.STARTING,
        root_run_id=died.run_id,
        parent_run_id=died.run_id,
        tags={PARTITION_TAG: ACCOUNT, "dagster/root_run_id": died.run_id, "dagster/parent_run_id": died.run_id},
    )
    assert end_stuck(instance, engine, later(minutes=3)) == []


def test_an_evaluation_whose_run_nobody_knows_is_ended_after_the_longest_time_of_a_run(
    instance: dg.DagsterInstance, engine: sa.Engine
) -> None:
    register(engine)
    begin_evaluation(engine, KEY, None)
    assert end_stuck(instance, engine, later(minutes=50)) == []
    (stuck,) = end_stuck(instance, engine, later(minutes=70))
    assert "no longer has that run" in stuck.why


def test_what_ended_stays_as_it_ended(instance: dg.DagsterInstance, engine: sa.Engine) -> None:
    begin(instance, engine, dg.DagsterRunStatus.FAILURE)
    fail_evaluation(engine, KEY, at_step="spot_prices", error="Throttled: slowly")
    assert end_stuck(instance, engine, later(minutes=3)) == []
    assert states(engine) == [("failed", "spot_prices")]
