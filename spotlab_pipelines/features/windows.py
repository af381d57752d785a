"""From price changes to what was known of each pool's price at an instant. Pure: no clock, no I/O, no settings.

AWS reports change points, not samples: a price holds until the next change. Nothing after the instant is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.features.ranges import range_extremes
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY


def price_windows(changes: pd.DataFrame, as_of: datetime, window: timedelta) -> pd.DataFrame:
    """Each pool's price at `as_of` and its extremes over the window before it.

    See `PriceHistory.window_at`; use that class to look at many instants of the same changes.
    """
    return PriceHistory.from_changes(changes).window_at(as_of, window)


@dataclass(frozen=True)
class PriceHistory:
    """Price changes sorted by pool and time, ready to be looked at from any instant.

    Attributes:
        pools: the pool keys, one row a pool.
        pool: (n,) index into `pools` of each change, ascending.
        changed_at: (n,) microseconds since the epoch, ascending within a pool.
        price: (n,) USD per hour.
    """

    pools: pd.DataFrame
    pool: np.ndarray
    changed_at: np.ndarray
    price: np.ndarray

    @classmethod
    def from_changes(cls, changes: pd.DataFrame) -> PriceHistory:
        """Sort price changes; the order of the rows and repeats of a row do not matter.

        If a pool has two prices at one instant, the higher one holds: whoever compares costs must not be flattered.

        Args:
            changes: region, instance_type, az_id, product, changed_at, spot_price_usd_per_hour.
        """
        code, pools = pool_codes(changes)
        return cls.from_coded(pools, code, changes)

    @classmethod
    def from_coded(cls, pools: pd.DataFrame, code: np.ndarray, changes: pd.DataFrame) -> PriceHistory:
        """The same where the pools are known: `code` (n,) gives each change's row in `pools`, in any order."""
        moment = utc_ticks(changes["changed_at"].dt.as_unit("us"))
        price = changes["spot_price_usd_per_hour"].to_numpy(dtype=float)
        if not _ascend(code, moment, price):
            order = np.lexsort((price, moment, code))
            code, moment, price = code[order], moment[order], price[order]
        return cls(pools=pools, pool=code, changed_at=moment, price=price)

    def window_at(self, as_of: datetime, window: timedelta) -> pd.DataFrame:
        """What was known at `as_of` about the window (as_of − window, as_of].

        The opening price is the last one set at or before the window's start; it counts for the extremes, since it was
        in force when the window opened, but not as a change in the window. A pool whose first change came later than
        `as_of` has no row; one whose first change came inside the window has no opening price.

        Returns:
            One row a pool, in the order of `pools`: the key, spot_price_usd_per_hour, price_min_usd_per_hour,
            price_max_usd_per_hour, price_changes (in the window), price_changed_at (may lie before the window).
        """
        if as_of.utcoffset() is None:
            raise InvalidInput(f"A window is looked at from an instant with a time zone; got {as_of!r}.")
        end = pd.Timestamp(as_of).value // 1000
        start = end - int(window / timedelta(microseconds=1))
        known = self.changed_at <= end
        in_window = known & (self.changed_at > start)
        is_opening = known & ~in_window
        # Of the changes up to the start only the last one of a pool still holds.
        followed = np.zeros_like(is_opening)
        followed[:-1] = is_opening[1:] & (self.pool[1:] == self.pool[:-1])
        kept = np.flatnonzero(in_window | (is_opening & ~followed))
        pool, price = self.pool[kept], self.price[kept]
        first = np.flatnonzero(np.r_[True, pool[1:] != pool[:-1]]) if len(kept) else kept
        last = np.r_[first[1:], len(kept)].astype(np.intp) - 1 if len(kept) else kept
        changes = np.add.reduceat(in_window[kept].astype(np.int64), first) if len(kept) else first.astype(np.int64)
        result = self.pools.take(pool[first])
        return pd.DataFrame(
            {
                **{column: result[column].array for column in POOL_KEY},
                "spot_price_usd_per_hour": price[last],
                "price_min_usd_per_hour": np.minimum.reduceat(price, first) if len(kept) else price,
                "price_max_usd_per_hour": np.maximum.reduceat(price, first) if len(kept) else price,
                "price_changes": changes,
                "price_changed_at": from_epoch_us(self.changed_at[kept][last]),
            }
        )

    def windows_at(self, instants: Sequence[datetime], window: timedelta) -> pd.DataFrame:
        """`window_at` of many instants at once, one after the other.

        Returns:
            The rows of `window_at` with a column sampled_at before them, by instant as given and then by pool.
        """
        if any(instant.utcoffset() is None for instant in instants):
            raise InvalidInput("Windows are looked at from instants with a time zone; got one without.")
        ends = np.array([pd.Timestamp(instant).value // 1000 for instant in instants], dtype=np.int64)
        after_end = self._rows_until(ends)
        after_start = self._rows_until(ends - int(window / timedelta(microseconds=1)))
        begin = np.searchsorted(self.pool, np.arange(len(self.pools)))
        # What no pool knows yet has no row; of the changes up to the start only the last still holds.
        instant, pool = np.nonzero(after_end > begin)
        last = after_end[instant, pool] - 1
        since = after_start[instant, pool]
        first = np.maximum(since - 1, begin[pool])
        lowest, highest = range_extremes(self.price, first, last)
        return pd.DataFrame(
            {
                "sampled_at": from_epoch_us(ends[instant]),
                **{column: self.pools[column].array.take(pool) for column in POOL_KEY},
                "spot_price_usd_per_hour": self.price[last],
                "price_min_usd_per_hour": lowest,
                "price_max_usd_per_hour": highest,
                "price_changes": last + 1 - since,
                "price_changed_at": from_epoch_us(self.changed_at[last]),
            }
        )

    def _rows_until(self, moments: np.ndarray) -> np.ndarray:
        """(moments, pools): the row after the last change of each pool at or before each moment.

        Counted rather than searched for: each change falls between two moments, and a running sum says how many came
        before each.
        """
        order = np.argsort(moments, kind="stable")
        slot = np.searchsorted(moments[order], self.changed_at)
        width = len(self.pools)
        changes = np.bincount(slot * width + self.pool, minlength=(len(moments) + 1) * width)
        until = np.cumsum(changes.reshape(len(moments) + 1, width)[:-1], axis=0)
        until += np.searchsorted(self.pool, np.arange(width))
        return until[np.argsort(order, kind="stable")]


def pool_codes(frame: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Number the pools of `frame` in the order of their keys.

    Returns:
        (n,) numbers of the rows' pools, and the frame of distinct pool keys, sorted, whose row i is pool i.
    """
    combined = np.zeros(len(frame), dtype=np.int64)
    levels = []
    for column in POOL_KEY:
        code, values = pd.factorize(frame[column], sort=True)
        combined = combined * max(len(values), 1) + code
        levels.append(values)
    distinct, code = np.unique(combined, return_inverse=True)
    keys: dict[str, pd.Index] = {}
    for column, values in zip(reversed(POOL_KEY), reversed(levels), strict=True):
        distinct, rest = np.divmod(distinct, max(len(values), 1))
        keys[column] = values.take(rest)
    return code.astype(np.intp), pd.DataFrame({column: keys[column] for column in POOL_KEY})


def _ascend(*keys: np.ndarray) -> bool:
    """Whether the rows of `keys`, the first one foremost, are in order: far cheaper to see than to sort, and usual."""
    tied = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        if (tied & (key[1:] < key[:-1])).any():
            return False
        tied &= key[1:] == key[:-1]
    return True


def from_epoch_us(values: np.ndarray) -> pd.DatetimeIndex:
    """Microseconds since the epoch as UTC-aware times."""
    return pd.DatetimeIndex(values.astype("datetime64[us]")).tz_localize("UTC")
