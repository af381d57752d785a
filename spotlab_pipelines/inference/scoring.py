"""Scoring an evaluation: champion, challengers and assigned versions predict on features of one frozen snapshot."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import FeatureVersionMismatch, IntegrityError
from spotlab_pipelines.features.drift import Drift, drift_of
from spotlab_pipelines.features.tables import MARKET_SPEC, feature_table
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from spotlab_pipelines.database.evaluations import EvaluationKey
    from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion
    from spotlab_pipelines.market.archive import Archive


@dataclass(frozen=True)
class ScoringReport:
    """What `score_evaluation` predicted. `probabilities` is (versions × pools, horizons).

    `drift` is by version and feature, from what the version was fitted on; None for one that has no reference.
    """

    account_id: str
    window_start: datetime
    champion: str
    versions: dict[str, str]
    pools: int
    mean_probability: dict[str, float]
    drift: dict[str, Drift | None]
    timings_ms: dict[str, float]
    probabilities: np.ndarray = field(repr=False)
    preview: pd.DataFrame = field(repr=False)


def score_evaluation(registry: ModelRegistry, archive: Archive, key: EvaluationKey) -> ScoringReport:
    """Predict for every pool with features, by every version that is served or assigned, and write `predictions`.

    Raises:
        NotFound: the evaluation has no features, or none of a version's spec.
        ModelUnknown: there is no champion, or an instance is assigned a version that is not approved.
        ModelTampered: an artifact is not the approved one.
        FeatureVersionMismatch, FeatureMissing, FeatureOutOfRange: a model cannot take these features.
            Whatever is raised, nothing was written.
    """
    started = time.perf_counter()
    frozen = archive.read_metadata(feature_table(MARKET_SPEC), key)
    rows = versions_to_score(registry, archive.read_table("instances", key)["assigned_version"])
    tables = read_features(archive, key, {MARKET_SPEC, *(row.feature_spec for row in rows)})
    loaded = time.perf_counter()
    predictions = predict(registry, rows, tables)
    predicted = time.perf_counter()
    drift = {
        row.version: None if row.reference is None else drift_of(row.reference, tables[row.feature_spec])
        for row in rows
    }
    timings = {
        "models": _ms(loaded - started),
        "predictions": _ms(predicted - loaded),
        "drift": _ms(time.perf_counter() - predicted),
    }
    metadata = {
        "snapshot_id": frozen["snapshot_id"],
        "scored_at": datetime.now(UTC).isoformat(),
        "timings_ms": timings,
        "drift": drift,
        "versions": [
            {"version": row.version, "role": row.role, "sha256": row.artifact_sha256, "spec": row.feature_spec}
            for row in rows
        ],
    }
    archive.write_table("predictions", key, predictions, metadata)
    columns = [f"p_{horizon}h" for horizon in HORIZONS_H]
    means = predictions.groupby("model_version", sort=False)["p_6h"].mean()
    return ScoringReport(
        account_id=key.account_id,
        window_start=key.window_start,
        champion=rows[0].version,
        versions={row.version: row.role for row in rows},
        pools=len(tables[MARKET_SPEC]),
        mean_probability={str(version): float(mean) for version, mean in means.items()},
        drift=drift,
        timings_ms=timings,
        probabilities=predictions[columns].to_numpy(),
        preview=predictions.head(10),
    )


def versions_to_score(registry: ModelRegistry, assigned: pd.Series) -> list[ServingVersion]:
    """The champion, the challengers, and versions without a role that an instance is assigned to.

    Raises:
        ModelUnknown: there is no champion, or an assigned version is unknown or not approved.
    """
    rows = registry.serving()
    served = {row.version for row in rows}
    others = sorted(set(assigned.dropna()) - served)
    return rows + [registry.get(version) for version in others]


def read_features(archive: Archive, key: EvaluationKey, specs: Collection[str]) -> dict[str, pd.DataFrame]:
    """The evaluation's features of these specs.

    Raises:
        NotFound: one was not computed: a version came to be scored after the features were.
        IntegrityError: they stem from different snapshots.
    """
    tables = {spec: feature_table(spec) for spec in sorted(specs)}
    snapshots = {archive.read_metadata(table, key)["snapshot_id"] for table in tables.values()}
    if len(snapshots) != 1:
        raise IntegrityError(
            f"The feature tables of {key} ({', '.join(tables.values())}) are of different tries.",
            remedy="Evaluate the account again, from its features on.",
        )
    return {spec: archive.read_table(table, key) for spec, table in tables.items()}


def predict(registry: ModelRegistry, rows: list[ServingVersion], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The predictions of every version, one block of pools after the other, each on the features of its own spec.

    Args:
        tables: feature spec -> features, computed from one snapshot.

    Raises:
        IntegrityError: a version does not predict the horizons that the log has.
        FeatureVersionMismatch: there are no features of a version's spec.
    """
    models = [registry.open(row) for row in rows]
    for model in models:
        if model.horizons_h != HORIZONS_H:
            raise IntegrityError(
                f"{model.version} predicts {model.horizons_h} h; the log has {HORIZONS_H} h.",
                remedy=f"Retire {model.version} and fit it anew.",
            )
        if model.get_feature_version() not in tables:
            raise FeatureVersionMismatch(
                f"{model.version} was fitted on feature spec {model.get_feature_version()}; there are features of"
                f" {', '.join(sorted(tables))}."
            )
    seen = [tables[model.get_feature_version()] for model in models]
    blocks = [
        model.predict_batch(features, model.get_feature_version()) for model, features in zip(models, seen, strict=True)
    ]
    probabilities = np.concatenate(blocks)
    names = pd.Series([model.version for model in models], dtype="str").array
    return pd.DataFrame(
        {
            **_pools_of(seen),
            "model_version": names.take(np.repeat(np.arange(len(models)), [len(block) for block in blocks])),
            **{f"p_{horizon}h": probabilities[:, column] for column, horizon in enumerate(HORIZONS_H)},
        }
    )


def _pools_of(seen: list[pd.DataFrame]) -> dict[str, Any]:
    """The pool key of all rows of these frames, one frame after the other; most often they are one and the same."""
    if all(frame is seen[0] for frame in seen):
        pool = np.tile(np.arange(len(seen[0])), len(seen))
        return {column: seen[0][column].array.take(pool) for column in POOL_KEY}
    pools = pd.concat([frame[list(POOL_KEY)] for frame in seen], ignore_index=True)
    return {column: pools[column].array for column in POOL_KEY}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
