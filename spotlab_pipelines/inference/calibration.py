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
SLOPE_PRIOR, INTERCEPT_PRIOR = 50.0, 10.0
"""Precisions of what is believed of Platt's map before any row: slope 1 and intercept 0, the model as it is. In
independent rows; chosen by walking forward through the first weeks of the launch probes, where a free map learned from
days of clustered failures did worse than none."""
FARTHEST = 1e-6
"""Probabilities count as at least this far from 0 and 1 when their log odds are taken."""

Curve = tuple[str, np.ndarray, np.ndarray]
"""(identity, -, -), (platt, (slope, intercept), -), or (isotonic, probabilities before, probabilities after)."""
NO_CURVE: Curve = (IDENTITY, np.zeros(0), np.zeros(0))


class CalibratedModel(HorizonEstimator):
    """A fitted model, and a map for each horizon through which its probabilities go.

    Attributes:
        curves_: one Curve a horizon. A map never turns the order of two pools around.
    """

    curves_: list[Curve]

    def __init__(self, model: HorizonEstimator) -> None:
        self.model = model

    @property
    def feature_names(self) -> list[str]:  # type: ignore[override]
        """Those of the model."""
        return list(self.model.feature_names)

    @property
    def horizons_h(self) -> list[int]:  # type: ignore[override]
        """Those of the model."""
        return list(self.model.horizons_h)

    def with_curves(self, curves: list[Curve]) -> CalibratedModel:
        """The same model with these maps."""
        found = CalibratedModel(self.model)
        found.curves_ = curves
        return found

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The model's probabilities (n, n_horizons), each horizon through its map."""
        raw = self.model.predict(X)
        return np.column_stack([apply_curve(curve, raw[:, column]) for column, curve in enumerate(self.curves_)])


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
        weight: (n,) how many independent rows each counts as; see `training.folds.independence`.

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
