"""Lowest and highest value of many ranges of an array at once, by tables of powers of two. Pure.

Source: M. A. Bender, M. Farach-Colton, "The LCA Problem Revisited", LATIN 2000: a range is covered by two, possibly
overlapping, blocks whose length is a power of two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def range_extremes(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest of values[first … last], both ends included.

    Args:
        values: (n,).
        first, last: any shape, first <= last.

    Returns:
        Two arrays of that shape.
    """
    level = np.log2(last - first + 1).astype(np.intp)
    # Exact up to ranges of 2**49 rows, where a power of two and the number before it have the same logarithm.
    blocks = int(level.max(initial=0)) + 1
    end = last - (np.intp(1) << level) + 1
    found = []
    for choose in (np.minimum, np.maximum):
        table = _blocks(values, blocks, choose)
        found.append(choose(table[level, first], table[level, end]))
    return found[0], found[1]


def _blocks(values: np.ndarray, levels: int, choose: Callable[..., np.ndarray]) -> np.ndarray:
    """(levels, n): row k holds at i the extreme of values[i … i + 2**k − 1]; past the end it repeats what is there."""
    table = np.empty((levels, len(values)))
    table[0] = values
    for level in range(1, levels):
        half = 1 << (level - 1)
        table[level] = table[level - 1]
        choose(table[level - 1, :-half], table[level - 1, half:], out=table[level, :-half])
    return table
