"""The estimators that look up how often it happened: the base rate, and a hazard by the time in the present state.

Both learn in `fit` and keep plain arrays alone; the other families are in estimators.py and boosting.py.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from spotlab_pipelines.inference.estimators import HorizonEstimator, known_rows
from spotlab_pipelines.settings import HORIZONS_H

STATES = ("available", "failing", "unknown")
KNOTS_LOG_H = np.log1p(np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 720.0]))
"""Centres of the bins of the time in the present state, in log(1 + hours): the same for every market, so that a table
says the same of a pool wherever it was learned."""
TIME_FEATURES = ("log_hours_without_failure", "log_hours_failing", "history_missing")


class BaseRateModel(HorizonEstimator):
    """The share of interruptions among the examples, for every pool: what a forecaster without any skill says.

    Attributes:
        rate_: (n_horizons,).
    """

    rate_: np.ndarray

    def __init__(
        self,
        feature_names: tuple[str, ...] | list[str] = ("history_missing",),
        horizons_h: tuple[int, ...] | list[int] = HORIZONS_H,
    ) -> None:
        self.feature_names = feature_names
        self.horizons_h = horizons_h

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Count. Raises NotEnoughData if a horizon has only one of the two outcomes."""
        labels = np.asarray(y, dtype=float)
        self.rate_ = np.array(
            [
                labels[known_rows(labels, column, horizon_h=horizon, what="A base rate"), column].mean()
                for column, horizon in enumerate(self.horizons_h)
            ]
        )
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The rates, for each row of X (n, k)."""
        return np.tile(self.rate_, (len(X), 1))


class HazardModel(HorizonEstimator):
    """Interruptions by the state a pool is in and by how long it has been: a table, smoothed.

    Reads `TIME_FEATURES`. A row lies between two bins and counts in both by its distance; a prediction is interpolated
    in the same way. A cell of weight n with e events holds (e + m r) / (n + m), where r is the rate of its state, which
    itself leans on the rate of all with the weight m: where nothing was seen, the table says what is usual.

    Attributes:
        table_: (n_horizons, 3 states, bins) probabilities.
    """

    table_: np.ndarray

    def __init__(
        self,
        feature_names: tuple[str, ...] | list[str] = TIME_FEATURES,
        horizons_h: tuple[int, ...] | list[int] = HORIZONS_H,
        smoothing: float = 20.0,
    ) -> None:
        self.feature_names = feature_names
        self.horizons_h = horizons_h
        self.smoothing = smoothing

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Count. Raises NotEnoughData if a horizon has only one of the two outcomes."""
        labels = np.asarray(y, dtype=float)
        state, bin_, share = self._cells(X)
        tables = []
        for column, horizon in enumerate(self.horizons_h):
            known = known_rows(labels, column, horizon_h=horizon, what="A hazard table")
            rows = (state[known], bin_[known], share[known])
            weight, events = _summed(*rows, np.ones(known.sum())), _summed(*rows, labels[known, column])
            m = self.smoothing
            usual = (events.sum(axis=1) + m * events.sum() / weight.sum()) / (weight.sum(axis=1) + m)
            tables.append((events + m * usual[:, None]) / (weight + m))
        self.table_ = np.clip(np.array(tables), 0.0, 1.0)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of X (n, 3): hours without failure and failing as log(1 + hours), history missing 0 or 1."""
        state, bin_, share = self._cells(X)
        between = self.table_[:, state, bin_] * (1.0 - share) + self.table_[:, state, bin_ + 1] * share
        return np.clip(between.T, 0.0, 1.0)

    def _cells(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: N803
        """Of each row its state, the bin below it, and its share in the bin above."""
        without, failing, missing = np.asarray(X, dtype=float).T
        state = np.where(missing > 0, 2, np.where(failing > 0, 1, 0))
        time = np.where(state == 2, 0.0, np.where(state == 1, failing, without))
        place = np.interp(time, KNOTS_LOG_H, np.arange(len(KNOTS_LOG_H)))
        bin_ = np.minimum(place.astype(np.int64), len(KNOTS_LOG_H) - 2)
        return state, bin_, place - bin_


def _summed(state: np.ndarray, bin_: np.ndarray, share: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(3, bins) sums of (n,) values, each shared out to the two bins around its row."""
    bins = len(KNOTS_LOG_H)
    cell = state * bins + bin_
    total = np.bincount(cell, weights=value * (1.0 - share), minlength=len(STATES) * bins)
    total += np.bincount(cell + 1, weights=value * share, minlength=len(STATES) * bins)
    return total.reshape(len(STATES), bins)
