"""Drift: how far the features of an evaluation are from those that a version was fitted on. Pure: no I/O, no settings.

A version keeps a reference of its training features: per feature the edges of bins and how many rows fell into each.
An evaluation's features are counted into the same bins and compared in two ways:

- PSI = Σ (q − p) ln(q / p) over the bins, p the reference's share and q the evaluation's. Each share is
  (count + ½) / (rows + bins / 2), so that an empty bin on either side gives a large number and not an infinite one.
- KS = the largest distance of the two cumulative shares at the bins' edges, unsmoothed; rows where the feature is
  missing come last. Between two edges the true distance may be larger, by at most the share of one bin.

Few rows drift by chance. Without any drift, PSI would be (bins − 1) (1/rows + 1/reference rows) on average (Yurdakul
2018, "Statistical properties of the population stability index") were its shares not smoothed; as they are, 1/rows is
rows / (rows + bins / 2)² on either side. That is given as `psi_by_chance`. In 99 of 100 comparisons KS stays below
√(ln(200)/2) √(1/rows + 1/reference rows) (Smirnov 1948), `ks_by_chance`. So few rows tell nothing at all: not even all
of them in one bin would exceed chance. `psi_most` and `ks_most` are what that would give, were they worth as many
independent rows as they are now.

Rows that go together, such as the pools of a family in a region, are not so many observations: they are counted as
rows / (1 + (m − 1) ρ), `rows_effective`, with m the mean size of a row's group and ρ the intraclass correlation of the
rows' bins (Kish 1965, "Survey sampling"). Both the smoothing and what comes by chance go by that count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = np.linspace(0.1, 0.9, 9)
SMOOTHING = 0.5
KS_BEYOND = math.sqrt(math.log(200) / 2)
"""Times √(1/rows + 1/reference rows): a KS that one comparison in a hundred exceeds by chance."""

Reference = dict[str, dict[str, Any]]
"""By feature: `edges` (k,) ascending, `counts` (k + 1,) of values in (−∞, e₁], (e₁, e₂] … (eₖ, ∞), and if the feature
can be missing `indicator`, the column that says so, whose rows are the last of then k + 2 counts. JSON-able."""
Drift = dict[str, dict[str, float]]
"""By feature: psi, ks, psi_by_chance, ks_by_chance, psi_most, ks_most, rows_effective."""


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


def drift_of(reference: Reference, features: pd.DataFrame, groups: np.ndarray | None = None) -> Drift:
    """PSI and KS of each feature of the reference against an evaluation's features.

    Args:
        features: (n,) rows, one a pool.
        groups: (n,) labels, the same for rows that go together; by default each row is alone.

    Returns:
        By feature: `Drift`. Empty if there are no rows: nothing was compared, which is not "no drift".
    """
    if features.empty:
        return {}
    _, number = np.unique(np.arange(len(features)) if groups is None else groups, return_inverse=True)
    found = {}
    for name, bins in reference.items():
        place, before = _places(features, name, bins), np.array(bins["counts"], dtype=float)
        now, rows = np.bincount(place, minlength=len(before)).astype(float), effective_rows(place, number)
        both, farthest = (rows, before.sum()), rows * np.eye(len(now))
        found[name] = {
            "psi": psi(before, now * (rows / len(place))),
            "ks": ks(before, now),
            "psi_by_chance": float((len(now) - 1) * sum(n / (n + SMOOTHING * len(now)) ** 2 for n in both)),
            "ks_by_chance": KS_BEYOND * math.sqrt(sum(1 / n for n in both)),
            "psi_most": max(psi(before, counts) for counts in farthest),
            "ks_most": max(ks(before, counts) for counts in farthest),
            "rows_effective": rows,
        }
    return found


def has_drifted(found: Mapping[str, float], *, psi_warn: float) -> bool:
    """Whether a feature has drifted: by more than chance and `psi_warn` in PSI, and farther than by chance in KS.

    PSI says that the shift is large, KS that it is one: of few rows, PSI alone often exceeds its average by much.
    """
    # Evaluations of before KS had a measure of chance have PSI alone.
    return found["psi"] - found["psi_by_chance"] > psi_warn and found["ks"] > found.get("ks_by_chance", 0.0)


def can_tell(found: Mapping[str, float], *, psi_warn: float) -> bool:
    """Whether a feature could have drifted as `has_drifted` has it: where the rows are too few, no shift is enough."""
    # Evaluations of before the most was kept have what can never be exceeded.
    most = {"psi": found.get("psi_most", math.inf), "ks": found.get("ks_most", 1.0)}
    return has_drifted({**found, **most}, psi_warn=psi_warn)


def effective_rows(values: np.ndarray, group: np.ndarray) -> float:
    """How many independent rows (n,) values are worth, whose rows of one `group` (n,), 0 … k − 1, go together.

    Between n² / Σ size² over the groups, where all of a group are alike, and n, where they are as different as any. The
    former is k where the groups are of one size, and less where one outweighs the others: 1.2 of groups of 1 and 9. It
    is n if each is alone, 1 if there is one group alone.
    """
    size = np.bincount(group).astype(float)
    n, k = len(values), len(size)
    if k in (1, n):
        return float(k)
    mean = np.bincount(group, weights=values) / size
    between = (size @ (mean - values.mean()) ** 2) / (k - 1)
    within = ((values - mean[group]) ** 2).sum() / (n - k)
    typical = (n - size @ size / n) / (k - 1)
    whole = between + (typical - 1) * within
    # Where all values are the same, so are those of a group.
    correlation = 1.0 if whole == 0 else min(max((between - within) / whole, 0.0), 1.0)
    return float(n / (1 + (size @ size / n - 1) * correlation))


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
    return np.bincount(_places(frame, name, bins), minlength=len(bins["edges"]) + 1 + ("indicator" in bins))


def _places(frame: pd.DataFrame, name: str, bins: Mapping[str, Any]) -> np.ndarray:
    """(n,) the bin of each row; rows where the feature is missing are in the last one."""
    place = np.searchsorted(bins["edges"], frame[name].to_numpy(dtype=float), side="left")
    if "indicator" not in bins:
        return place
    missing = frame[bins["indicator"]].to_numpy(dtype=float) == 1
    return np.where(missing, len(bins["edges"]) + 1, place)
