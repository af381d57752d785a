"""The rows of `model_registry` as the rooms know them. Reading only; what changes them is registry.py and roles.py."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from spotlab_pipelines.database.tables import AuditEntry, ModelVersion
from spotlab_pipelines.errors import ModelUnknown

if TYPE_CHECKING:
    from spotlab_pipelines.features.drift import Reference


ACTS = ("register_model", "approve_model")
"""What must be on record of a version that is served, in this order."""


@dataclass(frozen=True)
class ServingVersion:
    """A row of the registry, as far as serving needs it.

    Attributes:
        artifact_uri: relative to `mlruns_dir`.
        training_sha256: the fingerprint of the data it was fitted on; None if on nothing.
        acts: which of `ACTS` the audit log has of this version with this very hash, by somebody who might.
    """

    version: str
    family: str
    number: int
    role: str
    status: str
    feature_spec: str
    horizons_h: tuple[int, ...]
    artifact_uri: str
    artifact_sha256: str
    mlflow_run_id: str
    mlflow_model_id: str | None
    metrics: dict[str, Any]
    registered_by: str
    reference: Reference | None
    training_sha256: str | None
    acts: tuple[str, ...]


def select_versions(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[ServingVersion]:
    """Rows of the registry: the champion first, then challengers, then the rest, each by version."""
    rows = connection.execute(_versions().where(*where))
    return [
        ServingVersion(**{**row._mapping, "horizons_h": tuple(row.horizons_h), "acts": tuple(row.acts or ())})
        for row in rows
    ]


@lru_cache(maxsize=1)
def _versions() -> sa.Select[Any]:
    columns = [getattr(ModelVersion, field.name) for field in fields(ServingVersion) if field.name != "acts"]
    # The audit log is append-only, and done acts get into it by our own commands alone, which ask for rights first.
    acts = (
        sa.select(sa.func.array_agg(sa.distinct(AuditEntry.action)))
        .where(
            AuditEntry.action.in_(ACTS),
            AuditEntry.outcome == "done",
            AuditEntry.subject == ModelVersion.version,
            AuditEntry.details["sha256"].astext == ModelVersion.artifact_sha256,
        )
        .scalar_subquery()
        .label("acts")
    )
    rank = sa.func.array_position(array(["champion", "challenger", "none"]), ModelVersion.role)
    return sa.select(*columns, acts).order_by(rank, ModelVersion.family, ModelVersion.number)


def check_on_record(row: ServingVersion) -> None:
    """Refuse a row that nobody who may has put there: it was registered, and if it is approved approved, on record.

    Raises:
        ModelUnknown: the audit log does not have it, of this version with this hash.
    """
    lacking = [act for act in (ACTS if row.status == "approved" else ACTS[:1]) if act not in row.acts]
    if lacking:
        raise ModelUnknown(
            f"{row.version} stands in model_registry with sha256 {row.artifact_sha256}, but the audit log has no"
            f" {' and no '.join(lacking)} of it by anybody who may. It was not opened.",
            remedy=f"Find out who wrote that row; then retire it: `spotlab models retire {row.version}`.",
        )
