"""How good predictions were, by what really happened: discrimination, sharpness, calibration. Pure arrays and numbers.

Which rows are judged together is the caller's choice; whether one version beats another is verdict.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotEnoughData

BINS = 15
"""Bins of equal mass, for the calibration error and the reliability diagram."""

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Scorecard:
    """What n predictions with known outcomes are worth; nan where a figure does not exist, never a stand-in.

    Attributes:
        base_rate: share of interruptions; what a forecaster without any skill would say.
        roc_auc, pr_auc: nan unless both outcomes were seen.
        brier, brier_skill: mean squared error, and 1 − brier / (base_rate × (1 − base_rate)).
        reliability, resolution, uncertainty: Murphy's decomposition over the bins, brier = reliability − resolution +
            uncertainty; the resolution holds the terms within bins (Stephenson et al. 2008), so that it adds up.
        ece: expected calibration error, the mean distance of a bin's rate from its mean prediction, by mass.
        bins: reliability diagram, one row a bin: n, events, mean_predicted, observed_rate.
        thresholds: one row a threshold: flagged (share), precision, recall, false_positive_rate.
    """

    n: int
    events: int
    base_rate: float
    roc_auc: float
    pr_auc: float
    log_loss: float
    brier: float
    brier_skill: float
    reliability: float
    resolution: float
    uncertainty: float
    ece: float
    bins: pd.DataFrame
    thresholds: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """The figures that exist, by name: what MLflow and the registry keep."""
        named = {name: float(value) for name, value in vars(self).items() if not isinstance(value, pd.DataFrame)}
        return {name: value for name, value in named.items() if np.isfinite(value)}


def scorecard(outcome: np.ndarray, predicted: np.ndarray) -> Scorecard:
    """Judge (n,) predicted probabilities by (n,) outcomes: 1 interrupted, 0 survived.

    Raises:
        NotEnoughData: there is no row.
        InvalidInput: an outcome other than 0 and 1 (censored rows are the caller's to leave out), or a prediction that
            is no probability.
    """
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    outcome, predicted = check_pairs(outcome, predicted)
    n, events = len(outcome), int(outcome.sum())
    base_rate = events / n
    both = 0 < events < n
    bins = reliability_bins(outcome, predicted)
    brier = float(np.mean((predicted - outcome) ** 2))
    uncertainty = base_rate * (1 - base_rate)
    mass = bins["n"].to_numpy() / n
    gap = (bins["mean_predicted"] - bins["observed_rate"]).to_numpy()
    reliability = float(mass @ gap**2)
    return Scorecard(
        n=n,
        events=events,
        base_rate=base_rate,
        roc_auc=float(roc_auc_score(outcome, predicted)) if both else float("nan"),
        pr_auc=float(average_precision_score(outcome, predicted)) if both else float("nan"),
        log_loss=float(log_loss(outcome, predicted, labels=[0, 1])),
        brier=brier,
        brier_skill=1 - brier / uncertainty if both else float("nan"),
        reliability=reliability,
        resolution=reliability + uncertainty - brier,
        uncertainty=uncertainty,
        ece=float(mass @ np.abs(gap)),
        bins=bins,
        thresholds=threshold_table(outcome, predicted),
    )


def reliability_bins(outcome: np.ndarray, predicted: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Bins of equal mass, lowest predictions first; equal predictions share a bin, whatever the order of the rows.

    Returns:
        At most `bins` rows: n, events, mean_predicted, observed_rate.
    """
    ordered = np.sort(predicted)
    place = np.searchsorted(ordered, predicted, side="left") * bins // len(predicted)
    _, number = np.unique(place, return_inverse=True)
    count = np.bincount(number)
    events = np.bincount(number, weights=outcome)
    return pd.DataFrame(
        {
            "n": count,
            "events": events.astype("int64"),
            # A mean of equal numbers may differ from them in its last bit, and 1 must not be exceeded.
            "mean_predicted": np.clip(np.bincount(number, weights=predicted) / count, 0.0, 1.0),
            "observed_rate": events / count,
        }
    )


def threshold_table(
    outcome: np.ndarray, predicted: np.ndarray, thresholds: tuple[float, ...] = THRESHOLDS
) -> pd.DataFrame:
    """What flagging every prediction at or above a threshold would have brought.

    Returns:
        One row a threshold: threshold, flagged (share of rows), precision, recall, false_positive_rate; nan where a
        share is one of nothing.
    """
    flagged = predicted[None, :] >= np.asarray(thresholds)[:, None]
    hits = flagged @ outcome
    total, events = flagged.sum(axis=1), outcome.sum()
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "threshold": thresholds,
                "flagged": total / len(outcome),
                "precision": np.divide(hits, total),
                "recall": hits / np.float64(events),
                "false_positive_rate": (total - hits) / np.float64(len(outcome) - events),
            }
        )


def check_pairs(outcome: np.ndarray, *predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outcomes and predictions as float64 arrays of one length, each value what it should be; see `scorecard`."""
    outcome, predictions = np.asarray(outcome, dtype=float), [np.asarray(each, dtype=float) for each in predicted]
    if len(outcome) == 0:
        raise NotEnoughData("Expected predictions with a known outcome to judge, got none.")
    if any(each.shape != outcome.shape or outcome.ndim != 1 for each in predictions):
        raise InvalidInput(
            f"Expected one prediction an outcome, got {len(outcome)} outcomes and predictions of the shapes"
            f" {', '.join(str(each.shape) for each in predictions)}."
        )
    odd = ~np.isin(outcome, (0.0, 1.0))
    if odd.any():
        raise InvalidInput(
            f"Expected outcomes of 0 or 1, got {outcome[odd][0]:g} in row {int(np.flatnonzero(odd)[0])}.",
            remedy="Leave censored rows out.",
        )
    for each in predictions:
        odd = ~((each >= 0) & (each <= 1))
        if odd.any():
            raise InvalidInput(
                f"Expected probabilities in [0, 1], got {each[odd][0]:g} in row {int(np.flatnonzero(odd)[0])}."
            )
    return outcome, *predictions
