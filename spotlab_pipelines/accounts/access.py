"""What the database knows about our access to an account: denials counted, verdicts kept, accounts skipped.

Every change here writes its audit row in the same transaction. Nothing here talks to AWS; sessions.py and
validation.py do, and tell what came of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.database import tables
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import database_errors

MARKED_STATES = ("lax", "access_broken")
"""Access states of accounts that are left alone until their next try."""

REASON_MAX = 500
"""Characters of a reason that are kept."""


def next_try(account: Account, retry_s: float) -> datetime | None:
    """When AWS may be asked about a marked account again; None if the account is not marked."""
    if account.access_state not in MARKED_STATES:
        return None
    checked_at = account.access_checked_at or datetime.fromtimestamp(0, UTC)
    return checked_at + timedelta(seconds=retry_s)


def door_is_due(account: Account, recheck_s: float) -> bool:
    """Whether it is time to try the account's door: never done, or too long ago. Marked ones have their own time."""
    if account.access_state in MARKED_STATES:
        return False
    checked_at = account.access_checked_at
    return checked_at is None or checked_at + timedelta(seconds=recheck_s) <= datetime.now(UTC)


def is_skipped(now: datetime, retry_s: float) -> sa.ColumnElement[bool]:
    """The condition on `tables.Account` that an account is marked as lax or broken and not yet due for its next try."""
    return sa.and_(
        tables.Account.access_state.in_(MARKED_STATES),
        sa.func.coalesce(tables.Account.access_checked_at, datetime.fromtimestamp(0, UTC))
        > now - timedelta(seconds=retry_s),
    )


def skipped_accounts(engine: sa.Engine, now: datetime, *, retry_s: float) -> dict[str, str]:
    """The active accounts that are not to be evaluated at `now`: account id → state and reason, for people."""
    account = tables.Account
    query = (
        sa.select(account.account_id, account.access_state, account.access_reason)
        .where(account.state == "active", is_skipped(now, retry_s))
        .order_by(account.account_id)
    )
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(query).all()
    return {account_id: f"{state}: {reason or 'no reason given'}" for account_id, state, reason in rows}


def note_assumed(engine: sa.Engine, account_id: str, *, counts: bool, **audit: Any) -> None:
    """The role was assumed and led to the account: no denial counts any more.

    That alone makes no account well: only a validation, which also tries whether the door is shut to others, does.
    """
    account = tables.Account
    counted_anew = sa.update(account).where(account.account_id == account_id, account.denials > 0).values(denials=0)
    with database_errors(), engine.begin() as connection:
        if counts:
            connection.execute(counted_anew)
        record(connection, "assume_role", account_id=account_id, outcome="done", **audit)


def note_denied(engine: sa.Engine, account_id: str, reason: str, *, denials_max: int, **audit: Any) -> None:
    """The role could not be assumed: one more denial, and with the `denials_max`-th the account is marked."""
    account = tables.Account
    this = account.account_id == account_id
    reason = reason[:REASON_MAX]
    counted = sa.update(account).where(this).values(denials=account.denials + 1)
    with database_errors(), engine.begin() as connection:
        denials, state = connection.execute(counted.returning(account.denials, account.access_state)).one()
        record(connection, "assume_role", account_id=account_id, outcome="refused", reason=reason, **audit)
        # Lax stays lax: only a validation that finds the door shut may take that mark away.
        if denials >= denials_max and state != "lax":
            _mark(connection, account_id, "access_broken", reason)
            record(
                connection,
                "access_broken",
                account_id=account_id,
                outcome="done",
                reason=reason,
                **(audit | {"denials": denials}),
            )


def store_verdict(
    engine: sa.Engine, account_id: str, state: str, reason: str | None, *, actor: str | None, **details: Any
) -> None:
    """Keep what validation found.

    Args:
        state: ok, lax or access_broken.
        details: what is worth keeping of the report; no secrets.
    """
    reason = reason and reason[:REASON_MAX]
    outcome = "done" if state == "ok" else "refused"
    entry = {"actor": actor, "account_id": account_id, "reason": reason}
    with database_errors(), engine.begin() as connection:
        _mark(connection, account_id, state, reason)
        record(connection, "validate_access", outcome=outcome, **entry, **(details | {"state": state}))
        if state == "access_broken":
            record(connection, "access_broken", outcome="done", **entry)


def note_door_shut(engine: sa.Engine, account_id: str, *, actor: str | None) -> None:
    """The role stayed shut without our external id and with a wrong one: the state stands, as of now."""
    account = tables.Account
    seen = sa.update(account).where(account.account_id == account_id, account.access_state.not_in(MARKED_STATES))
    with database_errors(), engine.begin() as connection:
        connection.execute(seen.values(access_checked_at=sa.func.now()))
        record(connection, "validate_access", actor=actor, account_id=account_id, door="shut")


def _mark(connection: sa.Connection, account_id: str, state: str, reason: str | None) -> None:
    values: dict[str, Any] = {"access_state": state, "access_reason": reason, "access_checked_at": sa.func.now()}
    if state == "ok":
        values["denials"] = 0
    connection.execute(sa.update(tables.Account).where(tables.Account.account_id == account_id).values(values))
