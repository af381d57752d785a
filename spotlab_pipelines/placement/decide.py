"""Deciding an evaluation: reads its tables, applies LINEAR with the account's cost and the settings, writes decisions.

The rules themselves are linear.py's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.errors import IntegrityError
from spotlab_pipelines.features.tables import MARKET_SPEC, feature_table
from spotlab_pipelines.inference.frames import check_predictions
from spotlab_pipelines.placement.linear import Evaluated, Rules, Scored, decide_linear
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.database.evaluations import EvaluationKey
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings


@dataclass(frozen=True)
class DecisionReport:
    """What `decide_evaluation` decided. `acting` counts the decisions of each instance's own version."""

    account_id: str
    window_start: datetime
    instances: int
    versions: list[str]
    acting: dict[str, int]
    candidates_mean: float
    timings_ms: dict[str, float]
    preview: pd.DataFrame = field(repr=False)


PREVIEWED = ["instance_id", "model_version", "acting", "decision", "from_pool", "to_pool", "gain", "reason"]


def decide_evaluation(settings: Settings, engine: sa.Engine, archive: Archive, key: EvaluationKey) -> DecisionReport:
    """Decide for every instance under every version that scored it, and write `decisions`.

    Raises:
        NotFound: the account is not registered, or the evaluation has no predictions.
        IntegrityError: an instance is assigned a version that did not score.
    """
    started = time.perf_counter()
    account = get_account(engine, key.account_id)
    rules = Rules(
        horizons_h=HORIZONS_H,
        decision_horizon_h=settings.decision_horizon_h,
        interruption_cost_usd=account.interruption_cost_usd,
        minimum_gain=settings.minimum_gain,
        safe_interruption_rate_max=settings.safe_interruption_rate_max,
        environment=account.environment,
    )
    evaluated, scored_by = read_evaluated(archive, key)
    read = time.perf_counter()
    decisions = decide_linear(evaluated, rules)
    timings = {"decisions_read": _ms(read - started), "decisions": _ms(time.perf_counter() - read)}
    metadata = {"snapshot_id": scored_by["snapshot_id"], "timings_ms": timings, "rules": asdict(rules)}
    archive.write_table("decisions", key, decisions, metadata)
    acting = np.flatnonzero(decisions["acting"])
    candidates = decisions["candidates_considered"].to_numpy()[acting]
    return DecisionReport(
        account_id=key.account_id,
        window_start=key.window_start,
        instances=len(evaluated.instances),
        versions=[one.version for one in evaluated.scored],
        acting=dict(Counter(decisions["decision"].array[acting].tolist()).most_common()),
        candidates_mean=float(candidates.mean()) if len(candidates) else 0.0,
        timings_ms=timings,
        preview=pd.DataFrame({name: decisions[name].array[acting[:10]] for name in PREVIEWED}),
    )


def read_evaluated(archive: Archive, key: EvaluationKey) -> tuple[Evaluated, dict[str, Any]]:
    """The tables of an evaluation as LINEAR takes them, and the metadata of its predictions.

    Raises:
        NotFound: a table was not written.
        IntegrityError: an instance is assigned a version that did not score.
    """
    scored_by = archive.read_metadata("predictions", key)
    frozen = archive.read_metadata("features", key)
    scored = scored_versions(scored_by)
    more_specs = {one.spec for one in scored if not one.failed} - {MARKET_SPEC}
    instances = archive.read_table("instances", key)
    missing = set(instances["assigned_version"].dropna()) - {one.version for one in scored}
    if missing or frozen["snapshot_id"] != scored_by["snapshot_id"]:
        raise IntegrityError(
            f"The predictions of {key} are of another try than its features (versions without any: {sorted(missing)}).",
            remedy="Evaluate the account again, from its features on.",
        )
    evaluated = Evaluated(
        instances=instances,
        pools=archive.read_table("pools", key),
        features=archive.read_table("features", key),
        exclusions=archive.read_table("exclusions", key),
        predictions=check_predictions(archive.read_table("predictions", key), HORIZONS_H),
        fits=archive.read_table("fits", key),
        scored=scored,
        more_features={spec: archive.read_table(feature_table(spec), key) for spec in more_specs},
    )
    return evaluated, scored_by


def scored_versions(metadata: Mapping[str, Any]) -> list[Scored]:
    """The versions that the metadata of predictions names, the champion first."""
    return [
        Scored(entry["version"], entry["role"], entry.get("spec", MARKET_SPEC), entry.get("failed", ""))
        for entry in metadata["versions"]
    ]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
