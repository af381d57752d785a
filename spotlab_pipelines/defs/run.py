"""Run the asset graph from a program: what the CLI and the demo call. Runs are recorded in Dagster like any other.

Runs happen in this process, with the in-process executor, against the instance that `dagster.yaml` describes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from spotlab_pipelines import errors
from spotlab_pipelines.errors import IntegrityError, LocalStackError
from spotlab_pipelines.settings import PROJECT_ROOT

if TYPE_CHECKING:
    import dagster as dg

Progress = Callable[[str, str], None]
"""Called with a step's name and `started`, `done` or `failed`."""

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster keeps every event in its storage; the caller's terminal is not the place for them."""

STEP_STATES = {"STEP_START": "started", "STEP_SUCCESS": "done", "STEP_FAILURE": "failed"}


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended. `error` is the first failing step's own message after its class, on one line."""

    run_id: str
    window_start: datetime
    success: bool
    failed_step: str | None = None
    error: str | None = None

    def failure(self) -> errors.SpotLabError:
        """The error that ended a run without success, of the class that its message names, to be raised again.

        What no class of ours names was not foreseen, so it is taken for permanent.
        """
        told = f"{self.failed_step or 'The run'} failed: {self.error or 'no reason was recorded'}"
        kind = getattr(errors, (self.error or "").partition(":")[0], None)
        if not (isinstance(kind, type) and issubclass(kind, errors.SpotLabError)):
            kind = errors.PermanentError
        return kind(told)


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of DAGSTER_HOME, else the one of this checkout's dagster.yaml.

    Raises:
        LocalStackError: there is neither.
        StoreUnavailable: Dagster's Postgres does not answer, now or at any time inside the block.
    """
    import dagster as dg

    home = Path(os.environ.get("DAGSTER_HOME") or PROJECT_ROOT)
    if not (home / "dagster.yaml").is_file():
        raise LocalStackError(
            f"Expected a dagster.yaml in {home}.", remedy="Run from a checkout, or set DAGSTER_HOME to its folder."
        )
    with _lost_postgres_named(), dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def _lost_postgres_named() -> Iterator[None]:
    """Dagster writes events while it works, and lets out whatever its driver says when it cannot."""
    from spotlab_pipelines.database.engine import database_lost

    try:
        yield
    except errors.SpotLabError:
        raise
    except Exception as error:
        lost = database_lost(error)
        if lost is None:
            raise
        raise lost from error


def scrape_shared_market(
    instance: dg.DagsterInstance, definitions: dg.Definitions, *, progress: Progress | None = None
) -> list[RunOutcome]:
    """Materialise what all accounts share: the Spot Advisor and the instance catalogue."""
    jobs = ("advisor_scrape", "catalogue_scrape")
    return [_run(instance, definitions.resolve_job_def(job), progress=progress) for job in jobs]


def scrape_intervals_s() -> dict[str, int]:
    """The longest time between two runs of each shared scrape's schedule, in seconds, by asset."""
    from dagster._utils.schedules import cron_string_iterator

    from spotlab_pipelines.defs.jobs import advisor_schedule, catalogue_schedule

    begin, intervals = datetime(2026, 1, 1, tzinfo=UTC), {}
    for asset, schedule in (("spot_advisor", advisor_schedule), ("instance_catalogue", catalogue_schedule)):
        ticks = cron_string_iterator(begin.timestamp(), str(schedule.cron_schedule), "UTC")
        two_days = takewhile(lambda tick: tick < begin + timedelta(days=2), ticks)
        intervals[asset] = max(int((later - earlier).total_seconds()) for earlier, later in pairwise(two_days))
    return intervals


def evaluate_account(
    instance: dg.DagsterInstance, definitions: dg.Definitions, account_id: str, *, progress: Progress | None = None
) -> RunOutcome:
    """Evaluate one account now; the window is the creation time of the run. What died before it is ended first."""
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.defs.partitions import account_partitions
    from spotlab_pipelines.defs.stuck import end_stuck
    from spotlab_pipelines.settings import get_settings

    end_stuck(instance, connect(get_settings()), datetime.now(UTC))
    name = str(account_partitions.name)
    if not instance.has_dynamic_partition(name, account_id):
        instance.add_dynamic_partitions(name, [account_id])
    return _run(instance, definitions.resolve_job_def("evaluation"), account_id=account_id, progress=progress)


def learn_of_account(
    instance: dg.DagsterInstance, definitions: dg.Definitions, account_id: str, *, progress: Progress | None = None
) -> RunOutcome:
    """Learn now what became of the instances of an account that was evaluated before."""
    return _run(instance, definitions.resolve_job_def("outcomes"), account_id=account_id, progress=progress)


def judge_versions(
    instance: dg.DagsterInstance, definitions: dg.Definitions, *, progress: Progress | None = None
) -> RunOutcome:
    """Bring each version's scorecard up to date, and look at the challengers."""
    return _run(instance, definitions.resolve_job_def("scorecards"), progress=progress)


def _run(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    *,
    account_id: str | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.defs.evaluation import ACCOUNT_TAG, WINDOW_TAG, parse_window
    from spotlab_pipelines.defs.stuck import IN_PROCESS, at_work
    from spotlab_pipelines.settings import get_settings

    run_id = str(uuid4())
    if progress is not None:
        instance.add_event_listener(run_id, lambda entry: _report(entry, progress))
    tags = IN_PROCESS | {"dagster/max_retries": "0"} | ({} if account_id is None else {ACCOUNT_TAG: account_id})
    with at_work(connect(get_settings()), run_id):
        result = job.execute_in_process(
            run_config=QUIET,
            instance=instance,
            partition_key=account_id,
            tags=tags,
            run_id=run_id,
            raise_on_error=False,
        )
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        raise IntegrityError(f"Dagster has no record of run {run_id}, which it has just executed.")
    window = record.dagster_run.tags.get(WINDOW_TAG)
    failures = [event for event in result.all_events if event.is_step_failure]
    error = failures[0].step_failure_data.error if failures else None
    if error is None:
        # What fails before the first step, such as opening a resource, fails the run itself.
        ended = [event for event in result.all_events if event.is_job_failure]
        error = ended[0].job_failure_data.error if ended else None
    return RunOutcome(
        run_id=run_id,
        window_start=parse_window(window) if window else record.create_timestamp.astimezone(UTC),
        success=result.success,
        failed_step=failures[0].step_key if failures else None,
        error=None if error is None else _named(error),
    )


def _report(entry: dg.EventLogEntry, progress: Progress) -> None:
    event = entry.dagster_event
    if event is not None and event.event_type_value in STEP_STATES and event.step_key is not None:
        progress(event.step_key, STEP_STATES[event.event_type_value])


def _named(error: Any) -> str:
    """The error to tell, on one line that begins with its class; Dagster's own class of it is not public.

    Our errors are raised from those of libraries and wrapped in Dagster's, so ours is the first of our tree on the way
    in. Where there is none, nobody foresaw what happened, and the error that started the chain says most.
    """
    told = error
    while told is not None and not _is_ours(told.cls_name):
        error, told = told, told.cause
    told = told or error
    kind, _, text = told.message.strip().partition(": ")
    if kind.rpartition(".")[2] != told.cls_name:
        text = told.message
    return f"{told.cls_name}: {' '.join(text.split())}"


def _is_ours(name: str | None) -> bool:
    kind = getattr(errors, name or "", None)
    return isinstance(kind, type) and issubclass(kind, errors.SpotLabError)
