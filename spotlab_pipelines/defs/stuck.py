"""What a process left behind when it died: runs that seem to go on, evaluations that would run for ever.

Dagster watches the workers that it starts. Nobody watches a run in a program's own process (`spotlab evaluate`, the
demo): if that is killed, its run stays started and keeps its account's place, so that none of its evaluations starts
until Dagster's longest run time is over. Such a process therefore holds its run's name in Postgres while it lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterRunStatus

from spotlab_pipelines.database.evaluations import EvaluationKey, Running, fail_evaluation, running_evaluations
from spotlab_pipelines.database.holding import held, not_held
from spotlab_pipelines.defs.evaluation import WINDOW_TAG
from spotlab_pipelines.defs.jobs import ACCOUNT_ASSETS, IN_FLIGHT, PARTITION_TAG, RANGE_TAG

if TYPE_CHECKING:
    import sqlalchemy as sa

IN_PROCESS = {"spotlab/in_process": "true"}
"""The tag of a run in a program's own process, which Dagster's daemon cannot try again."""

RETRIED_WITHIN = timedelta(minutes=2)
"""Within this time after a worker died, Dagster's daemon starts the run again."""

LONGEST = timedelta(hours=1)
"""No run goes on for longer: `max_runtime_seconds` in dagster.yaml."""

ROOT_TAG = "dagster/root_run_id"
DIED = "its process has ended without a word: killed, or Postgres was lost"


@dataclass(frozen=True)
class Stuck:
    """An evaluation that is on record as running while nothing works on it."""

    key: EvaluationKey
    run_id: str | None
    at_step: str
    why: str


def at_work(database: sa.Engine, run_id: str) -> AbstractContextManager[None]:
    """Say for the length of the block that this process works on the run."""
    return held(database, _name(run_id))


def end_stuck(instance: dg.DagsterInstance, database: sa.Engine, now: datetime) -> list[Stuck]:
    """Mark dead runs as failed in Dagster, and what is stuck as failed on record; return the evaluations."""
    for run in dead_runs(instance, database):
        instance.report_run_failed(run, f"Marked as failed: {DIED}.")
    stuck = stuck_evaluations(instance, database, now)
    for each in stuck:
        fail_evaluation(
            database, each.key, at_step=each.at_step, error=f"Run {each.run_id} ended before the log: {each.why}."
        )
    return stuck


def dead_runs(instance: dg.DagsterInstance, database: sa.Engine) -> list[dg.DagsterRun]:
    """The runs in a program's own process that seem to go on while that process is gone."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT, tags=IN_PROCESS))
    dead = not_held(database, [_name(run.run_id) for run in runs]) if runs else set()
    return [run for run in runs if _name(run.run_id) in dead]


def stuck_evaluations(instance: dg.DagsterInstance, database: sa.Engine, now: datetime) -> list[Stuck]:
    """The evaluations on record as running that nothing works on any more; nothing is changed.

    One whose worker died is stuck when Dagster has not tried it again in time. One that was asked for in parts, or
    whose run Dagster no longer has, is stuck when the longest time of a run is over.
    """
    running = running_evaluations(database)
    dead = {run.run_id for run in dead_runs(instance, database)} if running else set()
    stuck = []
    for run_id, evaluations in groupby(running, lambda each: each.run_id):
        records = _records(instance, run_id)
        for each in evaluations:
            why = _why_stuck(each, [record for record in records if _covers(record, each)], dead, now)
            if why is not None:
                stuck.append(Stuck(each.key, run_id, _next_step(instance, records), why))
    return stuck


def _name(run_id: str) -> str:
    return f"run/{run_id}"


def _records(instance: dg.DagsterInstance, run_id: str | None) -> list[dg.RunRecord]:
    """The run with its retries, its re-executions and the other runs of its window, the newest first."""
    first = None if run_id is None else instance.get_run_record_by_id(run_id)
    if first is None:
        return []
    run = first.dagster_run
    root = run.root_run_id or run.run_id
    filters = [dg.RunsFilter(run_ids=[run.run_id, root]), dg.RunsFilter(tags={ROOT_TAG: root})]
    if WINDOW_TAG in run.tags:
        filters.append(dg.RunsFilter(tags={WINDOW_TAG: run.tags[WINDOW_TAG]}))
    found = {record.dagster_run.run_id: record for each in filters for record in instance.get_run_records(each)}
    return sorted(found.values(), key=lambda record: record.create_timestamp, reverse=True)


def _covers(record: dg.RunRecord, evaluation: Running) -> bool:
    tags = record.dagster_run.tags
    return RANGE_TAG in tags or tags.get(PARTITION_TAG) == evaluation.key.account_id


def _why_stuck(evaluation: Running, records: Sequence[dg.RunRecord], dead: set[str], now: datetime) -> str | None:
    alive = [record for record in records if record.dagster_run.status in IN_FLIGHT]
    if any(record.dagster_run.run_id not in dead for record in alive):
        return None
    if alive:
        return DIED
    newest = records[0] if records else None
    if newest is not None and newest.dagster_run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
        ended = datetime.fromtimestamp(newest.end_time or newest.update_timestamp.timestamp(), UTC)
        in_process = IN_PROCESS.items() <= newest.dagster_run.tags.items()
        if in_process or now - ended > RETRIED_WITHIN:
            return DIED if newest.dagster_run.status == DagsterRunStatus.FAILURE else "the run was cancelled"
    if now - evaluation.started_at > LONGEST:
        return "Dagster no longer has that run" if newest is None else "it was not asked for as a whole"
    return None


def _next_step(instance: dg.DagsterInstance, records: Sequence[dg.RunRecord]) -> str:
    """The first step that did not succeed: where a re-execution goes on, and what reopens the evaluation."""
    done = {
        step.step_key
        for record in records
        for step in instance.get_run_step_stats(record.dagster_run.run_id)
        if step.status is not None and step.status.value == "SUCCESS"
    }
    return next((asset for asset in ACCOUNT_ASSETS if asset not in done), ACCOUNT_ASSETS[-1])
