"""What a version was fitted on, in a word; and that it cannot judge nor recalibrate it: which rows it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from spotlab_pipelines.errors import IntegrityError, InvalidInput, NotFound
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.inference.fitted_on import BASE, source_of
from spotlab_pipelines.inference.mlflow_models import fit_params
from spotlab_pipelines.inference.mlflow_store import mlflow_client, mlflow_errors
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.training.data import read_training_data

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

LATER = "Take a later --since, or train a version with an earlier --until."


def learned_from(settings: Settings, rows: Sequence[ServingVersion]) -> dict[str, str]:
    """By version: accounts, a trace, the version that it was recalibrated from and on what, or no data.

    Nothing of a version that was fitted on data of which MLflow does not know.

    Raises:
        StoreUnavailable: MLflow's database does not answer.
    """
    if not rows:
        return {}
    with mlflow_errors():
        fits = fit_params(mlflow_client(settings), rows)
    found = {row.version: source_of(fits.get(row.version, {})) for row in rows}
    return {version: source for version, source in found.items() if source is not None}


def fitted_on(settings: Settings, rows: Sequence[ServingVersion], trace: str) -> tuple[list[str], list[str]]:
    """The versions that learned from a trace, or were made of one that did, and those of which that is not known.

    Not known is what a package's model learned from, and what MLflow has lost. Both are in the order of `rows`, all
    versions.

    Raises:
        StoreUnavailable: MLflow's database does not answer.
    """
    if not rows:
        return [], []
    with mlflow_errors():
        fits = fit_params(mlflow_client(settings), rows)
    lost = {row.version for row in rows if "source" not in fits.get(row.version, {})}

    def made_of(version: str | None) -> set[str]:
        params = fits.get(version or "", {})
        return {str(version)} | (made_of(params[BASE]) if BASE in params else set())

    makings = {row.version: made_of(row.version) for row in rows}
    learned = [
        version
        for version, parts in makings.items()
        if any(fits.get(part, {}).get("source") == trace for part in parts)
    ]
    unknown = [version for version, parts in makings.items() if version not in learned and parts & lost]
    return learned, unknown


def check_unseen(
    settings: Settings, registry: ModelRegistry, row: ServingVersion, source: str, since: datetime | None
) -> None:
    """Refuse rows of a source from `since` on, None for all, that the version or one that it was made of has seen.

    Raises:
        InvalidInput: it was fitted or recalibrated on some of them.
        IntegrityError: MLflow does not know any more what it was fitted on.
    """
    for version, params in _made_of(settings, registry, row):
        if params.get("source") != source:
            continue
        until = params.get("until", "None")
        if since is None or until == "None" or datetime.fromisoformat(until) > since:
            learned, asked = "its end" if until == "None" else until, since.isoformat() if since else "its beginning"
            raise InvalidInput(
                f"{version.version} was fitted on {source} until {learned};"
                f" what it learned from cannot judge it from {asked} on.",
                remedy=LATER,
            )


def check_rows_unseen(
    settings: Settings, registry: ModelRegistry, archive: Archive, row: ServingVersion, examples: pd.DataFrame
) -> None:
    """Refuse examples of a pool and an instant that the version, or one that it was made of, was fitted on.

    Whatever the source is called now. A version whose examples the archive does not have says nothing here.

    Raises:
        InvalidInput: it has seen some of them.
        IntegrityError: what it was fitted on is no longer what it was, or not known any more.
    """
    key = [SAMPLED_AT, *POOL_KEY]
    for version, _ in _made_of(settings, registry, row):
        if version.training_sha256 is None:
            continue
        try:
            seen = read_training_data(archive, version.training_sha256).examples[key]
        except NotFound:
            continue
        known = len(examples[key].merge(seen.drop_duplicates()))
        if known:
            raise InvalidInput(
                f"{version.version} was fitted on {known} of these {len(examples)} rows, by pool and instant;"
                " what it learned from cannot judge it.",
                remedy=LATER,
            )


def _made_of(
    settings: Settings, registry: ModelRegistry, row: ServingVersion
) -> Iterator[tuple[ServingVersion, dict[str, str]]]:
    """The version and all that it was made of, each with the parameters of its fit."""
    while True:
        with mlflow_errors():
            params = fit_params(mlflow_client(settings), [row]).get(row.version)
        if params is None:
            raise IntegrityError(
                f"Expected MLflow to know what {row.version} was fitted on; it has lost the run {row.mlflow_run_id}.",
                remedy="Train a version anew, and take that.",
            )
        yield row, params
        if BASE not in params:
            return
        row = registry.find(params[BASE])
