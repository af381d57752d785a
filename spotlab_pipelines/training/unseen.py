"""What a version was fitted on cannot judge it, nor recalibrate it: which rows it has not seen."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.inference.mlflow_store import mlflow_client, mlflow_errors

if TYPE_CHECKING:
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.settings import Settings

BASE = "base_version"
"""The parameter of a recalibrated version that names the one it was made of."""


def check_unseen(
    settings: Settings, registry: ModelRegistry, row: ServingVersion, source: str, since: datetime | None
) -> None:
    """Refuse rows of a source from `since` on, None for all, that the version or one that it was made of has seen.

    Raises:
        InvalidInput: it was fitted or recalibrated on some of them.
    """
    with mlflow_errors():
        params = mlflow_client(settings).get_run(row.mlflow_run_id).data.params
    until = params.get("until", "None")
    if params.get("source") == source and (since is None or until == "None" or datetime.fromisoformat(until) > since):
        learned, asked = "its end" if until == "None" else until, since.isoformat() if since else "its beginning"
        raise InvalidInput(
            f"{row.version} was fitted on {source} until {learned};"
            f" what it learned from cannot judge it from {asked} on.",
            remedy="Take a later --since, or train a version with an earlier --until.",
        )
    if BASE in params:
        check_unseen(settings, registry, registry.find(params[BASE]), source, since)
