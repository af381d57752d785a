"""Price changes as sorted columns of numbers: each known once, and which are in force in a window. Pure.

The order is that of the cached values: by region, family, type, zone, product and time, of one instant by price.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from spotlab_pipelines.market.canonical import text_codes, utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY, family_of, text

NO_POOLS = pd.DataFrame({name: text([]) for name in POOL_KEY})
LARGEST_KEY, SMALL = 2**62, 2**16 - 1
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
IN_REGION = POOL_KEY[1:]


def epoch_us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Changes:
    """Price changes sorted by pool, time and price, each once.

    Attributes:
        pools: region, instance_type, az_id, product: one row a pool, in order.
        pool: (n,) int64, the row of `pools` that each change belongs to, ascending.
        changed_at: (n,) int64 microseconds since the epoch.
        price: (n,) float64 USD per hour.
    """

    pools: pd.DataFrame
    pool: np.ndarray
    changed_at: np.ndarray
    price: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Changes:
        """Sort a price changes frame."""
        columns = [text_codes(pa.array(frame[name].array, pa.large_string())) for name in POOL_KEY]
        return cls._sorted(
            dict(zip(POOL_KEY, columns, strict=True)),
            utc_ticks(frame["changed_at"].dt.as_unit("us")),
            frame["spot_price_usd_per_hour"].to_numpy(),
        )

    @classmethod
    def of_table(cls, table: pa.Table, region: str, types: Collection[str]) -> Changes:
        """Sort the archived price changes of `types` in one region."""
        columns = {name: text_codes(table[name]) for name in IN_REGION}
        changed_at = table["changed_at"].cast(pa.int64()).to_numpy()
        price = table["spot_price_usd_per_hour"].to_numpy()
        codes, words = columns["instance_type"]
        wanted = np.array([name in types for name in words], dtype=bool)
        if not wanted.all():
            kept = wanted[codes]
            columns = {name: (column[kept], values) for name, (column, values) in columns.items()}
            changed_at, price = changed_at[kept], price[kept]
        columns = {"region": (np.zeros(len(price), dtype=np.int64), [region]), **columns}
        return cls._sorted(columns, changed_at, price)

    @classmethod
    def _sorted(
        cls, columns: dict[str, tuple[np.ndarray, list[str]]], changed_at: np.ndarray, price: np.ndarray
    ) -> Changes:
        code = np.zeros(len(changed_at), dtype=np.int64)
        words = {}
        for name, (codes, distinct) in columns.items():
            if name == "instance_type":
                codes, distinct = _by_family(codes, distinct)
            code, words[name] = code * max(len(distinct), 1) + codes, distinct
        code, changed_at, price = _sorted_once(code, changed_at, price)
        return cls(*_pools(code, words), changed_at=changed_at, price=price)

    def take(self, kept: np.ndarray) -> Changes:
        """The changes where `kept` (n,) is true, and their pools."""
        code = self.pool[kept]
        used = np.zeros(len(self.pools), dtype=bool)
        used[code] = True
        pool = (np.cumsum(used) - 1)[code]
        return Changes(self.pools[used].reset_index(drop=True), pool, self.changed_at[kept], self.price[kept])

    def in_force(self, start: datetime, end: datetime) -> Changes:
        """The changes in (start, end], and each pool's last one at or before `start`."""
        begin, until = epoch_us(start), epoch_us(end)
        known = self.changed_at <= until
        in_window = known & (self.changed_at > begin)
        opening = known & ~in_window
        # Of the changes up to the start only the last one of a pool still holds.
        opening[:-1] &= ~(opening[1:] & (self.pool[1:] == self.pool[:-1]))
        return self.take(in_window | opening)

    def not_in(self, other: Changes) -> Changes:
        """The changes that `other` does not have."""
        if not len(other.pool) or not len(self.pool):
            return self
        both = concatenated([self, other])
        size = len(self.pool)
        mine = np.arange(len(both.pool)) < size
        order = np.lexsort((mine, both.price, both.changed_at, both.pool))
        columns = [column[order] for column in (both.pool, both.changed_at, both.price)]
        # Of two alike the other's comes first.
        repeated = np.zeros(len(order), dtype=bool)
        repeated[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        kept = np.ones(len(order), dtype=bool)
        kept[order] = ~repeated
        return self.take(kept[:size])

    def by_region(self) -> dict[str | None, pa.Table]:
        """The changes as Arrow tables, one a region: instance_type, az_id, product (as codes), changed_at, price."""
        region = text_codes(pa.array(self.pools["region"].array, pa.large_string()))
        return {name: self._table(region[0][self.pool] == number) for number, name in enumerate(region[1])}

    def _table(self, rows: np.ndarray) -> pa.Table:
        part = self if rows.all() else self.take(rows)
        columns: dict[str, pa.Array] = {}
        for name in IN_REGION:
            codes, words = text_codes(pa.array(part.pools[name].array, pa.large_string()))
            indices = pa.array(codes[part.pool].astype(np.int32))
            columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))
        columns["changed_at"] = pa.array(part.changed_at.view("M8[us]"), pa.timestamp("us", tz="UTC"))
        return pa.table({**columns, "spot_price_usd_per_hour": part.price})

    def frame(self) -> pd.DataFrame:
        """The price changes frame."""
        return pd.DataFrame(
            {
                **{name: column.array.take(self.pool) for name, column in self.pools.items()},
                "changed_at": pd.DatetimeIndex(self.changed_at.view("M8[us]")).tz_localize("UTC"),
                "spot_price_usd_per_hour": self.price,
            }
        )


