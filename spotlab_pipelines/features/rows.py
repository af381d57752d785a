"""The rows of a pools frame by their keys: in one order whatever order they came in, each key at most once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import FeatureOutOfRange
from spotlab_pipelines.market.frames import POOL_KEY

SAMPLED_AT = "sampled_at"
"""The column of a pools frame of many instants that says which instant a row belongs to."""
PACKED_MAX = 2**62


@dataclass(frozen=True)
class KeyedRows:
    """A frame's rows, factorised once; n rows.

    Attributes:
        order: (n,) the rows in the order of instant and pool key.
        codes: for each key column (n,) the places of the rows' values in its levels, in the frame's own order.
        levels: for each key column its distinct values, sorted.
    """

    order: np.ndarray
    codes: dict[str, np.ndarray]
    levels: dict[str, pd.Index]

    @classmethod
    def of(cls, pools: pd.DataFrame) -> KeyedRows:
        """Order the rows by instant, if the frame has instants, and pool key.

        Raises:
            FeatureOutOfRange: a pool has two rows (at one instant).
        """
        names = (SAMPLED_AT, *POOL_KEY) if SAMPLED_AT in pools else POOL_KEY
        codes: dict[str, np.ndarray] = {}
        levels: dict[str, pd.Index] = {}
        for name in names:
            code, level = pd.factorize(pools[name], sort=True)
            # Half as wide, and so gathered several times faster.
            codes[name], levels[name] = code.astype(np.int32), level
        combined = _combined((codes[name], len(levels[name])) for name in names)
        order, repeated = _ordered(combined, len(pools))
        if repeated:
            raise FeatureOutOfRange(f"Expected one row a pool; got {len(pools)} rows of {len(pools) - repeated} pools.")
        return cls(order, codes, levels)

    def keys(self, rows: np.ndarray) -> dict[str, pd.api.extensions.ExtensionArray]:
        """The key columns of these rows: taken from the few distinct values, which are near, not from all rows."""
        return {name: self.levels[name].array.take(code.take(rows)) for name, code in self.codes.items()}

    def families(self, family: pd.Series) -> np.ndarray:
        """(n,) in `order`: the number of each row's family, told apart by region and instant."""
        code, values = pd.factorize(family)
        names = [name for name in (SAMPLED_AT, "region") if name in self.codes]
        parts = [(self.codes[name], len(self.levels[name])) for name in names]
        parts.append((code.astype(np.int32), len(values)))
        return _combined((code.take(self.order), size) for code, size in parts)


def _combined(parts: Iterable[tuple[np.ndarray, int]]) -> np.ndarray:
    """Several codes as one number that sorts by the first, then the second and so on."""
    total: np.ndarray | int = 0
    for code, size in parts:
        total = total * max(size, 1) + code.astype(np.int64, copy=False)
    return np.asarray(total)


def _ordered(combined: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """The rows by their number, and how many numbers came before."""
    bits = max(size - 1, 1).bit_length()
    if int(combined.max(initial=0)) < PACKED_MAX >> bits:
        # Sorting numbers that carry their row is far faster than sorting rows by their numbers.
        packed = combined << bits
        packed |= np.arange(size)
        packed.sort()
        order = packed & ((1 << bits) - 1)
        packed >>= bits
    else:
        order = np.argsort(combined)
        packed = combined[order]
    return order, int((packed[1:] == packed[:-1]).sum())
