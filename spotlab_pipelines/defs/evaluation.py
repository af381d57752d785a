"""What the partitioned assets have in common: their accounts, their window, and how a failing account is treated.

An evaluation's window is fixed once. A scheduled run carries it as a tag; any other run takes the time at which it was
asked for, that of its backfill or else of its root run, and writes it into that tag, so that a retry, a re-execution or
another run of the same backfill works on the same evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from spotlab_pipelines.database.evaluations import (
    EvaluationKey,
    begin_evaluation,
    fail_evaluation,
    failed_accounts,
    logged_accounts,
)
from spotlab_pipelines.database.partitions import month_start
from spotlab_pipelines.defs.metadata import accounts_metadata
from spotlab_pipelines.errors import InvalidInput, PermanentError, SpotLabError, TransientError
from spotlab_pipelines.settings import get_settings

if TYPE_CHECKING:
    import sqlalchemy as sa

WINDOW_TAG = "spotlab/window_start"
ACCOUNT_TAG = "spotlab/account"
BACKFILL_TAG = "dagster/backfill"
MAX_RETRIES = 2
CLOCK_SKEW = timedelta(minutes=1)


def window_start(context: dg.AssetExecutionContext) -> datetime:
    """The window of this run's evaluations, UTC-aware; the same for a run, its retries and its re-executions."""
    tag = context.run.tags.get(WINDOW_TAG)
    if tag is not None:
        window = parse_window(tag)
        check_window(window, now=datetime.now(UTC), kept_months=get_settings().log_retention_months)
        return window
    window = _asked_for_at(context.instance, context.run)
    context.instance.add_run_tags(context.run.run_id, {WINDOW_TAG: window.isoformat()})
    return window


def _asked_for_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    # Dagster splits the backfill of "Materialize all" into several runs, one after another: all are one evaluation.
    backfill_id = run.tags.get(BACKFILL_TAG)
    backfill = instance.get_backfill(backfill_id) if backfill_id is not None else None
    if backfill is not None:
        return datetime.fromtimestamp(backfill.backfill_timestamp, UTC)
    record = instance.get_run_record_by_id(run.root_run_id or run.run_id)
    if record is None:
        raise InvalidInput(f"Run {run.run_id} names a root run that Dagster no longer has.")
    return record.create_timestamp.astimezone(UTC)


def parse_window(text: str) -> datetime:
    """Read the window tag: ISO 8601 with a time zone."""
    try:
        window = datetime.fromisoformat(text)
        if window.utcoffset() is not None:
            return window.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"Run tag {WINDOW_TAG} must be an ISO 8601 time with a zone; got {text!r}.",
        remedy="Write it like 2026-01-31T12:00:00+00:00.",
    )


def check_window(window: datetime, *, now: datetime, kept_months: int) -> None:
    """Refuse a window whose evaluation could not stay in the log, or would stay the latest one until its time comes.

    Args:
        kept_months: whole months that the log keeps; setting log_retention_months.

    Raises:
        InvalidInput: it begins later than now (two clocks may differ by a minute), or before what the log keeps.
    """
    oldest = month_start(now, -kept_months)
    if not oldest <= window <= now + CLOCK_SKEW:
        raise InvalidInput(
            f"Run tag {WINDOW_TAG} must be between {oldest.isoformat()}, the oldest that the log keeps, and now, "
            f"{now.isoformat(timespec='seconds')}; got {window.isoformat()}.",
            remedy="Start the run without the tag: its window is then the time at which it was asked for.",
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn our errors into Dagster's: a transient one asks for a retry of the step, a permanent one forbids it."""
    try:
        yield
    except PermanentError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
    except TransientError as error:
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=2) from error


def explained(error: Exception) -> str:
    """The error as it may be kept: our own messages are safe to show, those of other libraries may carry a secret."""
    if isinstance(error, SpotLabError):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: unexpected; the run's log has the traceback."