def concatenated(parts: Sequence[Changes]) -> Changes:
    """The parts one after the other, pools numbered alike; not sorted anew."""
    pools = pd.concat([NO_POOLS, *(part.pools for part in parts)], ignore_index=True)
    codes = pools.groupby(list(POOL_KEY), sort=False).ngroup().to_numpy(dtype=np.int64)
    offsets = np.cumsum([0, *(len(part.pools) for part in parts)])
    pool = [codes[offset + part.pool] for offset, part in zip(offsets, parts, strict=False)]
    return Changes(
        pools.drop_duplicates(ignore_index=True),
        np.concatenate([np.empty(0, np.int64), *pool]),
        np.concatenate([np.empty(0, np.int64), *(part.changed_at for part in parts)]),
        np.concatenate([np.empty(0), *(part.price for part in parts)]),
    )


def merged(parts: Sequence[Changes]) -> Changes:
    """The changes of all parts, sorted, each once."""
    if len(parts) == 1:
        return parts[0]
    together = concatenated(parts)
    ordered = together.pools.assign(family=family_of(together.pools["instance_type"])).sort_values(
        ["region", "family", *IN_REGION]
    )
    ranks = np.empty(len(ordered), dtype=np.int64)
    ranks[ordered.index] = np.arange(len(ordered))
    pools = ordered[list(POOL_KEY)].reset_index(drop=True)
    return Changes(pools, *_sorted_once(ranks[together.pool], together.changed_at, together.price))


def ascend(*keys: np.ndarray) -> bool:
    """Whether the rows of `keys`, the first one foremost, are in order: far cheaper to see than to sort, and usual."""
    tied = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        if (tied & (key[1:] < key[:-1])).any():
            return False
        tied &= key[1:] == key[:-1]
    return True


def _sorted_once(
    code: np.ndarray, changed_at: np.ndarray, price: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not ascend(code, changed_at, price):
        order = _order(code, changed_at, price)
        code, changed_at, price = code[order], changed_at[order], price[order]
    repeats = np.zeros(len(code), dtype=bool)
    repeats[1:] = (code[1:] == code[:-1]) & (changed_at[1:] == changed_at[:-1]) & (price[1:] == price[:-1])
    if repeats.any():
        code, changed_at, price = code[~repeats], changed_at[~repeats], price[~repeats]
    return code, changed_at, price


def _order(code: np.ndarray, changed_at: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Rows by pool, time and price, by whichever way is quickest for them; the prices of one instant come last."""
    step = np.diff(changed_at)
    if int(code.max()) <= SMALL and ((step >= 0).all() or (step <= 0).all()):
        # As AWS sends them, newest first: pools are all that is left to sort, and small numbers are quick to.
        rows = np.arange(len(code)) if (step >= 0).all() else np.arange(len(code))[::-1]
        order = rows[np.argsort(code[rows].astype(np.uint16), kind="stable")]
    else:
        first = int(changed_at.min())
        span = int(changed_at.max()) - first + 1
        if (int(code.max()) + 1) * span >= LARGEST_KEY:
            return np.lexsort((price, changed_at, code))
        order = np.argsort(code * span + (changed_at - first))
    return order if ascend(code[order], changed_at[order], price[order]) else np.lexsort((price, changed_at, code))


def _by_family(codes: np.ndarray, types: list[str]) -> tuple[np.ndarray, list[str]]:
    """Codes in the order of (family, type): that of the types alone puts m5-flex before m5."""
    order = sorted(range(len(types)), key=lambda number: (types[number].partition(".")[0], types[number]))
    ranks = np.empty(len(types), dtype=np.int64)
    ranks[order] = np.arange(len(types))
    return ranks[codes], [types[number] for number in order]


def _pools(code: np.ndarray, words: dict[str, list[str]]) -> tuple[pd.DataFrame, np.ndarray]:
    """The pools of ascending codes, and for each code the row of its pool."""
    first = np.ones(len(code), dtype=bool)
    first[1:] = code[1:] != code[:-1]
    rest, columns = code[first], {}
    for name in reversed(POOL_KEY):
        rest, number = np.divmod(rest, max(len(words[name]), 1))
        columns[name] = text(words[name]).take(number)
    return pd.DataFrame({name: columns[name] for name in POOL_KEY}), np.cumsum(first) - 1
