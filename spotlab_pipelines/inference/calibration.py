"""Calibration: making a model's probabilities the shares that come true. The maps are plain arrays beside the model.

Which rows a map is learned from, and which kind is taken, is the trainer's choice (training/calibrating.py): it must be
rows that the model was not fitted on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.inference.estimators import HorizonEstimator

IDENTITY, PLATT, ISOTONIC = "identity", "platt", "isotonic"
SLOPE_PRIOR, INTERCEPT_PRIOR = 10.0, 3.0
"""Precisions of what is believed of Platt's map before any row: slope 1 and intercept 0, the model as it is. In
independent rows; chosen by recalibrating on one to five days within the first weeks of the launch probes, on the same
and on other types, where a free map did worse than none. The intercept gives way sooner, as markets differ in it."""
FARTHEST = 1e-6
"""Probabilities count as at least this far from 0 and 1 when their log odds are taken."""

Curve = tuple[str, np.ndarray, np.ndarray]
"""(identity, -, -), (platt, (slope, intercept), -), or (isotonic, probabilities before, probabilities after)."""
NO_CURVE: Curve = (IDENTITY, np.zeros(0), np.zeros(0))


class CalibratedModel(HorizonEstimator):
    """One fitted model for each horizon, each with its own columns, and the maps that its probabilities go through.

    It is put together, not fitted: training chooses, fits and calibrates each horizon for itself.

    Attributes:
        models: for each horizon a fitted model of that one horizon.
        curves: for each horizon the maps, the first to be applied first. None turns the order of two pools around.
    """

    def __init__(
        self,
        models: list[HorizonEstimator],
        curves: list[list[Curve]],
        feature_names: tuple[str, ...] | list[str],
        horizons_h: tuple[int, ...] | list[int],
    ) -> None:
        self.models = models
        self.curves = curves
        self.feature_names = feature_names
        self.horizons_h = horizons_h

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of X (n, k) in the order of `feature_names`, (n, n_horizons)."""
        matrix, place = np.asarray(X, dtype=float), {name: number for number, name in enumerate(self.feature_names)}
        found = np.empty((len(matrix), len(self.horizons_h)))
        for column, (model, curves) in enumerate(zip(self.models, self.curves, strict=True)):
            said = model.predict(matrix[:, [place[name] for name in model.feature_names]])[:, 0]
            for curve in curves:
                said = apply_curve(curve, said)
            found[:, column] = said
        return found

    def check_arrays(self) -> None:
        """Those of each horizon's model."""
        for model in self.models:
            model.check_arrays()

    def through(self, curves: list[Curve]) -> CalibratedModel:
        """The same models with one more map for each horizon."""
        longer = [[*before, curve] for before, curve in zip(self.curves, curves, strict=True)]
        return CalibratedModel(self.models, longer, self.feature_names, self.horizons_h)


def apply_curve(curve: Curve, probability: np.ndarray) -> np.ndarray:
    """Send (n,) probabilities through a map."""
    from scipy.special import expit

    method, before, after = curve
    if method == PLATT:
        return expit(before[0] * log_odds(probability) + before[1])
    if method == ISOTONIC:
        return np.interp(probability, before, after)
    return probability


def fit_platt(probability: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> Curve:
    """Slope and intercept on the log odds that make the outcomes likeliest, leaning on the model as it is.

    Args:
        probability: (n,) what the model said of rows it was not fitted on. outcome: (n,) 1 or 0.
        weight: (n,) how many independent rows each counts as; see training/folds.py.

    Raises:
        NotEnoughData: there is no row.
    """
    from scipy.optimize import minimize

    if len(outcome) == 0:
        raise NotEnoughData("Expected predictions with a known outcome to calibrate with, got none.")
    odds = log_odds(probability)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = at
        z = slope * odds + intercept
        prior = SLOPE_PRIOR * (slope - 1) ** 2 / 2 + INTERCEPT_PRIOR * intercept**2 / 2
        value = float(weight @ (np.logaddexp(0.0, z) - outcome * z)) + prior
        error = weight * (1.0 / (1.0 + np.exp(-z)) - outcome)
        return value, np.array([error @ odds + SLOPE_PRIOR * (slope - 1), error.sum() + INTERCEPT_PRIOR * intercept])

    # A slope below 0 would turn the order of the pools around.
    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return PLATT, np.asarray(found.x, dtype=float), np.zeros(0)


def fit_isotonic(probability: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> Curve:
    """The non-decreasing steps that fit best; arguments as in `fit_platt`.

    No step is 0 or 1: as if one more row of each outcome had been seen everywhere.

    Raises:
        NotEnoughData: there is no row.
    """
    from sklearn.isotonic import IsotonicRegression

    if len(outcome) == 0:
        raise NotEnoughData("Expected predictions with a known outcome to calibrate with, got none.")
    fitted = IsotonicRegression().fit(probability, outcome, sample_weight=weight)
    least = 1.0 / (float(weight.sum()) + 2.0)
    after = np.clip(np.asarray(fitted.y_thresholds_, dtype=float), least, 1.0 - least)
    return ISOTONIC, np.asarray(fitted.X_thresholds_, dtype=float), after


def log_odds(probability: np.ndarray) -> np.ndarray:
    """ln(p / (1 − p)) of (n,) probabilities, finite."""
    p = np.clip(probability, FARTHEST, 1.0 - FARTHEST)
    return np.log(p) - np.log1p(-p)
