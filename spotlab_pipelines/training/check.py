"""How well a model does on days it was not fitted on. Pure; what is logged of it is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.market.canonical import utc_ticks

if TYPE_CHECKING:
    from spotlab_pipelines.inference.estimators import HorizonEstimator

SECONDS_PER_DAY = 86_400


def blocked_check(
    make: Callable[[], HorizonEstimator],
    matrix: np.ndarray,
    labels: np.ndarray,
    day: np.ndarray,
    *,
    blocks: int = 5,
) -> dict[str, float]:
    """Fit on all blocks of days but one, predict that one, and judge all such predictions together.

    Days are kept whole, because interruptions of one event share a day: a random split would know the answers.

    Args:
        make: an unfitted estimator.
        matrix: (n, k). labels: (n, n_horizons), NaN censored. day: (n,) number of the day of each row.
        blocks: consecutive days form this many blocks; a block without which nothing can be fitted is left out.

    Returns:
        For each horizon H: n_<H>h, events_<H>h, base_rate_<H>h, and if both outcomes were seen auc_<H>h and
        brier_skill_<H>h, against always predicting the base rate of the days fitted on.
    """
    from spotlab_pipelines.errors import NotEnoughData

    _, rank = np.unique(day, return_inverse=True)
    block = rank * blocks // (rank.max() + 1)
    predicted = np.full(labels.shape, np.nan)
    base = np.full(labels.shape, np.nan)
    for held_out in range(blocks):
        test = block == held_out
        # All rows of one day are one block: nothing would be left to fit on.
        if test.all():
            continue
        try:
            model = make().fit(matrix[~test], labels[~test])  # type: ignore[attr-defined]
        except NotEnoughData:
            continue
        predicted[test] = model.predict(matrix[test])
        base[test] = np.nanmean(labels[~test], axis=0)
    report: dict[str, float] = {}
    for column, horizon in enumerate(make().horizons_h):
        known = ~np.isnan(labels[:, column])
        judged = known & ~np.isnan(predicted[:, column])
        outcome = labels[known, column]
        report |= {f"n_{horizon}h": float(len(outcome)), f"events_{horizon}h": float(outcome.sum())}
        report[f"base_rate_{horizon}h"] = float(outcome.mean()) if len(outcome) else 0.0
        report |= _judge(labels[judged, column], predicted[judged, column], base[judged, column], horizon)
    return report


def days_of(times: pd.Series) -> np.ndarray:
    """The UTC day of each time, as a number."""
    return utc_ticks(times.dt.as_unit("s")) // SECONDS_PER_DAY


def _judge(outcome: np.ndarray, predicted: np.ndarray, base: np.ndarray, horizon: int) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    if len(np.unique(outcome)) < 2:
        return {}
    brier, reference = np.mean((predicted - outcome) ** 2), np.mean((base - outcome) ** 2)
    return {
        f"auc_{horizon}h": float(roc_auc_score(outcome, predicted)),
        f"brier_skill_{horizon}h": float(1 - brier / reference),
    }
