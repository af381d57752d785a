"""How examples are split: by day and by pool at once, with an embargo, so that nothing of a test is in what it is of.

Neighbouring instants share their future and pools of one day share their weather: a random split would know the
answers. A model that is to be used on other pools must be judged on pools that it has not seen. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.windows import pool_codes
from spotlab_pipelines.market.canonical import utc_ticks

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
DAY_BLOCKS = 5
POOL_GROUPS = 4


@dataclass(frozen=True)
class Fold:
    """Rows to fit on, and the rows to judge it on, by number."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Places:
    """Where and when each of n examples is.

    Attributes:
        pool: (n,) a number for each pool, in the order of the pools' keys. at: (n,) microseconds since the epoch.
    """

    pool: np.ndarray
    at: np.ndarray

    @classmethod
    def of(cls, examples: pd.DataFrame) -> Places:
        """Of examples with `sampled_at` and the pool key."""
        return cls(pool_codes(examples)[0], utc_ticks(examples[SAMPLED_AT].dt.as_unit("us")))

    def take(self, rows: np.ndarray) -> Places:
        """Those of some rows."""
        return Places(self.pool[rows], self.at[rows])


def blocked_folds(
    places: Places, *, embargo_h: float, blocks: int = DAY_BLOCKS, groups: int = POOL_GROUPS
) -> Iterator[Fold]:
    """Hold out each block of consecutive days of each group of pools; fit on other days of other pools.

    Whole days make blocks, as many days in each. Of the rows to fit on none lies within the embargo of the block: on
    either side, since before it labels reach into it, and after it features look back into it.

    Args:
        embargo_h: the longest horizon.
        groups: pools are dealt out to at most this many groups; with one pool only, days alone are held out.
    """
    if not len(places.at):
        return
    _, pool = np.unique(places.pool, return_inverse=True)
    groups = min(groups, int(pool.max()) + 1)
    block, group = day_blocks(places.at, blocks), pool % groups
    embargo = int(embargo_h * HOUR_US)
    for number in range(int(block.max()) + 1):
        inside = block == number
        times = places.at[inside]
        away = (places.at < times.min() - embargo) | (places.at > times.max() + embargo)
        for held in range(groups):
            test = np.flatnonzero(inside & (group == held))
            train = np.flatnonzero(away & ((group != held) | (groups == 1)))
            if len(test) and len(train):
                yield Fold(train, test)


def day_blocks(at: np.ndarray, blocks: int = DAY_BLOCKS) -> np.ndarray:
    """The block of consecutive days of each of n instants, 0 to at most `blocks` − 1, as many days in each."""
    _, day = np.unique(at // DAY_US, return_inverse=True)
    days = int(day.max(initial=0)) + 1
    return day * min(blocks, days) // days


def walk_forward_folds(places: Places, *, blocks: int = DAY_BLOCKS) -> Iterator[Fold]:
    """Judge each block of days but the first on what came before it; `labels_known_by` censors what was not known."""
    block = day_blocks(places.at, blocks)
    for number in range(1, int(block.max(initial=0)) + 1):
        yield Fold(np.flatnonzero(block < number), np.flatnonzero(block == number))


def labels_known_by(
    labels: np.ndarray, at: np.ndarray, *, horizons_h: tuple[int, ...] | list[int], until_us: int
) -> np.ndarray:
    """The (n, n_horizons) labels, censored wherever the horizon ends after `until_us`.

    Whatever their outcome: of the last rows, interruptions are known sooner than survivals, and would count alone.
    """
    deadline = at[:, None] + np.asarray(horizons_h, dtype=np.int64) * HOUR_US
    return np.where(deadline <= until_us, labels, np.nan)


def independence(places: Places, horizon_h: float) -> np.ndarray:
    """How many independent examples each of n counts as: 1 / the pool's examples in the horizon up to and with it.

    A pool that is looked at every ten minutes is not known six times as well in an hour: all six labels are of nearly
    the same hour.
    """
    order = np.lexsort((places.at, places.pool))
    pool, at = places.pool[order], places.at[order]
    # One axis: pools far enough apart that no horizon reaches from one into another.
    span = int(at.max(initial=0) - at.min(initial=0)) + int(horizon_h * HOUR_US) + 1
    _, number = np.unique(pool, return_inverse=True)
    line = number * span + (at - at.min(initial=0))
    since = np.searchsorted(line, line - int(horizon_h * HOUR_US), side="right")
    until = np.searchsorted(line, line, side="right")
    found = np.empty(len(line))
    found[order] = 1.0 / (until - since)
    return found


def at_most_one_a_day(places: Places, weight: np.ndarray) -> np.ndarray:
    """Weights (n,) such that the examples of a pool on one day count as one independent example at most.

    Stress lasts: what a pool did on one day tells how the model stands that day. A map learned from few days that took
    each hour for a new one did worse on the days after than none.
    """
    keys = np.column_stack([places.pool, places.at // DAY_US])
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.ravel()
    return weight / np.maximum(np.bincount(cell, weights=weight), 1.0)[cell]
