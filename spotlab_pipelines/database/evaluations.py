"""The life of an evaluation as a row: begun, logged or failed. Shared by every room that works on an evaluation.

What an evaluation decided is `experiments/`'s; this module only knows which ones exist and how they ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import Evaluation
from spotlab_pipelines.errors import InvalidInput


@dataclass(frozen=True, order=True)
class EvaluationKey:
    """The logical key of one evaluation: a 12-digit account id and a UTC-aware window start."""

    account_id: str
    window_start: datetime

    def __post_init__(self) -> None:
        if self.window_start.utcoffset() is None:
            raise InvalidInput(f"A window start must carry a time zone; got {self.window_start!r}.")
        object.__setattr__(self, "window_start", self.window_start.astimezone(UTC))

    def __str__(self) -> str:
        return f"{self.account_id} at {self.window_start.isoformat()}"


def lock_account(connection: sa.Connection, account_id: str) -> None:
    """Hold the account's advisory lock until the transaction ends: one writer per account, on any machine."""
    lock(connection, f"account/{account_id}")


def begin_evaluation(engine: sa.Engine, key: EvaluationKey, run_id: str | None) -> int:
    """Create the evaluation, or reopen one that failed; return its step, the account's running number from 1.

    One that is already logged stays as it is.
    """
    with database_errors(), engine.begin() as connection:
        lock_account(connection, key.account_id)
        next_step = (
            sa.select(sa.func.coalesce(sa.func.max(Evaluation.step), 0) + 1)
            .where(Evaluation.account_id == key.account_id)
            .scalar_subquery()
        )
        statement = insert(Evaluation).values(
            account_id=key.account_id, window_start=key.window_start, step=next_step, run_id=run_id
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[Evaluation.account_id, Evaluation.window_start],
                set_={
                    "state": "running",
                    "run_id": statement.excluded.run_id,
                    "error": None,
                    "failed_at_step": None,
                    "finished_at": None,
                },
                where=Evaluation.state != "logged",
            )
        )
        return connection.execute(sa.select(Evaluation.step).where(*_is(key))).scalar_one()


def fail_evaluation(engine: sa.Engine, key: EvaluationKey, *, at_step: str, error: str) -> None:
    """Record which step failed and why; an evaluation that is already logged stays as it is."""
    with database_errors(), engine.begin() as connection:
        connection.execute(
            sa.update(Evaluation)
            .where(*_is(key), Evaluation.state == "running")
            .values(
                state="failed",
                failed_at_step=at_step,
                error=error,
                finished_at=sa.func.now(),
            )
        )


@dataclass(frozen=True)
class Running:
    """An evaluation that is on record as going on, and the run that began or reopened it."""

    key: EvaluationKey
    run_id: str | None
    started_at: datetime


def running_evaluations(engine: sa.Engine) -> list[Running]:
    """The evaluations that are on record as going on, those of one run together."""
    query = (
        sa.select(Evaluation.account_id, Evaluation.window_start, Evaluation.run_id, Evaluation.started_at)
        .where(Evaluation.state == "running")
        .order_by(Evaluation.run_id, Evaluation.account_id, Evaluation.window_start)
    )
    with database_errors(), engine.connect() as connection:
        return [
            Running(EvaluationKey(account_id, window_start), run_id, started_at)
            for account_id, window_start, run_id, started_at in connection.execute(query)
        ]


@dataclass(frozen=True)
class FailedEvaluation:
    """Where an evaluation failed, and why."""

    at_step: str
    error: str


def failed_accounts(engine: sa.Engine, window_start: datetime, account_ids: list[str]) -> dict[str, FailedEvaluation]:
    """The accounts among `account_ids` whose evaluation of this window has failed, with where and why."""
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(
            sa.select(Evaluation.account_id, Evaluation.failed_at_step, Evaluation.error).where(
                Evaluation.window_start == window_start,
                Evaluation.account_id.in_(account_ids),
                Evaluation.state == "failed",
            )
        )
        return {row.account_id: FailedEvaluation(row.failed_at_step, row.error) for row in rows}


def logged_accounts(engine: sa.Engine, window_start: datetime, account_ids: list[str]) -> set[str]:
    """The accounts among `account_ids` whose evaluation of this window is in the log."""
    with database_errors(), engine.connect() as connection:
        return set(
            connection.scalars(
                sa.select(Evaluation.account_id).where(
                    Evaluation.window_start == window_start,
                    Evaluation.account_id.in_(account_ids),
                    Evaluation.state == "logged",
                )
            )
        )


def _is(key: EvaluationKey) -> tuple[sa.ColumnElement[bool], ...]:
    return (Evaluation.account_id == key.account_id, Evaluation.window_start == key.window_start)
