"""The audit log: who did what, when, with which outcome. Append-only: the database refuses every change to a row.

What is worth an entry is decided by the rooms that act. No entry holds a secret, a token or an external id: `reason`
and `details` are written by our own code from our own errors' messages.
"""

from __future__ import annotations

import getpass
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import AUDIT_ACTIONS, AuditEntry
from spotlab_pipelines.errors import InvalidInput

LISTED_MAX = 10_000


def record(
    connection: sa.Connection,
    action: str,
    *,
    actor: str | None = None,
    account_id: str | None = None,
    subject: str | None = None,
    outcome: str = "done",
    reason: str | None = None,
    request_id: str | None = None,
    **details: Any,
) -> None:
    """Add one entry, in the transaction of what it tells: either both are kept or neither.

    Args:
        action: one of `tables.AUDIT_ACTIONS`.
        actor: who acted: `user:<id>`, `run:<id>`; by default the person at this machine's command line.
        subject: what was acted upon, when it is not the account itself: an instance, a version, a user.
        outcome: done, refused or failed.
        request_id: AWS's or the API's id of the request.
    """
    values = {
        "action": action,
        "actor": actor or command_line_user(),
        "account_id": account_id,
        "subject": subject,
        "outcome": outcome,
        "reason": reason,
        "request_id": request_id,
        "details": details,
    }
    # Inline: asking for the new row's id back would need the right to read it, which whoever is refused may not have.
    # And what is not told is not named: the API may fill in no request_id.
    told = {name: value for name, value in values.items() if value is not None}
    connection.execute(sa.insert(AuditEntry).values(told).inline())


def record_alone(engine: sa.Engine, action: str, **values: Any) -> None:
    """Add one entry in a transaction of its own: for what happened outside the database, or was refused."""
    with database_errors(), engine.begin() as connection:
        record(connection, action, **values)


def list_entries(
    engine: sa.Engine,
    *,
    account_id: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    subject: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Entries, latest first: those of one account, action, actor or subject, or all.

    Raises:
        InvalidInput: there is no such action, or `limit` is not in 1 … 10,000.
    """
    if action is not None and action not in AUDIT_ACTIONS:
        raise InvalidInput(f"Expected one of the actions {', '.join(AUDIT_ACTIONS)}, got {action!r}.")
    if not 1 <= limit <= LISTED_MAX:
        raise InvalidInput(f"The limit must be between 1 and {LISTED_MAX}; got {limit}.")
    entry = AuditEntry
    wanted = ((entry.account_id, account_id), (entry.action, action), (entry.actor, actor), (entry.subject, subject))
    query = (
        sa.select(entry.at, entry.actor, entry.action, entry.account_id, entry.subject, entry.outcome, entry.reason,
                  entry.request_id, entry.details)
        .where(*(column == value for column, value in wanted if value is not None))
        .order_by(entry.at.desc())
        .limit(limit)
    )  # fmt: skip
    with database_errors(), engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def command_line_user() -> str:
    """Who sits at this process: `cli:<name>`."""
    # A container may run as a user id that no user database knows.
    with suppress(KeyError, OSError):
        return f"cli:{getpass.getuser()}"
    return "cli:unknown"