def for_each_account(
    context: dg.AssetExecutionContext,
    database: sa.Engine,
    work: Callable[[EvaluationKey], Any],
    *,
    first: bool = False,
    last: bool = False,
    checks: Callable[[dict[str, Any]], list[dg.AssetCheckResult]] | None = None,
) -> dg.MaterializeResult:
    """Call `work` for every account of this run and report what it returned.

    A failing account becomes a row in `evaluations`; the others go on, and later steps leave it out. It is raised when
    nothing is left to go on with, or at the `last` step, where only the accounts that came through are recorded. While
    an error is transient and tries are left, the whole step is tried again: doing an account twice changes nothing.

    An evaluation that is already in the log keeps the tables it was logged from: only the `last` step runs again.

    Args:
        work: does one account's part; returns a report, a dataclass that `defs/metadata.py` can show.
        first: this step begins the evaluations.
        last: this step ends them.
        checks: the asset's checks of all reports by account; they warn and never block.
    """
    step = context.asset_key.path[-1]
    with translated():
        window = window_start(context)
        keys = [EvaluationKey(account, window) for account in context.partition_keys]
        failures = {} if first else _reopen(database, keys, step=step, run_id=context.run.run_id)
        logged = set() if last else logged_accounts(database, window, [key.account_id for key in keys])
        reports: dict[str, Any] = {}
        errors: dict[str, Exception] = {}
        for key in keys:
            if key.account_id in failures or key.account_id in logged:
                continue
            if first:
                begin_evaluation(database, key, context.run.run_id)
            try:
                reports[key.account_id] = work(key)
            except Exception as error:
                context.log.exception(f"{step} failed for {key}")
                fail_evaluation(database, key, at_step=step, error=explained(error))
                errors[key.account_id] = error
        failures |= {account: explained(error) for account, error in errors.items()}
        again = [error for error in errors.values() if isinstance(error, TransientError)]
        if again and context.retry_number < MAX_RETRIES:
            raise again[0]
        if len(errors) == len(keys) == 1:
            raise errors.popitem()[1]
    metadata = accounts_metadata(reports, failures, already_logged=sorted(logged))
    if failures and (last or not (reports or logged)):
        for account in reports:
            context.log_event(
                dg.AssetMaterialization(
                    context.asset_key, partition=account, metadata=accounts_metadata({account: reports[account]}, {})
                )
            )
        raise dg.Failure(
            f"{len(failures)} of {len(keys)} accounts failed; the others were evaluated. "
            + " | ".join(f"{account}: {error}" for account, error in sorted(failures.items())),
            allow_retries=False,
        )
    return dg.MaterializeResult(metadata=metadata, check_results=[] if checks is None else checks(reports))


def each_account(context: dg.AssetExecutionContext, work: Callable[[str], Any]) -> dg.MaterializeResult:
    """Call `work` for every account of this run, outside any evaluation; the others go on where one fails.

    What failed is raised at the end, a transient error first, so that the step is tried again.
    """
    reports: dict[str, Any] = {}
    errors: dict[str, Exception] = {}
    for account_id in context.partition_keys:
        try:
            reports[account_id] = work(account_id)
        except Exception as error:
            context.log.exception(f"{context.asset_key.path[-1]} failed for account {account_id}")
            errors[account_id] = error
    with translated():
        again = [error for error in errors.values() if isinstance(error, TransientError)]
        if again and context.retry_number < MAX_RETRIES:
            raise again[0]
        if len(errors) == len(context.partition_keys) == 1:
            raise errors.popitem()[1]
    if errors:
        told = " | ".join(f"{account}: {explained(error)}" for account, error in sorted(errors.items()))
        raise dg.Failure(
            f"{len(errors)} of {len(context.partition_keys)} accounts failed; the others are done. {told}",
            allow_retries=False,
        )
    return dg.MaterializeResult(metadata=accounts_metadata(reports, {}))


def _reopen(database: sa.Engine, keys: list[EvaluationKey], *, step: str, run_id: str) -> dict[str, str]:
    """Reopen the evaluations that failed at this very step (this is its retry); return those that failed before it."""
    failures = failed_accounts(database, keys[0].window_start, [key.account_id for key in keys])
    retried = {account for account, failure in failures.items() if failure.at_step == step}
    for key in keys:
        if key.account_id in retried:
            begin_evaluation(database, key, run_id)
    return {account: failure.error for account, failure in failures.items() if account not in retried}
