"""Opening one cached value: what it is, how old, from which scrape; and the columns that values are made of.

What a value of each kind holds is decode.py's and pool_history.py's. No connection is opened here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pandas as pd
from pandas.api.extensions import ExtensionArray

from spotlab_pipelines.accounts.frames import TIME
from spotlab_pipelines.errors import MarketDataError, MarketDataMissing, MarketDataStale
from spotlab_pipelines.market.frames import text
from spotlab_pipelines.market.parse import CLOCK_SKEW

Raw = bytes | str | None
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass
class Reader:
    """Opens cached values: checks envelope and age against `now`, and counts the scrapes they come from."""

    now: datetime
    ttl_s: int
    asset: str
    counts: dict[tuple[str, str, str, bool, str], int] = field(default_factory=dict)

    def open(self, key: str, raw: Raw) -> dict[str, Any]:
        """Decode the value of `key`.

        Raises:
            MarketDataMissing: there is none, or it cannot be read.
            MarketDataStale: it is older than its time to live.
        """
        if raw is None:
            raise self.missing(
                f"Redis has no {key}: it was never scraped, has expired (after {self.ttl_s} s) or was evicted."
            )
        try:
            value = orjson.loads(raw)
            stale, note = value.get("stale", False), value.get("note", "")
            envelope = (value["source"], value["scrape_id"], value["fetched_at"], bool(stale), str(note))
            age_s = (self.now - _time(envelope[2])).total_seconds()
            if age_s < -CLOCK_SKEW.total_seconds():
                raise ValueError(f"fetched_at {envelope[2]} lies after now, {self.now.isoformat()}: set the clocks")
            self.counts[envelope] = self.counts.get(envelope, 0) + 1
        except UNREADABLE as error:
            raise self.unreadable(key, error) from error
        if age_s > self.ttl_s:
            why = f" It is the last good one, of {envelope[2]}; there is no newer one because: {note}" if stale else ""
            raise MarketDataStale(
                f"{key} was fetched {age_s:.0f} s ago by scrape {envelope[1]}; it may be {self.ttl_s} s old.{why}",
                remedy=f"Materialise {self.asset}, then evaluate again.",
            )
        return value

    def is_fresh(self, key: str, raw: Raw) -> bool:
        """Whether there is a value that `open` would open."""
        try:
            self.open(key, raw)
        except MarketDataError:
            return False
        return True

    def missing(self, message: str) -> MarketDataMissing:
        """The error for something that is not there."""
        return MarketDataMissing(message, remedy=f"Materialise {self.asset}, then evaluate again.")

    def unreadable(self, key: str, error: Exception) -> MarketDataMissing:
        """The error for a value of another shape than ours."""
        return self.missing(f"The value of {key} in Redis cannot be read ({type(error).__name__}: {error}).")

    def sources(self) -> pd.DataFrame:
        """The scrapes read so far, see `sources_of`."""
        return sources_of(self)


def sources_of(*readers: Reader) -> pd.DataFrame:
    """The scrapes that these have read, in one frame: source, scrape_id, fetched_at, keys (how many), stale, note."""
    origins = [origin for reader in readers for origin in reader.counts]
    columns = list(zip(*origins, strict=True)) or [()] * 5
    return pd.DataFrame(
        {
            "source": text(columns[0]),
            "scrape_id": text(columns[1]),
            "fetched_at": pd.DatetimeIndex([_time(text_) for text_ in columns[2]], dtype=TIME),
            "keys": np.array([count for reader in readers for count in reader.counts.values()], dtype="int64"),
            "stale": np.array(columns[3], dtype=bool),
            "note": text(columns[4]),
        }
    )


def whole_numbers(values: Sequence[Any], least: int | None = None, most: int | None = None) -> np.ndarray:
    """(n,) int64.

    Raises:
        ValueError: one is no whole number (numpy would cut fractions off and read digits out of texts), or lies outside
            `least` … `most`.
        OverflowError: one has more than 64 bits.
    """
    if not {*map(type, values)} <= {int}:
        raise ValueError("a number is not whole")
    array = np.array(values, dtype="int64")
    if array.size and ((least is not None and array.min() < least) or (most is not None and array.max() > most)):
        raise ValueError(f"expected {least} … {'' if most is None else most}, got {array.min()} … {array.max()}")
    return array


def prices_of(values: Sequence[Any]) -> np.ndarray:
    """(n,) float64, each above 0 and finite.

    Raises:
        ValueError: one is not.
        OverflowError: one is larger than any float.
    """
    if not {*map(type, values)} <= {int, float}:
        raise ValueError("a price is not a number")
    array = np.array(values, dtype="float64")
    if not ((array > 0) & (array < np.inf)).all():
        raise ValueError("a price is not above 0 and finite")
    return array


def texts_of(values: Sequence[Any], *, among: Collection[str] | None = None) -> ExtensionArray:
    """(n,) texts, each one of `among` if that is given.

    Raises:
        ValueError: one is not.
    """
    if not isinstance(values, list | tuple) or not {*map(type, values)} <= {str}:
        raise ValueError("a text is not one")
    if among is not None and not set(among).issuperset(values):
        raise ValueError(f"{sorted({*values} - {*among})[0]!r} is none of {', '.join(among)}")
    return text(values)


@lru_cache(maxsize=256)
def _time(text_: str) -> datetime:
    time = datetime.fromisoformat(text_)
    if time.utcoffset() is None:
        raise ValueError(f"fetched_at {text_!r} has no time zone")
    return time
