"""How a pool's price moved before an instant, for many (pool, instant) pairs at once. Pure.

What a price was at an instant, and its extremes over a window, is windows.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from spotlab_pipelines.features.history import HOUR_US
from spotlab_pipelines.features.timeline import UNKNOWN, Timeline
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.market.frames import POOL_KEY, joined

VELOCITY_WINDOW_H = 24
SQUARE_UNIT = 1e-9
"""Squared log ratios are summed in whole units of this: sums of whole numbers are exact in any order, so that prices
of other pools or times cannot change the last bit of a difference of running sums."""


@dataclass(frozen=True)
class PriceMovement:
    """A price history ready to be asked how prices moved; `squares` is the (n + 1,) running sum of squared changes."""

    history: PriceHistory
    timeline: Timeline
    squares: np.ndarray

    @classmethod
    def of(cls, history: PriceHistory) -> PriceMovement:
        """Take a sorted price history."""
        ratio = np.zeros(len(history.price))
        same = history.pool[1:] == history.pool[:-1]
        ratio[1:][same] = np.log(history.price[1:][same] / history.price[:-1][same])
        squares = np.rint(ratio**2 / SQUARE_UNIT).astype(np.int64)
        running = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(squares)])
        return cls(history, Timeline.of(history.pool, history.changed_at), running)

    def find(self, pools: pd.DataFrame) -> np.ndarray:
        """The numbers of `pools` (pool key columns) in the history, (m,); timeline.UNKNOWN where it has none."""
        return joined(self.history.pools, POOL_KEY).get_indexer(joined(pools, POOL_KEY)).astype(np.int64)

    def features_at(self, pool: np.ndarray, at: np.ndarray, window: timedelta) -> dict[str, np.ndarray]:
        """Velocity and volatility of (pool, instant) pairs, looking at no later price.

        Args:
            pool: (m,) numbers as `find` gives them. at: (m,) microseconds since the epoch.
            window: the price window, over which changes are summed.

        Returns:
            price_velocity_24h and price_volatility, (m,), NaN where no price was in force when the 24 h, or the price
            window, began.
        """
        price = self.history.price
        first, end = self.timeline.start(pool), self.timeline.end(pool, at)
        before = self.timeline.end(pool, at - VELOCITY_WINDOW_H * HOUR_US)
        opening = self.timeline.end(pool, at - round(window / timedelta(microseconds=1)))
        velocity, volatility = np.full(len(pool), np.nan), np.full(len(pool), np.nan)
        known = (pool != UNKNOWN) & (before > first)
        velocity[known] = np.log(price[end[known] - 1] / price[before[known] - 1])
        known = (pool != UNKNOWN) & (opening > first)
        moved = (self.squares[end[known]] - self.squares[opening[known]]) * SQUARE_UNIT
        volatility[known] = np.sqrt(moved / (window / timedelta(days=1)))
        return {"price_velocity_24h": velocity, "price_volatility": volatility}
