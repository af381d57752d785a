"""A version's way: candidate, approved, retired; approved, it may be champion or challenger. Each step is on record.

Which steps there are is here, and that Postgres and MLflow show the same; who may take them is accounts/rights.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import acting
from spotlab_pipelines.database.audit import record, record_alone
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import AuditEntry, ModelVersion
from spotlab_pipelines.errors import (
    FeatureError,
    IntegrityError,
    InvalidInput,
    ModelError,
    ModelUnknown,
    PermanentError,
)
from spotlab_pipelines.inference.mlflow_models import show_role
from spotlab_pipelines.inference.mlflow_store import mlflow_errors
from spotlab_pipelines.inference.promotion import PromotionGate
from spotlab_pipelines.inference.versions import ServingVersion, select_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient  # noqa: TID251

LISTED = "`spotlab models list` shows them all."
FIRST_MODELS = "Run `spotlab models bootstrap`, which fits and registers the first versions."

Fault = Callable[[ServingVersion], PermanentError | None]
"""Why a version cannot be opened; None if it can."""


def change_role(
    engine: sa.Engine,
    client: MlflowClient,
    version: str,
    action: str,
    *,
    actor: str | None,
    to: tuple[str, str],
    fault: Fault,
    gate: PromotionGate | None = None,
) -> ServingVersion:
    """Change a version's row and what MLflow shows of it, on record; all or nothing.

    Args:
        action: approve_model, promote_model or retire_model.
        to: the version's new status and role.
        gate: what taking the place of the champion, or of the last one, asks for; of the very first nothing is asked.

    Raises:
        NotAllowed: the actor is a user who is no admin.
        NotProven: the gate is shut.
        ModelUnknown, ModelTampered, ModelError, InvalidInput: it is no step for this version. The refusal is on record.
    """
    try:
        # What MLflow shows is put back last of all, where the transaction does not end well either.
        with ExitStack() as shown, acting(engine, action, actor=actor, subject=version) as connection:
            # One change of roles at a time: two promotions at once could leave MLflow behind.
            lock(connection, "models")
            before = {row.version: row for row in select_versions(connection)}
            _check_step(before.get(version), version, action, fault)
            why = _overruled(connection, before, version, gate)
            changed = _move(connection, before, version, to)
            row = before[version]
            was, now = {"status": row.status, "role": row.role}, {"status": to[0], "role": to[1]}
            sha256 = row.artifact_sha256
            record(connection, action, actor=actor, subject=version, sha256=sha256, before=was, after=now, **why)
            after = select_versions(connection, ModelVersion.version == version)[0]
            # Last, as MLflow has no part in the transaction: from here on only its end can fail.
            shown.enter_context(_shown(client, before, changed))
            return after
    except (ModelError, InvalidInput, IntegrityError, FeatureError) as error:
        # In a transaction of its own: the other one has ended without a trace.
        record_alone(engine, action, actor=actor, subject=version, outcome="refused", reason=str(error))
        raise


def _overruled(
    connection: sa.Connection, before: dict[str, ServingVersion], version: str, gate: PromotionGate | None
) -> dict[str, Any]:
    """What the record says of a gate that was overruled; raises if it is shut."""
    if gate is None:
        return {}
    champion = next((row.version for row in before.values() if row.role == "champion"), _last_promoted(connection))
    if champion in (None, version):
        return {}
    found = gate.overruled(connection, champion=champion, challenger=version)
    return {} if found is None else {"override": gate.override, "overruled": found}


def _last_promoted(connection: sa.Connection) -> str | None:
    """The champion of before: one that was retired, as its files were gone, leaves a place that is not free to all."""
    return connection.scalar(
        sa.select(AuditEntry.subject)
        .where(AuditEntry.action == "promote_model", AuditEntry.outcome == "done")
        .order_by(AuditEntry.id.desc())
        .limit(1)
    )


def _check_step(row: ServingVersion | None, version: str, action: str, fault: Fault) -> None:
    if row is None:
        raise ModelUnknown(f"Expected a registered version such as logistic/1, got {version!r}.", remedy=LISTED)
    champion = row.role == "champion"
    if action == "retire_model":
        if row.status == "retired":
            raise InvalidInput(f"Expected a version to retire; {version} is retired already.", remedy=LISTED)
        # A champion that cannot be opened serves nobody, so it may go: that is how a new one takes its place.
        if champion and fault(row) is None:
            raise InvalidInput(
                f"Expected a version that is not the champion; {version} is, and without one nothing is evaluated.",
                remedy="Promote another first: `spotlab models promote`.",
            )
        return
    if champion:
        raise InvalidInput(f"Expected a version that is not the champion yet; {version} is.", remedy=LISTED)
    if action == "promote_model" and row.status != "approved":
        raise ModelUnknown(
            f"Expected an approved version to promote; {version} is {row.status}.",
            remedy=f"Approve it first: `spotlab models approve {version}`.",
        )
    found = fault(row)
    if found is not None:
        raise found


def _move(
    connection: sa.Connection, before: dict[str, ServingVersion], version: str, to: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """Change the rows; the new status and role of each version that has others now, in the order of the changes."""
    changed = {version: to}
    if to[1] == "champion":
        # The champion of before goes first: there may be only one at any moment.
        of_before = [row.version for row in before.values() if row.role == "champion"]
        changed = dict.fromkeys(of_before, ("approved", "challenger")) | changed
    for name, (status, role) in changed.items():
        connection.execute(
            sa.update(ModelVersion)
            .where(ModelVersion.version == name)
            .values(status=status, role=role, updated_at=sa.func.now())
        )
    return changed


@contextmanager
def _shown(
    client: MlflowClient, before: dict[str, ServingVersion], changed: dict[str, tuple[str, str]]
) -> Iterator[None]:
    """Let MLflow show the changes: all of them, or what was there if one fails or what is done meanwhile does."""
    try:
        for name, (status, role) in changed.items():
            with mlflow_errors():
                show_role(client, before[name], status=status, role=role)
        yield
    except BaseException:
        # The last first: within a family, taking an alias away would take it from whoever has it by then.
        for name, (status, role) in reversed(changed.items()):
            row = before[name]
            with suppress(Exception):
                show_role(client, replace(row, status=status, role=role), status=row.status, role=row.role)
        raise
