"""The words of a decision: one sentence with figures for each distinct case, not for each instance. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """What a sentence may say of a case: `best` is a pool's id, "" if there is none; money in USD per hour.

    `why` says why its pool was excluded, `failed` why its version predicted nothing; `rate_max` is the upper end of the
    Advisor's bucket.
    """

    here: str
    mode: str
    why: str
    failed: str
    best: str
    candidates: int
    gain: float
    cost: float
    best_cost: float
    on_demand: float
    rate_max: float


def reasons(kind: np.ndarray, columns: dict[str, np.ndarray], *, minimum_gain: float, safe_rate: float) -> np.ndarray:
    """One sentence for each case.

    Args:
        kind: (n,) index into `KINDS`.
        columns: (n,) arrays by the names of `Case`.
        minimum_gain, safe_rate: the thresholds, as fractions.

    Returns:
        (n,) object array of str.
    """
    sentences = np.empty(len(kind), dtype=object)
    limits = {"need": f"{100 * minimum_gain:g} %", "safe": f"{100 * safe_rate:g} %"}
    for number, write in enumerate(KINDS.values()):
        chosen = np.flatnonzero(kind == number)
        if len(chosen):
            picked = [columns[name][chosen].tolist() for name in Case._fields]
            sentences[chosen] = [write(Case(*values), limits) for values in zip(*picked, strict=True)]
    return sentences


def _switch(case: Case, limits: dict[str, str]) -> str:
    return (
        f"{case.best} is expected to cost {case.best_cost:.4f} USD/h, interruptions included, against"
        f" {case.cost:.4f} now: saves {100 * case.gain:.1f} % of the on-demand price."
    )


def _stay(case: Case, limits: dict[str, str]) -> str:
    return f"{_best_of(case)}; a switch needs {limits['need']}."


def _fallback(case: Case, limits: dict[str, str]) -> str:
    return (
        f"Its pool is unsafe (interrupted up to {100 * case.rate_max:g} % a month, {limits['safe']} is allowed);"
        f" {_best_of(case).lower() if case.best == '' else _best_of(case)}; on-demand costs"
        f" {case.on_demand:.4f} USD/h."
    )


def _best_of(case: Case) -> str:
    if not case.best:
        return "No other safe pool fits"
    saved = f"{100 * abs(case.gain):.1f} % of the on-demand price"
    would = f"would save {saved}" if case.gain > 0 else f"would cost {saved} more"
    return f"{case.best}, the best of {case.candidates} candidates, {would}"


def _cluster(case: Case, limits: dict[str, str]) -> str:
    return f"The mode {case.mode} cannot be decided yet; only LINEAR can."


def _unpriced(case: Case, limits: dict[str, str]) -> str:
    return f"There is no on-demand price to weigh {case.here} with."


def _excluded(case: Case, limits: dict[str, str]) -> str:
    return f"Its pool {case.here} has no features: {case.why}."


def _unpredicted(case: Case, limits: dict[str, str]) -> str:
    return f"Its pool {case.here} has no prediction by this version."


def _failed(case: Case, limits: dict[str, str]) -> str:
    return f"This version failed: {case.failed}"


KINDS: dict[str, Callable[[Case, dict[str, str]], str]] = {
    "switch": _switch,
    "stay": _stay,
    "fallback": _fallback,
    "cluster": _cluster,
    "unpriced": _unpriced,
    "excluded": _excluded,
    "unpredicted": _unpredicted,
    "failed": _failed,
}
KIND = {name: number for number, name in enumerate(KINDS)}
