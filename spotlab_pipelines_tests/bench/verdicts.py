"""How often the verdict machinery errs, and how often it finds a real gain, where the truth is known.

Interruptions come in clusters and each experiment is looked at once a day for 30 days, or until a look decides.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from spotlab_pipelines_tests.bench.measure import Section
from spotlab_pipelines_tests.experiments.clustered import DAYS, comparison, looks

EQUAL, EQUAL_EVENTS = 1000, 300
FALSE_MAX = 64
"""Of 1,000 at a nominal 5 %: what chance alone exceeds in 2 of 100 benches."""
LASTING, LASTING_DAYS, LASTING_FALSE_MAX = 300, 3, 23
"""Equal versions where shortages, and each version's error about a region, last for days; the limit likewise."""
BETTER, BETTER_EVENTS = 300, 500
GAIN, BLUR = 0.02, 0.8
"""Brier skill that the better version gains, and the noise through which the champion sees risk."""
HEADINGS = ("what", "found", "limit", "within", "seconds", "note")


def section() -> Section:
    """False promotions and rejections of equal versions, and the power at a true gain."""
    began = time.perf_counter()
    equal = ends(EQUAL, champion_blur=BLUR, challenger_blur=BLUR, events=EQUAL_EVENTS, seed=1)
    equal_s = time.perf_counter() - began
    began = time.perf_counter()
    lasting = ends(LASTING, champion_blur=BLUR, challenger_blur=BLUR, events=EQUAL_EVENTS, seed=4, lasting=LASTING_DAYS)
    lasting_s = time.perf_counter() - began
    blur = blur_that_gains(GAIN)
    began = time.perf_counter()
    better = ends(BETTER, champion_blur=BLUR, challenger_blur=blur, events=BETTER_EVENTS, seed=2)
    better_s = time.perf_counter() - began
    each = f"{DAYS} daily looks, {EQUAL_EVENTS} events expected"
    rows = [
        (f"{number:,} equal versions{what}: {verdict}", f"{found[verdict]:,}", f"≤ {limit}",
         "yes" if found[verdict] <= limit else "NO", f"{seconds:.0f}", f"nominal 5 %; {each}; {found['hold']:,} held")
        for number, what, found, limit, seconds in (
            (EQUAL, "", equal, FALSE_MAX, equal_s),
            (LASTING, f", shortages of {LASTING_DAYS} days", lasting, LASTING_FALSE_MAX, lasting_s),
        )
        for verdict in ("promote", "reject")
    ]  # fmt: skip
    power = f"{100 * better['promote'] / BETTER:.0f} %"
    held = f"{better['hold']} held, {better['reject']} rejected of {BETTER}; {BETTER_EVENTS} events expected"
    rows.append((f"power at a Brier skill gain of {GAIN:g}", power, "", "", f"{better_s:.0f}", held))
    return Section(HEADINGS, tuple(rows), all(row[3] != "NO" for row in rows))


def ends(experiments: int, *, seed: int, **truth: float) -> Counter[str]:
    """How the experiments of some truth (see `comparison`) end: the last look's verdict of each, counted."""
    found = Counter[str]()
    for number in range(experiments):
        generator = np.random.default_rng([seed, number])
        *_, last = looks(comparison(generator, **truth))  # type: ignore[arg-type]
        found[last.verdict] += 1
    return found


def blur_that_gains(gain: float) -> float:
    """The challenger's noise at which its Brier skill is better than the champion's by `gain`, on much data."""
    low, high = 0.0, BLUR
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if true_gain(middle) > gain else (low, middle)
    return low


def true_gain(challenger_blur: float, experiments: int = 100) -> float:
    """The difference of the versions' Brier skills over many experiments' rows together."""
    drawn = [
        comparison(
            np.random.default_rng([3, number]),
            champion_blur=BLUR,
            challenger_blur=challenger_blur,
            events=BETTER_EVENTS,
        )
        for number in range(experiments)
    ]
    outcome, champion, challenger = (
        np.concatenate([getattr(each, name) for each in drawn]) for name in ("outcome", "champion", "challenger")
    )
    uncertainty = outcome.mean() * (1 - outcome.mean())
    return float(((champion - outcome) ** 2 - (challenger - outcome) ** 2).mean() / uncertainty)
