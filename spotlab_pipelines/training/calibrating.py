"""Which calibration a model gets: tried on days that it was not learned from. Pure; the maps are inference's.

"Plenty" is counted in independent examples: six labels of one hour are one.
"""

from __future__ import annotations

import numpy as np

from spotlab_pipelines.inference.calibration import (
    NO_CURVE,
    Curve,
    apply_curve,
    fit_isotonic,
    fit_platt,
)

ISOTONIC_MINIMUM = 500.0
"""Independent examples of each outcome from which steps may be learned; with fewer, two numbers are enough."""


def choose_curve(
    predicted: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray,
    block: np.ndarray,
    *,
    at: np.ndarray,
    embargo_us: int,
) -> tuple[Curve, np.ndarray]:
    """The map for one horizon, and what each row would have been told by a map that was learned from other blocks.

    No map, Platt's, or steps: one that is not simplest has to beat the simpler one by more than a standard error of the
    mean difference in log loss over the blocks.

    Args:
        predicted: (n,) out-of-fold probabilities. outcome: (n,) 1 or 0. weight: (n,) independent rows each counts as.
        block: (n,) blocks of days; with one alone nothing can be tried, and Platt's map, which leans on the model, is
            taken if there are rows.
        at: (n,) instants in microseconds. No map is tried on a block that it was learned within the embargo of: labels
            reach into it from before, and what features look back on from after.
    """
    if not len(outcome):
        return NO_CURVE, predicted
    plenty = min(weight @ outcome, weight @ (1.0 - outcome)) >= ISOTONIC_MINIMUM
    ways = [lambda *_: NO_CURVE, fit_platt, *([fit_isotonic] if plenty else [])]
    numbers = np.unique(block)
    if len(numbers) < 2:
        return fit_platt(predicted, outcome, weight), predicted
    told = np.empty((len(ways), len(outcome)))
    for number in numbers:
        test = block == number
        away = (at < at[test].min() - embargo_us) | (at > at[test].max() + embargo_us)
        for way, fit in enumerate(ways):
            curve = fit(predicted[away], outcome[away], weight[away]) if away.any() else NO_CURVE
            told[way, test] = apply_curve(curve, predicted[test])
    losses = np.array([[_loss(told[way], outcome, block == number) for number in numbers] for way in range(len(ways))])
    best = 0
    for way in range(1, len(ways)):
        gain = losses[best] - losses[way]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(numbers)):
            best = way
    return ways[best](predicted, outcome, weight), told[best]


def log_losses(predicted: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """The log loss of each of n predictions, finite."""
    p = np.clip(predicted, 1e-9, 1 - 1e-9)
    return -(outcome * np.log(p) + (1.0 - outcome) * np.log1p(-p))


def _loss(predicted: np.ndarray, outcome: np.ndarray, rows: np.ndarray) -> float:
    return float(log_losses(predicted[rows], outcome[rows]).mean())
