"""How an account's owner steers instances: which version acts for them, in which mode, and whether only watched.

Each change leaves one audit row per instance, which the database writes by itself, whatever changes it. An actor who is
a user needs the right to it: see rights.py.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import acting
from spotlab_pipelines.database.audit import command_line_user
from spotlab_pipelines.database.tables import PIPELINE_MODES, Instance, ModelVersion
from spotlab_pipelines.errors import InvalidInput, ModelUnknown, NotFound

REFUSED_INSTANCES_MAX = 20


def assign_version(
    engine: sa.Engine,
    account_id: str,
    instance_ids: Collection[str],
    version: str | None,
    *,
    actor: str | None = None,
) -> None:
    """Let `version` act for these instances from the next evaluation on; None: the champion, whichever it is then.

    Args:
        actor: who does it, for the audit log: `user:<id>`; by default the person at the command line.

    Raises:
        ModelUnknown: there is no such approved version. NotFound: an instance is not the account's.
            NotAllowed: the actor is a user who may not steer this account.
            Nothing was changed.
    """
    with _steering(engine, "assign_version", actor, account_id, instance_ids, to=version) as connection:
        approved = sa.select(ModelVersion.version).where(
            ModelVersion.version == version, ModelVersion.status == "approved"
        )
        if version is not None and connection.scalar(approved) is None:
            raise ModelUnknown(
                f"Expected an approved version such as logistic/1; got {version!r}.",
                remedy="`spotlab models list` shows them all.",
            )
        _change(connection, account_id, instance_ids, actor=actor, assigned_version=version)


def set_mode(
    engine: sa.Engine, account_id: str, instance_ids: Collection[str], mode: str, *, actor: str | None = None
) -> None:
    """Let these instances be placed by another algorithm from the next evaluation on.

    Raises:
        InvalidInput: neither LINEAR nor CLUSTER. NotFound: an instance is not the account's. NotAllowed: the actor
            is a user who may not steer this account. Nothing was changed.
    """
    if mode not in PIPELINE_MODES:
        raise InvalidInput(
            f"Expected the mode {' or '.join(PIPELINE_MODES)}, got {mode!r}.", remedy="Choose one of them."
        )
    with _steering(engine, "set_mode", actor, account_id, instance_ids, to=mode) as connection:
        _change(connection, account_id, instance_ids, actor=actor, pipeline_mode=mode)


def set_shadow(
    engine: sa.Engine, account_id: str, instance_ids: Collection[str], shadow: bool, *, actor: str | None = None
) -> None:
    """Only watch these instances (decide and log, never act), or no longer.

    Raises:
        NotFound: an instance is not the account's. NotAllowed: the actor is a user who may not steer this account.
            Nothing was changed.
    """
    with _steering(engine, "set_shadow", actor, account_id, instance_ids, to=shadow) as connection:
        _change(connection, account_id, instance_ids, actor=actor, shadow=shadow)


def _steering(
    engine: sa.Engine, act: str, actor: str | None, account_id: str, instance_ids: Collection[str], **to: Any
) -> AbstractContextManager[sa.Connection]:
    """The transaction of a change. One that is refused leaves one row, naming no more instances than can be read."""
    named = sorted(instance_ids)[:REFUSED_INSTANCES_MAX]
    return acting(engine, act, actor=actor, account_id=account_id, instances=named, **to)


def _change(
    connection: sa.Connection,
    account_id: str,
    instance_ids: Collection[str],
    *,
    actor: str | None,
    **values: str | bool | None,
) -> None:
    # For the audit row that the database writes; where a login's user acts, it takes their name and not this one.
    connection.execute(sa.select(sa.func.set_config("app.actor", actor or command_line_user(), True)))
    wanted = set(instance_ids)
    changed = connection.scalars(
        sa.update(Instance)
        .where(Instance.account_id == account_id, Instance.instance_id.in_(wanted))
        .values(**values)
        .returning(Instance.instance_id)
    ).all()
    missing = wanted - set(changed)
    if missing:
        raise NotFound(
            f"Account {account_id} has no instance {', '.join(sorted(missing))}.",
            remedy="Sync its fleet first, or correct the id.",
        )
