"""Acting as somebody: the transaction of an act, which begins once its actor's rights are checked.

An actor is named as in the audit log. `user:<id>` is a user, whose role is read in the same transaction that changes
something, and whose refusal is on record. Anybody else is the operator of this machine or one of the pipeline's runs:
whoever has the database's URL needs nobody's leave. What each role may is rights.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from spotlab_pipelines.accounts.rights import ActedUpon, refusal
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Account, User
from spotlab_pipelines.errors import NotAllowed

USER = "user:"


def actor_of(user_id: UUID) -> str:
    """How a user is named as an actor."""
    return f"{USER}{user_id}"


@contextmanager
def acting(
    engine: sa.Engine,
    act: str,
    *,
    actor: str | None,
    account_id: str | None = None,
    subject: str | None = None,
    upon: ActedUpon | None = None,
    **details: Any,
) -> Iterator[sa.Connection]:
    """The transaction of an act, begun for those alone who may do it.

    Args:
        act: one of the acts of `rights.RIGHTS`, which are actions of the audit log.
        actor: who acts; None for the person at the command line.
        account_id: the account that is acted upon; its environment and owner are read here.
        subject, details: for the audit row of a refusal.
        upon: what is acted upon, for what is no registered account.

    Raises:
        NotAllowed: the actor is a user who may not, is disabled, or does not exist. It is on record.
    """
    try:
        with database_errors(), engine.begin() as connection:
            _check(connection, act, _proven(connection, actor), account_id, upon)
            yield connection
    except NotAllowed as error:
        with database_errors(), engine.begin() as connection:
            actor = _proven(connection, actor)
            known = connection.scalar(sa.select(Account.account_id).where(Account.account_id == account_id))
            # An account that is not registered cannot be referred to, but what was tried stays readable.
            record(
                connection, act, actor=actor, account_id=known, subject=subject, outcome="refused", reason=str(error),
                **(details if known == account_id else details | {"account": account_id}),
            )  # fmt: skip
        raise


def check_rights(engine: sa.Engine, act: str, *, actor: str | None, subject: str | None = None) -> None:
    """Check an act that is about no account and begins outside the database; a refusal is on record.

    Raises:
        NotAllowed: see `acting`.
    """
    with acting(engine, act, actor=actor, subject=subject):
        pass


def _proven(connection: sa.Connection, actor: str | None) -> str | None:
    """Where a login's user acts, they do so in their own name, whoever is named."""
    if connection.get_execution_options().get("login") is None:
        return actor
    return f"{USER}{connection.scalar(sa.select(sa.func.app_user_id()))}"


def _check(
    connection: sa.Connection, act: str, actor: str | None, account_id: str | None, upon: ActedUpon | None
) -> None:
    if actor is None or not actor.startswith(USER):
        return
    # Not locked: two admins who disable each other would wait for each other. An act that began in time counts.
    query = sa.select(User.id, User.email, User.role, User.active)
    try:
        found = connection.execute(query.where(User.id == UUID(actor.removeprefix(USER)))).one_or_none()
    except ValueError:
        found = None
    if found is None or not found.active:
        raise NotAllowed(
            f"Expected an active user to {_said(act)}; {actor} is {'disabled' if found else 'none'}.",
            remedy="Act as somebody else: `spotlab users list`.",
        )
    if upon is None:
        upon = ActedUpon() if account_id is None else _account(connection, account_id, found.id)
    expected = refusal(found.role, act, upon)
    if expected is not None:
        what = "" if account_id is None else f": account {account_id}"
        raise NotAllowed(
            f"Expected {expected} to {_said(act)}; {found.email} has the role {found.role}{what}.",
            remedy="Ask an admin.",
        )


def _account(connection: sa.Connection, account_id: str, user_id: UUID) -> ActedUpon:
    query = sa.select(Account.environment, Account.owner_id).where(Account.account_id == account_id)
    found = connection.execute(query).one_or_none()
    return ActedUpon() if found is None else ActedUpon(found.environment, own=found.owner_id == user_id)


def _said(act: str) -> str:
    return act.replace("_", " ")
