"""The rows of `model_registry` as the rooms know them. Reading only; what changes them is registry.py and roles.py."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from spotlab_pipelines.database.tables import ModelVersion

if TYPE_CHECKING:
    from spotlab_pipelines.features.drift import Reference


@dataclass(frozen=True)
class ServingVersion:
    """A row of the registry, as far as serving needs it. `artifact_uri` is relative to `mlruns_dir`."""

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


def select_versions(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[ServingVersion]:
    """Rows of the registry: the champion first, then challengers, then the rest, each by version."""
    columns = [getattr(ModelVersion, field.name) for field in fields(ServingVersion)]
    rank = sa.func.array_position(array(["champion", "challenger", "none"]), ModelVersion.role)
    rows = connection.execute(
        sa.select(*columns).where(*where).order_by(rank, ModelVersion.family, ModelVersion.number)
    )
    return [ServingVersion(**{**row._mapping, "horizons_h": tuple(row.horizons_h)}) for row in rows]
