"""Scoring an evaluation: champion, challengers and assigned versions predict on features of one frozen snapshot.

How they predict is batch.py's; here is which of them do, on which of the evaluation's tables, and what is kept of it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.features.drift import Drift, Reference, drift_of
from spotlab_pipelines.features.tables import MARKET_SPEC, feature_table
from spotlab_pipelines.inference.batch import COLUMNS, predict

if TYPE_CHECKING:
    from spotlab_pipelines.database.evaluations import EvaluationKey
    from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion
    from spotlab_pipelines.market.archive import Archive


@dataclass(frozen=True)
class ScoringReport:
    """What `score_evaluation` predicted. `probabilities` is (versions × pools, horizons).

    `versions` are all that should predict, by role; `failed` says of which why they did not. `drift` is by version and
    feature, from what the version was fitted on; None for one that has no reference.
    """

    account_id: str
    window_start: datetime
    champion: str
    versions: dict[str, str]
    failed: dict[str, str]
    pools: int
    mean_probability: dict[str, float]
    drift: dict[str, Drift | None]
    timings_ms: dict[str, float]
    probabilities: np.ndarray = field(repr=False)
    preview: pd.DataFrame = field(repr=False)


def score_evaluation(registry: ModelRegistry, archive: Archive, key: EvaluationKey) -> ScoringReport:
    """Predict for every pool with features, by every version that is served or assigned, and write `predictions`.

    A version that fails is kept with the reason and harms no other; instances that are assigned to it are skipped.

    Raises:
        NotFound: the evaluation has no features.
        ModelUnknown: there is no champion.
        ModelError, FeatureError, IntegrityError: the champion failed, by name.
            Whatever is raised, nothing was written.
    """
    started = time.perf_counter()
    frozen = archive.read_metadata(feature_table(MARKET_SPEC), key)
    rows, failed = versions_to_score(registry, archive.read_table("instances", key)["assigned_version"])
    tables = read_features(archive, key, {row.feature_spec for row in rows})
    loaded = time.perf_counter()
    found = predict(registry, [row for row in rows if row.version not in failed], tables)
    predictions, failed = found.frame, failed | found.failed
    predicted = time.perf_counter()
    drift = {
        row.version: None if row.reference is None else _drift(row.reference, tables[row.feature_spec])
        for row in rows
        if row.version not in failed
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
        **({"failed_versions": failed} if failed else {}),
        "versions": [
            {"version": row.version, "role": row.role, "sha256": row.artifact_sha256, "spec": row.feature_spec}
            | ({"failed": failed[row.version]} if row.version in failed else {})
            for row in rows
        ],
    }
    archive.write_table("predictions", key, predictions, metadata)
    means = predictions.groupby("model_version", sort=False)["p_6h"].mean()
    return ScoringReport(
        account_id=key.account_id,
        window_start=key.window_start,
        champion=rows[0].version,
        versions={row.version: row.role for row in rows},
        failed=failed,
        pools=len(tables[MARKET_SPEC]),
        mean_probability={str(version): float(mean) for version, mean in means.items()},
        drift=drift,
        timings_ms=timings,
        probabilities=np.column_stack([predictions[name].to_numpy() for name in COLUMNS]),
        preview=predictions.head(10),
    )


def versions_to_score(registry: ModelRegistry, assigned: pd.Series) -> tuple[list[ServingVersion], dict[str, str]]:
    """The champion, the challengers, and versions without a role that an instance is assigned to.

    Returns:
        Them all, and of those that may not predict the reason: an assigned version that is not approved any more.

    Raises:
        ModelUnknown: there is no champion, or an assigned version is not in the registry.
    """
    rows = registry.serving()
    served = {row.version for row in rows}
    others = [registry.find(version) for version in sorted(set(assigned.dropna()) - served)]
    refused = {
        row.version: f"{row.version} is {row.status}; only approved versions are served."
        for row in others
        if row.status != "approved"
    }
    return rows + others, refused


def _drift(reference: Reference, features: pd.DataFrame) -> Drift:
    """Pools of an instance family in a region go together: they share prices' ways, and some features altogether."""
    family = features["instance_type"].astype(str).str.split(".").str[0]
    return drift_of(reference, features, (features["region"].astype(str) + " " + family).to_numpy())


def read_features(archive: Archive, key: EvaluationKey, specs: Collection[str]) -> dict[str, pd.DataFrame]:
    """The evaluation's features of those of these specs that were computed from its snapshot.

    One may be missing, or be left from an earlier try: a version came to be scored after the features were computed.

    Raises:
        NotFound: those of MARKET_SPEC were not computed.
    """
    snapshot_id = archive.read_metadata(feature_table(MARKET_SPEC), key)["snapshot_id"]
    tables = {}
    for spec in sorted({MARKET_SPEC, *specs}):
        try:
            computed = archive.read_metadata(feature_table(spec), key)["snapshot_id"] == snapshot_id
        except NotFound:
            computed = False
        if computed:
            tables[spec] = archive.read_table(feature_table(spec), key)
    return tables


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
