"""What an account is to SpotLab: LAB or PROD, active or disabled. Who may change that is rights.py's business."""

from __future__ import annotations

import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import acting
from spotlab_pipelines.accounts.registry import Account, check_environment, get_account, not_registered
from spotlab_pipelines.database import tables
from spotlab_pipelines.database.audit import record


def set_environment(engine: sa.Engine, account_id: str, environment: str, *, actor: str | None = None) -> Account:
    """Make a LAB account PROD or the other way round, which of all users admins alone may.

    Raises:
        InvalidInput: another environment than LAB or PROD.
        NotAllowed: the actor is a user who is no admin.
        NotFound: the account is not registered.
    """
    check_environment(environment)
    return _change(engine, "change_environment", account_id, "environment", environment, actor)


def disable_account(engine: sa.Engine, account_id: str, *, actor: str | None = None) -> Account:
    """Let SpotLab enter the account no more: it loses its partition, and no session is opened. Its rows stay.

    Raises:
        NotAllowed: the actor is a user who may not steer this account.
        NotFound: the account is not registered.
    """
    return _change(engine, "disable_account", account_id, "state", "disabled", actor)


def enable_account(engine: sa.Engine, account_id: str, *, actor: str | None = None) -> Account:
    """Take a disabled account up again; errors as in `disable_account`."""
    return _change(engine, "enable_account", account_id, "state", "active", actor)


def _change(engine: sa.Engine, act: str, account_id: str, column: str, after: str, actor: str | None) -> Account:
    account = tables.Account
    this = sa.select(account.__table__.c[column]).where(account.account_id == account_id).with_for_update()
    with acting(engine, act, actor=actor, account_id=account_id, after=after) as connection:
        before = connection.scalar(this)
        if before is None:
            raise not_registered(account_id)
        connection.execute(sa.update(account).where(account.account_id == account_id).values({column: after}))
        record(connection, act, actor=actor, account_id=account_id, subject=after, before=before, after=after)
    return get_account(engine, account_id)
