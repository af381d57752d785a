"""Drift: how far the features of an evaluation are from those that a version was fitted on. Pure: no I/O, no settings.

A version keeps a reference of its training features: per feature the edges of bins and how many rows fell into each.
An evaluation's features are counted into the same bins and compared in two ways:

- PSI = Σ (q − p) ln(q / p) over the bins, p the reference's share and q the evaluation's. Each share is
  (count + ½) / (rows + bins / 2), so that an empty bin on either side gives a large number and not an infinite one.
- KS = the largest distance of the two cumulative shares at the bins' edges, unsmoothed; rows where the feature is
  missing come last. Between two edges the true distance may be larger, by at most the share of one bin.

Few rows drift by chance: without any drift, PSI is (bins − 1) (1/rows + 1/reference rows) on average (Yurdakul 2018,
"Statistical properties of the population stability index"), given as `psi_by_chance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = np.linspace(0.1, 0.9, 9)
SMOOTHING = 0.5

Reference = dict[str, dict[str, Any]]
"""By feature: `edges` (k,) ascending, `counts` (k + 1,) of values in (−∞, e₁], (e₁, e₂] … (eₖ, ∞), and if the feature
can be missing `indicator`, the column that says so, whose rows are the last of then k + 2 counts. JSON-able."""
Drift = dict[str, dict[str, float]]
"""By feature: psi, ks, psi_by_chance."""


def reference_of(
    training: pd.DataFrame, names: Sequence[str], indicators: Mapping[str, str] | None = None
) -> Reference:
    """The bins of a version's training features: cut at their deciles.

    A value that holds a tenth of the rows or more, such as the Advisor's five rates, has a bin for itself: else
    smaller values would hide in it.

    Args:
        training: one row an example, finite.
        names: the features that the version reads.
        indicators: feature -> the column that is 1 where it is missing and its value only stands in.
    """
    reference: Reference = {}
    for name in names:
        indicator = (indicators or {}).get(name)
        known = training[name].to_numpy(dtype=float)
        if indicator is not None:
            known = known[training[indicator].to_numpy(dtype=float) == 0]
        edges = _edges(known)
        reference[name] = {"edges": edges.tolist()} | ({} if indicator is None else {"indicator": indicator})
        reference[name]["counts"] = _counts(training, name, reference[name]).tolist()
    return reference


def drift_of(reference: Reference, features: pd.DataFrame) -> Drift:
    """PSI and KS of each feature of the reference against an evaluation's features.

    Returns:
        By feature: psi, ks, psi_by_chance. Empty if there are no rows: nothing was compared, which is not "no drift".
    """
    if features.empty:
        return {}
    found = {}
    for name, bins in reference.items():
        before, now = np.array(bins["counts"], dtype=float), _counts(features, name, bins).astype(float)
        found[name] = {
            "psi": psi(before, now),
            "ks": ks(before, now),
            "psi_by_chance": float((len(now) - 1) * (1 / now.sum() + 1 / before.sum())),
        }
    return found


def psi(before: np.ndarray, now: np.ndarray) -> float:
    """The population stability index of two (k,) counts over the same bins, smoothed as this module's head says."""
    p, q = ((counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts)) for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def ks(before: np.ndarray, now: np.ndarray) -> float:
    """The largest distance of the cumulative shares of two (k,) counts over the same bins."""
    return float(np.abs(np.cumsum(before) / before.sum() - np.cumsum(now) / now.sum()).max())


def _edges(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return values
    cuts, times = np.unique(np.quantile(values, QUANTILES, method="lower"), return_counts=True)
    return np.unique(np.concatenate([cuts, np.nextafter(cuts[times > 1], -np.inf)]))


def _counts(frame: pd.DataFrame, name: str, bins: Mapping[str, Any]) -> np.ndarray:
    size = len(bins["edges"]) + 1
    place = np.searchsorted(bins["edges"], frame[name].to_numpy(dtype=float), side="left")
    if "indicator" not in bins:
        return np.bincount(place, minlength=size)
    missing = frame[bins["indicator"]].to_numpy(dtype=float) == 1
    return np.bincount(np.where(missing, size, place), minlength=size + 1)
