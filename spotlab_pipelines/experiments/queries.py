"""What people and sensors ask the log: the decisions of an evaluation, the list of evaluations, who is due.

Reading only, and each function is one statement. What is written is `log.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.access import is_skipped
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.tables import Account, Base, Evaluation, ExperimentLog, Login
from spotlab_pipelines.errors import InvalidInput, NotFound
from spotlab_pipelines.experiments.frames import PROBABILITIES
from spotlab_pipelines.settings import HORIZONS_H

MAX_LISTED = 10_000
NOTES = ("drift", "failed_versions")


def latest_decisions(engine: sa.Engine, account_id: str, window_start: datetime | None = None) -> pd.DataFrame:
    """The decisions of an account's latest logged evaluation, or of the one of `window_start`.

    Returns:
        One row per (instance, version), the acting version of an instance first: window_start, instance_id, region,
        from_pool, to_pool, p_current_1h … p_target_12h (fractions), from/to_price_usd_per_hour,
        from/to_cost_usd_per_hour, gain, candidates_considered, model_version, model_role, acting, shadow,
        pipeline_mode, decision, reason, snapshot_id. Empty if there is no such logged evaluation.
    """
    log = ExperimentLog
    wanted: sa.ColumnElement[Any] = sa.bindparam("window_start", window_start, sa.TIMESTAMP(timezone=True))
    if window_start is None:
        wanted = (
            sa.select(sa.func.max(Evaluation.window_start))
            .where(Evaluation.account_id == account_id, Evaluation.state == "logged")
            .scalar_subquery()
        )
    # One horizon carries the repeated columns; the others are aggregated beside it.
    repeated = [
        *(log.window_start, log.instance_id, log.region, log.from_pool, log.to_pool),
        *(log.from_price_usd_per_hour, log.to_price_usd_per_hour),
        *(log.from_cost_usd_per_hour, log.to_cost_usd_per_hour, log.gain, log.candidates_considered),
        *(log.model_version, log.model_role, log.acting, log.shadow, log.pipeline_mode),
        *(log.decision, log.reason, log.snapshot_id),
    ]
    probabilities = [
        sa.func.max(column).filter(log.horizon_h == horizon).label(f"{column.key}_{horizon}h")
        for column in (log.p_current, log.p_target)
        for horizon in HORIZONS_H
    ]
    statement = (
        sa.select(*repeated, *probabilities)
        .where(log.account_id == account_id, log.window_start == wanted)
        .group_by(*repeated)
        .order_by(log.instance_id, log.acting.desc(), log.model_role, log.model_version)
    )
    frame = _read(engine, statement)
    numbers = [*PROBABILITIES, *(column.key for column in repeated if isinstance(column.type, sa.Float))]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def logged_rows(engine: sa.Engine, key: EvaluationKey) -> pd.DataFrame:
    """The rows of one logged evaluation, all columns of the log, by instance, version and horizon.

    Raises:
        NotFound: the log has none of it.
    """
    log = ExperimentLog
    found = _read_log(engine, log.account_id == key.account_id, log.window_start == key.window_start)
    if found.empty:
        raise NotFound(f"The log has no rows of evaluation {key}.", remedy="`spotlab experiments list` shows them all.")
    return found


def logged_row(engine: sa.Engine, experiment_id: UUID) -> pd.DataFrame:
    """One row of the log, all columns.

    Raises:
        NotFound: the log has no such row.
    """
    found = _read_log(engine, ExperimentLog.id == experiment_id)
    if found.empty:
        raise NotFound(
            f"The log has no row {experiment_id}.", remedy="`spotlab experiments show ACCOUNT` shows the rows and ids."
        )
    return found


def _read_log(engine: sa.Engine, *where: sa.ColumnElement[bool]) -> pd.DataFrame:
    log = ExperimentLog
    statement = (
        sa.select(*log.__table__.columns).where(*where).order_by(log.instance_id, log.model_version, log.horizon_h)
    )
    numbers = [column.name for column in log.__table__.columns if isinstance(column.type, sa.Float)]
    return _read(engine, statement).astype(dict.fromkeys(numbers, "float64"))


def list_experiments(engine: sa.Engine, account_id: str | None = None, limit: int = 50) -> pd.DataFrame:
    """Evaluations, latest first.

    Returns:
        One row per evaluation: account_id, environment, window_start, step, state, snapshot_id, counts and
        details (dicts), failed_at_step, error, run_id, started_at, finished_at.

    Raises:
        InvalidInput: `limit` is not in 1 … 10,000.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"The limit must be between 1 and {MAX_LISTED}; got {limit}.")
    statement = _evaluations().order_by(Evaluation.window_start.desc(), Evaluation.account_id).limit(limit)
    if account_id is not None:
        statement = statement.where(Evaluation.account_id == account_id)
    return _read(engine, statement)


