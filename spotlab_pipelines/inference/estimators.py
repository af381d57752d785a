"""The estimators that are kept in the registry: small scikit-learn compatible classes. They learn only in `fit`.

An artifact holds one of these classes and plain arrays, nothing else, so that the fixed list of trusted types stays
short. Each predicts an (n, n_horizons) array; checking features is the adapter's.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.settings import HORIZONS_H

HOURS_PER_MONTH = 730.5
"""Hours of a mean month: 365.25 days / 12 × 24. The Advisor's rate is of "the preceding month"."""


class HorizonEstimator(BaseEstimator):
    """What every kept estimator declares: the names of its columns, in order, and its horizons in hours."""

    feature_names: tuple[str, ...] | list[str]
    horizons_h: tuple[int, ...] | list[int]

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's own name
        """The interruption probabilities of X, (n, k) in the order of `feature_names`, as (n, n_horizons)."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Learn from X (n, k) and labels y (n, n_horizons): 1 interrupted, 0 survived, NaN censored (left out)."""
        raise NotImplementedError

    def check_arrays(self) -> None:
        """Refuse arrays that would lead compiled code astray: what an artifact holds is not taken on trust.

        Raises:
            ValueError: they are not what fitting makes.
        """


def known_rows(labels: np.ndarray, column: int, *, horizon_h: int, what: str) -> np.ndarray:
    """Which rows (n,) are labelled at a horizon, the `column`-th of `labels` (n, n_horizons).

    Raises:
        NotEnoughData: they do not hold both outcomes; `what` cannot be fitted.
    """
    known = ~np.isnan(labels[:, column])
    outcomes = np.unique(labels[known, column])
    if len(outcomes) < 2:
        raise NotEnoughData(
            f"{what} at {horizon_h} h needs interruptions and survivals; {int(known.sum())}"
            f" labelled examples hold only {outcomes.tolist()}."
        )
    return known


class AdvisorRateModel(HorizonEstimator):
    """The Spot Advisor's monthly rate, read as a constant hazard.

    The Advisor says that a share r of the instances of a type was interrupted in the trailing month. If the hazard λ
    does not change within the month of T = 730.5 hours, an instance survives it with probability exp(−λT) = 1 − r, so
    λ = −ln(1 − r) / T. It survives H hours with probability exp(−λH) = (1 − r)^(H/T), hence

        p_H = 1 − (1 − r)^(H / 730.5)

    The Advisor knows no zone and no hour of the day: all pools of a type, region and OS get the same probability.
    """

    def __init__(
        self,
        feature_names: tuple[str, ...] | list[str] = ("historic_interrupt_rate",),
        horizons_h: tuple[int, ...] | list[int] = HORIZONS_H,
    ) -> None:
        self.feature_names = feature_names
        self.horizons_h = horizons_h

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803
        """There is nothing to learn."""
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of X, an (n, 1) array of monthly rates in [0, 1)."""
        rate = np.asarray(X, dtype=float)[:, :1]
        with np.errstate(divide="ignore"):
            return -np.expm1(np.log1p(-rate) * (np.asarray(self.horizons_h, dtype=float) / HOURS_PER_MONTH))


class LogisticModel(HorizonEstimator):
    """One standardised logistic regression per horizon, fitted by scikit-learn and kept as four arrays.

    Attributes:
        mean_, scale_: (k,) the standardisation, learned from all rows of X.
        coef_: (n_horizons, k) and intercept_: (n_horizons,), per horizon learned from its uncensored rows.
    """

    mean_: np.ndarray
    scale_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(
        self,
        feature_names: tuple[str, ...] | list[str] = (),
        horizons_h: tuple[int, ...] | list[int] = HORIZONS_H,
        C: float = 1.0,  # noqa: N803 - scikit-learn's own name
    ) -> None:
        self.feature_names = feature_names
        self.horizons_h = horizons_h
        self.C = C

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit on X (n, k) and labels y (n, n_horizons): 1 interrupted, 0 survived, NaN censored (left out).

        Raises:
            NotEnoughData: a horizon has only one of the two outcomes.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        matrix, labels = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        scaler = StandardScaler().fit(matrix)
        self.mean_, self.scale_ = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
        standardised = (matrix - self.mean_) / self.scale_
        coefficients, intercepts = [], []
        for column, horizon in enumerate(self.horizons_h):
            known = known_rows(labels, column, horizon_h=horizon, what="A logistic regression")
            fitted = LogisticRegression(C=self.C, max_iter=1000).fit(standardised[known], labels[known, column])
            coefficients.append(fitted.coef_[0])
            intercepts.append(fitted.intercept_[0])
        self.coef_, self.intercept_ = np.array(coefficients), np.array(intercepts)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of X (n, k); each horizon by its own regression."""
        from scipy.special import expit

        standardised = (np.asarray(X, dtype=float) - self.mean_) / self.scale_
        return expit(standardised @ self.coef_.T + self.intercept_)
