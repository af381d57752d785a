"""Pool observations as they lie in Redis: the keys, the value of a family, and its decoder. No connection here.

| key | holds |
|---|---|
| `pool_history:{region}` | the families of which something was observed there |
| `pool_history:{region}:{family}` | the observations of its pools as columns, each pool named once |

The list tells "nothing was observed" (not listed) from "evicted" (listed, no value) and "never scraped" (no list).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS, OBSERVATION_KINDS, POOL_KEY, text
from spotlab_pipelines.market.values import UNREADABLE, Raw, Reader, texts_of, whole_numbers

NAMED = POOL_KEY[1:]


def pool_history_key(region: str, family: str | None = None) -> str:
    """The key of a family's observations, or of the region's list."""
    return f"pool_history:{region}" if family is None else f"pool_history:{region}:{family}"


def family_columns(observations: pd.DataFrame) -> dict[str, Any]:
    """One family's observations, sorted by pool and time, as the columns of its value."""
    first = ~observations.duplicated(list(NAMED)).to_numpy(dtype=bool)
    kinds = pd.Index(OBSERVATION_KINDS).get_indexer(pd.Index(observations["kind"]))
    sources, names = pd.factorize(observations["source"])
    return {
        "pools": {name: observations[name][first].tolist() for name in NAMED},
        "sources": names.tolist(),
        "observations": {
            "pool": np.cumsum(first) - 1,
            "observed_at_us": utc_ticks(observations["observed_at"].dt.as_unit("us")),
            "available": observations["available"].to_numpy(dtype=bool).astype(np.int64),
            "kind": kinds,
            "source": sources,
        },
    }


def decode_observations(
    reader: Reader, listed: Sequence[tuple[str, str, Raw]], keyed: Sequence[tuple[str, str, str, Raw]]
) -> pd.DataFrame:
    """Decode the lists (key, region, value) and the families (key, region, family, value) to one frame.

    Returns:
        Pool observations frame, by region, family, pool and time.

    Raises:
        MarketDataMissing, MarketDataStale: a list or the value of a listed family is not there, unreadable or too old.
    """
    families = {}
    for key, region, raw in listed:
        try:
            families[region] = frozenset(texts_of(reader.open(key, raw)["families"]))
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
    parts = [_no_observations()]
    for key, region, family, raw in keyed:
        if family not in families[region]:
            continue
        value = reader.open(key, raw)
        try:
            parts.append(_family(region, value))
        except UNREADABLE as error:
            raise reader.unreadable(key, error) from error
    return pd.concat(parts, ignore_index=True)


def _family(region: str, value: dict[str, Any]) -> pd.DataFrame:
    pools, columns = value["pools"], value["observations"]
    arrays = {name: whole_numbers(columns[name]) for name in columns}
    rows = {len(array) for array in arrays.values()}
    sizes = {len(pools[name]) for name in NAMED}
    limits = {
        "pool": len(pools["az_id"]),
        "available": 2,
        "kind": len(OBSERVATION_KINDS),
        "source": len(value["sources"]),
    }
    if len(rows) != 1 or len(sizes) != 1:
        raise ValueError("its columns differ in length")
    for name, limit in limits.items():
        if len(arrays[name]) and not 0 <= arrays[name].min() <= arrays[name].max() < limit:
            raise ValueError(f"its numbers of {name} are out of range")
    observed_at = pd.DatetimeIndex(arrays["observed_at_us"].view("M8[us]")).tz_localize("UTC")
    return pd.DataFrame(
        {
            "region": text([region] * rows.pop()),
            **{name: text(pools[name]).take(arrays["pool"]) for name in NAMED},
            "observed_at": observed_at,
            "available": arrays["available"].astype(bool),
            "kind": text(OBSERVATION_KINDS).take(arrays["kind"]),
            "source": text(value["sources"]).take(arrays["source"]),
        }
    )


def _no_observations() -> pd.DataFrame:
    empty = pd.DatetimeIndex([], tz="UTC").as_unit("us")
    columns: dict[str, Any] = {name: text([]) for name in OBSERVATION_COLUMNS}
    return pd.DataFrame(columns | {"observed_at": empty, "available": np.empty(0, dtype=bool)})