def evaluation_row(engine: sa.Engine, account_id: str, window_start: datetime | None = None) -> dict[str, Any]:
    """What is on record of an account's evaluation of a window, or of its latest; columns as `list_experiments`.

    Raises:
        NotFound: there is no such evaluation.
    """
    statement = _evaluations().where(Evaluation.account_id == account_id)
    if window_start is not None:
        statement = statement.where(Evaluation.window_start == window_start)
    with database_errors(), engine.connect() as connection:
        found = connection.execute(statement.order_by(Evaluation.window_start.desc()).limit(1)).mappings().one_or_none()
    if found is None:
        which = "none at all" if window_start is None else f"none of {window_start.isoformat()}"
        raise NotFound(
            f"Expected an evaluation of account {account_id}; there is {which}.",
            remedy="`spotlab experiments list` shows them all.",
        )
    return dict(found)


@dataclass(frozen=True)
class DueAccount:
    """An account whose current window has no evaluation yet."""

    account_id: str
    window_start: datetime
    regions: tuple[str, ...]


def due_accounts(engine: sa.Engine, now: datetime, *, retry_s: float) -> list[DueAccount]:
    """The active accounts whose current window has no evaluation yet, in account order.

    An account's windows are multiples of its own `evaluation_interval_s` since the epoch. A window that passed
    without an evaluation is not made up for: its market is gone. Accounts whose access is marked as lax or broken are
    left out until their next try.

    Args:
        retry_s: how long a marked account is left alone; setting access_retry_s.
    """
    if now.utcoffset() is None:
        raise InvalidInput(f"The current time must carry a time zone; got {now!r}.")
    seconds = sa.func.extract("epoch", sa.bindparam("now", now, sa.TIMESTAMP(timezone=True)))
    window = sa.func.to_timestamp(
        sa.func.floor(seconds / Account.evaluation_interval_s) * Account.evaluation_interval_s
    )
    # The limit keeps one index look-up an account; as an anti-join the whole history of evaluations would be read.
    begun = (
        sa.select(Evaluation.id)
        .where(Evaluation.account_id == Account.account_id, Evaluation.window_start == window)
        .limit(1)
        .scalar_subquery()
    )
    due = (
        sa.select(Account.account_id, window.label("window_start"), Account.regions)
        .where(Account.state == "active", ~is_skipped(now, retry_s), begun.is_(None))
        .order_by(Account.account_id)
    )
    with database_errors(), engine.connect() as connection:
        return [DueAccount(row.account_id, row.window_start, tuple(row.regions)) for row in connection.execute(due)]


def latest_notes(engine: sa.Engine) -> dict[str, dict[str, Any]]:
    """Of each active account's latest logged evaluation what it says of its versions: `drift` and `failed_versions`.

    Both by version, as `details` has them; empty where it has nothing of them. Beside them its `window_start`. Accounts
    that were never evaluated are left out.
    """
    details = Evaluation.details
    latest = (
        sa.select(Evaluation.window_start, *(details[name].label(name) for name in NOTES))
        .where(Evaluation.account_id == Account.account_id, Evaluation.state == "logged")
        .order_by(Evaluation.window_start.desc())
        .limit(1)
        .lateral()
    )
    query = (
        sa.select(Account.account_id, *latest.c)
        .join(latest, sa.true())
        .where(Account.state == "active")
        .order_by(Account.account_id)
    )
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    return {
        row["account_id"]: {"window_start": row["window_start"]} | {name: row[name] or {} for name in NOTES}
        for row in rows
    }


def row_counts(engine: sa.Engine) -> dict[str, int]:
    """The exact number of rows of every domain table but that of logins, which the pipeline may not look at."""
    counts = sa.union_all(
        *(
            sa.select(sa.literal(table.name).label("name"), sa.func.count().label("n")).select_from(table)
            for table in Base.metadata.sorted_tables
            if table.name != Login.__tablename__
        )
    )
    with database_errors(), engine.connect() as connection:
        return {row.name: row.n for row in connection.execute(counts)}


def _evaluations() -> sa.Select[Any]:
    return sa.select(
        Evaluation.account_id,
        Account.environment,
        Evaluation.window_start,
        Evaluation.step,
        Evaluation.state,
        Evaluation.snapshot_id,
        Evaluation.counts,
        Evaluation.details,
        Evaluation.failed_at_step,
        Evaluation.error,
        Evaluation.run_id,
        Evaluation.started_at,
        Evaluation.finished_at,
    ).join(Account, Account.account_id == Evaluation.account_id)


def _read(engine: sa.Engine, statement: sa.Select[Any]) -> pd.DataFrame:
    with database_errors(), engine.connect() as connection:
        result = connection.execute(statement)
        frame = pd.DataFrame(result.fetchall(), columns=list(result.keys()))
    times = [column.key for column in statement.selected_columns if isinstance(column.type, sa.TIMESTAMP)]
    return frame.astype(dict.fromkeys(times, "datetime64[us, UTC]"))
