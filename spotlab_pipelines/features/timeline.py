"""Where an instant falls among the rows of a pool, for many (pool, instant) pairs at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNKNOWN = -1
"""The number of a pool that a timeline does not have."""
LARGEST_KEY = 2**62


@dataclass(frozen=True)
class Timeline:
    """Rows sorted by pool and moment, found by binary search.

    Attributes:
        pool: (n,) number of the pool of each row, ascending.
        moment: (n,) microseconds since the epoch, ascending within a pool.
        keys: (n,) pool and moment as one ascending number.
        levels: the distinct moments, where the moments themselves would not fit beside the pools in 64 bits; else None.
        base, stride: what makes a key of a pool and a moment.
    """

    pool: np.ndarray
    moment: np.ndarray
    keys: np.ndarray
    levels: np.ndarray | None
    base: int
    stride: int

    @classmethod
    def of(cls, pool: np.ndarray, moment: np.ndarray) -> Timeline:
        """Take rows that are sorted already."""
        pool, moment = pool.astype(np.int64, copy=False), moment.astype(np.int64, copy=False)
        base = int(moment.min(initial=np.iinfo(np.int64).max)) if len(moment) else 0
        stride = int(moment.max() - base) + 2 if len(moment) else 2
        levels = None
        if (int(pool.max(initial=0)) + 1) * stride >= LARGEST_KEY:
            levels = np.unique(moment)
            stride = len(levels) + 1
        keys = pool * stride + _offset(moment, levels, base, stride)
        return cls(pool, moment, keys, levels, base, stride)

    def end(self, pool: np.ndarray, at: np.ndarray) -> np.ndarray:
        """For each pair the row after the last one of the pool at or before the instant, (m,).

        For a pool without such a row, and for an UNKNOWN one, it is `start`.
        """
        known = pool != UNKNOWN
        keys = np.where(known, pool, 0) * self.stride + _offset(at, self.levels, self.base, self.stride)
        return np.where(known, np.searchsorted(self.keys, keys, side="right"), 0)

    def start(self, pool: np.ndarray) -> np.ndarray:
        """The first row of each pool, (m,); 0 for an UNKNOWN one."""
        return np.where(pool != UNKNOWN, np.searchsorted(self.keys, pool * self.stride), 0)


def _offset(moment: np.ndarray, levels: np.ndarray | None, base: int, stride: int) -> np.ndarray:
    """A number in 0 … stride − 1 that is 0 before the first moment and grows with the moment."""
    if levels is None:
        return np.clip(moment - base + 1, 0, stride - 1)
    return np.searchsorted(levels, moment, side="right")
