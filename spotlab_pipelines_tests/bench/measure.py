"""What a section of the page is, what a figure is, and how one is taken: the best of several runs of each side,
alternating, in one process run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of docs/benchmarks.md: the product's time against its floor's, in seconds, and the ratio allowed.

    A figure of memory has the `unit` MB, and both in it.
    """

    name: str
    measured_s: float
    floor: str
    floor_s: float
    limit: float | None
    note: str = ""
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """Product over floor."""
        return self.measured_s / self.floor_s

    @property
    def passes(self) -> bool:
        """Whether the ratio is within its limit; a figure without a limit is for information."""
        return self.limit is None or self.ratio <= self.limit


@dataclass(frozen=True)
class Section:
    """One module's table on the page, and whether all that it measured is within its limits."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    passes: bool
    note: str = ""


HEADINGS = ("what", "ms", "floor", "floor ms", "ratio", "limit", "within", "note")


def of_figures(figures: list[Figure]) -> Section:
    """The section of a module whose measurements have floors."""
    return Section(HEADINGS, tuple(_cells(figure) for figure in figures), all(figure.passes for figure in figures))


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        _amount(figure, figure.measured_s),
        figure.floor,
        _amount(figure, figure.floor_s),
        f"{figure.ratio:.2f}",
        "" if figure.limit is None else f"≤ {figure.limit:g}",
        "" if figure.limit is None else ("yes" if figure.passes else "NO"),
        figure.note,
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, with the garbage of earlier ones collected first."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best_of(rounds: int, *works: Callable[[], object], before: Callable[[], object] | None = None) -> tuple[float, ...]:
    """The best wall time of each work over `rounds`, taken in turn so that a noisy moment hits all alike.

    Args:
        before: called before each round, outside the measured time.
    """
    taken = []
    for _ in range(rounds):
        if before is not None:
            before()
        taken.append([seconds(work) for work in works])
    return tuple(min(times) for times in zip(*taken, strict=True))


def _amount(figure: Figure, value: float) -> str:
    return f"{1000 * value:,.1f}" if figure.unit == "ms" else f"{value:,.1f} {figure.unit}"
