"""Comparisons whose truth is known: two versions' predictions, and interruptions that come in clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from spotlab_pipelines.experiments.scorecards import FAR_APART
from spotlab_pipelines.experiments.verdict import (
    INSUFFICIENT,
    PROMOTE,
    REJECT,
    Verdict,
    VerdictRules,
    draw_blocks,
    judge,
)

DAYS, REGIONS = 30, 8


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison: outcome, both versions' probabilities, block and day of each, (n,)."""

    outcome: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    block: np.ndarray
    day: np.ndarray


def comparison(
    generator: np.random.Generator,
    *,
    champion_blur: float,
    challenger_blur: float,
    events: float,
    rows: int = 4000,
    lasting: int = 1,
) -> Comparison:
    """Rows of pools whose risk differs, in region-days of which some have a shortage that takes many at once.

    A version sees each pool's risk through noise of its own, by region-day and by row; equal blurs make equal skill.

    Args:
        events: expected number of interruptions in all.
        lasting: days that a region's shortage, and a version's error about the region, last.
    """
    day, region = np.divmod(np.sort(generator.integers(DAYS * REGIONS, size=rows)), REGIONS)
    spell = day // lasting * REGIONS + region
    shortage = generator.gamma(0.5, 2.0, size=DAYS * REGIONS)[spell]
    risk = generator.normal(0.0, 1.2, size=rows)
    logit = risk + np.log(shortage + 1e-6)
    offset = _offset(logit, events / rows)
    outcome = (generator.random(rows) < _logistic(logit + offset)).astype(float)
    base = np.log(events / (rows - events))
    champion, challenger = (
        _logistic(
            base
            + 0.8
            * (risk + generator.normal(0, blur, size=rows) + generator.normal(0, 0.5, size=DAYS * REGIONS)[spell])
            / np.sqrt(1 + blur**2)
        )
        for blur in (champion_blur, challenger_blur)
    )
    return Comparison(outcome, champion, challenger, region * FAR_APART + day, day)


def looks(rows: Comparison, rules: VerdictRules | None = None) -> Iterator[Verdict]:
    """The daily looks at a comparison, until one decides."""
    earlier: list[float] = []
    for day in range(DAYS):
        upto = rows.day <= day
        verdict = judge(
            rows.outcome[upto],
            rows.champion[upto],
            rows.challenger[upto],
            rows.block[upto],
            earlier=earlier,
            rules=rules,
            draw=_few,
        )
        yield verdict
        if verdict.verdict in (PROMOTE, REJECT):
            return
        if verdict.verdict != INSUFFICIENT:
            earlier.append(verdict.information)


@cache
def _few(blocks: int) -> np.ndarray:
    """Fewer draws than the product's, made once: what is simulated are the looks."""
    return draw_blocks(blocks, 1000)


def _logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _offset(logit: np.ndarray, rate: float) -> float:
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _logistic(logit + middle).mean() < rate else (low, middle)
    return low
