"""How an account's owner steers instances: which version acts for them, in which mode, and whether only watched.

Each change leaves one audit row per instance, which the database writes by itself, whatever changes it. Whether `actor`
may is the caller's to check, unless the engine acts as a login: then row-level security does.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from spotlab_pipelines.database.audit import command_line_user
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import PIPELINE_MODES, Instance, ModelVersion
from spotlab_pipelines.errors import InvalidInput, ModelUnknown, NotFound


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
            Nothing was changed.
    """
    with database_errors(), engine.begin() as connection:
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
        InvalidInput: neither LINEAR nor CLUSTER. NotFound: an instance is not the account's. Nothing was changed.
    """
    if mode not in PIPELINE_MODES:
        raise InvalidInput(
            f"Expected the mode {' or '.join(PIPELINE_MODES)}, got {mode!r}.", remedy="Choose one of them."
        )
    with database_errors(), engine.begin() as connection:
        _change(connection, account_id, instance_ids, actor=actor, pipeline_mode=mode)


def set_shadow(
    engine: sa.Engine, account_id: str, instance_ids: Collection[str], shadow: bool, *, actor: str | None = None
) -> None:
    """Only watch these instances (decide and log, never act), or no longer.

    Raises:
        NotFound: an instance is not the account's. Nothing was changed.
    """
    with database_errors(), engine.begin() as connection:
        _change(connection, account_id, instance_ids, actor=actor, shadow=shadow)


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
