"""How an account's owner steers instances: which version acts for them, and whether they are only watched."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Instance, ModelVersion
from spotlab_pipelines.errors import ModelUnknown, NotFound


def assign_version(engine: sa.Engine, account_id: str, instance_ids: Collection[str], version: str | None) -> None:
    """Let `version` act for these instances from the next evaluation on; None: the champion, whichever it is then.

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
        _update(connection, account_id, instance_ids, assigned_version=version)


def set_shadow(engine: sa.Engine, account_id: str, instance_ids: Collection[str], shadow: bool) -> None:
    """Only watch these instances (decide and log, never act), or no longer.

    Raises:
        NotFound: an instance is not the account's. Nothing was changed.
    """
    with database_errors(), engine.begin() as connection:
        _update(connection, account_id, instance_ids, shadow=shadow)


def _update(
    connection: sa.Connection, account_id: str, instance_ids: Collection[str], **values: str | bool | None
) -> None:
    wanted = set(instance_ids)
    changed = connection.scalars(
        sa.update(Instance)
        .where(Instance.account_id == account_id, Instance.instance_id.in_(wanted))
        .values(**values)
        .returning(Instance.instance_id)
    )
    missing = wanted - set(changed)
    if missing:
        raise NotFound(
            f"Account {account_id} has no instance {', '.join(sorted(missing))}.",
            remedy="Sync its fleet first, or correct the id.",
        )
