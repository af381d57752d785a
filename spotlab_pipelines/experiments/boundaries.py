"""How strict each look at a running comparison must be, so that all looks together err as seldom as was promised. Pure.

Lan & DeMets (1983): a share of the error is spent at each look, and the boundary is what spends it given the boundaries
before. The looks' statistics are those of a Brownian motion at the information gathered by then; the chance of having
crossed no boundary yet is integrated from look to look (Armitage, McPherson & Rowe 1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spotlab_pipelines.errors import InvalidInput

NODES = 321
REACH = 8.0
"""The integration's grid: that many points from −REACH standard deviations up to the boundary."""

LEAST_STEP = 0.003
"""A look that adds less than this share of information is none: nothing is spent, nothing can be shown."""


@dataclass(frozen=True)
class _Walk:
    """The motion after some looks, where it has crossed no boundary yet.

    Attributes:
        information, spent: gathered and spent so far. level: that of the last look; 0 if it was none.
        places, density: (NODES,) where the motion can be, and how likely.
    """

    information: float
    spent: float
    level: float
    places: np.ndarray
    density: np.ndarray


def level_at(information: Sequence[float], looks_max: int, alpha: float) -> float:
    """The one-sided level at which the last of these looks may test, so that all looks together err at most by alpha.

    Args:
        information: of each look, the last one included: 1 / variance of its estimate. One that knows less than an
            earlier look counts as that one.
        looks_max: looks that are planned; later ones have nothing to spend.
        alpha: the whole error, in (0, 0.5).

    Returns:
        In [0, alpha]; 0 if the look adds nothing to what the one before it knew.

    Raises:
        InvalidInput: no look, more than `looks_max`, or information that is not positive.
    """
    looks = np.asarray(information, dtype=float)
    if not 1 <= len(looks) <= looks_max or not (np.isfinite(looks) & (looks > 0)).all():
        raise InvalidInput(
            f"Expected the positive information of 1 to {looks_max} looks, got {[float(each) for each in looks]}.",
            remedy="A comparison that has used up its looks needs a newly registered version.",
        )
    # Only ratios matter.
    scaled = tuple(float(each) for each in np.maximum.accumulate(looks / looks[0]))
    return _walk(scaled, looks_max, alpha).level


def spent_by(look: int, looks_max: int, alpha: float) -> float:
    """The error that may have been made by this look: little at first, alpha at the last (O'Brien-Fleming's shape)."""
    from scipy.stats import norm

    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(look / looks_max)))


@lru_cache(maxsize=64)
def _walk(information: tuple[float, ...], looks_max: int, alpha: float) -> _Walk:
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    *earlier, now = information
    budget, spread = spent_by(len(information), looks_max, alpha), np.sqrt(now)
    if not earlier:
        bound = -ndtri(budget) * spread
        places = np.linspace(-REACH * spread, bound, NODES)
        return _Walk(now, budget, budget, places, _bell(places, spread))
    before = _walk(tuple(earlier), looks_max, alpha)
    if now - before.information < LEAST_STEP * now:
        return _Walk(before.information, before.spent, 0.0, before.places, before.density)
    step = np.sqrt(now - before.information)
    mass = before.density * _trapezoid(before.places)

    def crossing(bound: float) -> float:
        return float(mass @ ndtr((before.places - bound) / step)) - (budget - before.spent)

    bound = float(brentq(crossing, -REACH * spread, 2 * REACH * spread))  # type: ignore[arg-type]
    places = np.linspace(-REACH * spread, bound, NODES)
    density = _bell(places[:, None] - before.places[None, :], step) @ mass
    return _Walk(now, budget, float(ndtr(-bound / spread)), places, density)


def _bell(distance: np.ndarray, spread: float) -> np.ndarray:
    return np.exp(-0.5 * (distance / spread) ** 2) / (spread * np.sqrt(2 * np.pi))


def _trapezoid(places: np.ndarray) -> np.ndarray:
    weights = np.full(len(places), places[1] - places[0])
    weights[[0, -1]] /= 2
    return weights
