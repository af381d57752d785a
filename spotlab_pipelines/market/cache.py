"""The market in Redis: its keys, and the one decoder that reads them. Writing is publish.py's.

| key | holds | TTL setting |
|---|---|---|
| `spot_risk:{region}:{instance_type}` | the Advisor's bucket and saving, by OS | spot_risk_ttl_s |
| `spot_risk:{region}` | the types the Advisor lists in that region | the same |
| `instance_metadata:{instance_type}` | a type, and its on-demand price by region and OS | instance_metadata_ttl_s |
| `instance_metadata` | set of the types that the catalogue knows | the same |
| `spot_price_history:{region}:{family}` | change points as columns, what they cover | price_history_ttl_s |
| `spot_price_wanted:{region}:{family}` | sorted set: types and products by when they were last wanted | the same |
| `pool_history:{region}` and `…:{family}` | what was observed of pools, see pool_history.py | the same |

The two lists tell "AWS has nothing for it" (not listed, or covered without a row) from "evicted" (listed, no value) and
from "never scraped" (no list). Every value carries source, scrape_id and fetched_at and is replaced whole; a fresh
price history never by one that covers less, because accounts share it. The Advisor's say so if they are the last good
ones because a newer scrape failed (stale, note), and then outlive their TTL to tell it. Missing, stale or unreadable
values are errors that name the key and the asset to materialise: never a default.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spotlab_pipelines.database.redis import redis_errors
from spotlab_pipelines.market.decode import decode_advisor, decode_catalogue, decode_lists, decode_prices
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import among
from spotlab_pipelines.market.pool_history import decode_observations, pool_history_key
from spotlab_pipelines.market.values import Reader, sources_of

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

INSTANCE_METADATA = "instance_metadata"


def risk_key(region: str, instance_type: str | None = None) -> str:
    """The Advisor's key of a type, or of the region's list."""
    return f"spot_risk:{region}" if instance_type is None else f"spot_risk:{region}:{instance_type}"


def metadata_key(instance_type: str) -> str:
    """The catalogue's key of a type."""
    return f"{INSTANCE_METADATA}:{instance_type}"


def price_key(region: str, family: str) -> str:
    """The key of a family's price history."""
    return f"spot_price_history:{region}:{family}"


@dataclass(frozen=True)
class Catalogue:
    """Every known type (catalogue frame), its on-demand prices (on-demand frame), and the reader of both."""

    types: pd.DataFrame
    on_demand: pd.DataFrame
    reader: Reader


@dataclass(frozen=True)
class Market:
    """What one evaluation reads, all of it fresh.

    Attributes:
        prices: price changes of the wanted pools, sorted by pool and then time, from the last change before the
            window on.
        pools: the pools of `prices` (region, instance_type, az_id, product), in its order.
        pool_of_change: int64 array of len(prices): the row of `pools` that each change belongs to, non-decreasing.
        advisor: Advisor rows of the wanted types; what the Advisor does not list has no row.
        catalogue, on_demand: rows of the wanted types; what AWS does not list has no row.
        sources: the scrapes that were read: source, scrape_id, fetched_at, keys (how many values), stale (a newer
            scrape failed since), note (why there is no newer one, or since when the content is unchanged; else "").
        observations: what was observed of the pools of the wanted families; None if it was not asked for.
    """

    prices: pd.DataFrame
    pools: pd.DataFrame
    pool_of_change: np.ndarray
    advisor: pd.DataFrame
    catalogue: pd.DataFrame
    on_demand: pd.DataFrame
    sources: pd.DataFrame
    observations: pd.DataFrame | None = None


def lacking_sources(
    redis: redis_client.Redis, settings: Settings, regions: Collection[str], *, now: datetime
) -> list[str]:
    """The assets that all accounts share and whose values the cache does not hold: never scraped, expired, or lost.

    Values that are kept past their time to live, for the sake of an error's message, do not count.

    Args:
        regions: where the accounts are; the Advisor's values count as there if any of these regions has its list.
    """
    reader = Reader(now, settings.spot_risk_ttl_s, "spot_advisor")
    keys = [risk_key(region) for region in sorted(regions)]
    with redis_errors():
        lists: Any = redis.mget(keys) if keys else []
        known = redis.exists(INSTANCE_METADATA)
    lacking = [] if known else ["instance_catalogue"]
    if keys and not any(reader.is_fresh(key, raw) for key, raw in zip(keys, lists, strict=True)):
        lacking.append("spot_advisor")
    return lacking


def stale_sources(sources: pd.DataFrame) -> dict[str, str]:
    """Of `Market.sources`, those that a newer scrape failed to replace: source -> why."""
    told = zip(sources["source"], sources["note"], sources["stale"], strict=True)
    return {source: note for source, note, stale in told if stale}


def read_catalogue(redis: redis_client.Redis, settings: Settings, *, now: datetime) -> Catalogue:
    """Read the whole instance catalogue in one round trip.

    Raises:
        MarketDataMissing: never scraped, or a listed type was evicted.
        MarketDataStale: older than instance_metadata_ttl_s at `now`.
    """
    reader = Reader(now, settings.instance_metadata_ttl_s, "instance_catalogue")
    with redis_errors():
        answer: Any = redis.sort(INSTANCE_METADATA, by="nosort", get=["#", f"{INSTANCE_METADATA}:*"])
    if not answer:
        raise reader.missing(f"Redis has no {INSTANCE_METADATA}: the catalogue was never scraped, or has expired.")
    names = [name.decode() if isinstance(name, bytes) else name for name in answer[::2]]
    keyed = sorted(((metadata_key(name), name, raw) for name, raw in zip(names, answer[1::2], strict=True)), key=str)
    types, on_demand = decode_catalogue(reader, keyed)
    return Catalogue(types, on_demand, reader)


def read_market(
    redis: redis_client.Redis,
    settings: Settings,
    *,
    now: datetime,
    wanted: Wanted,
    catalogue: Catalogue,
    observations: bool = False,
) -> Market:
    """Read all that `wanted` names in one round trip; `catalogue` is what `wanted` was derived from.

    Args:
        now: the present, against which ages are judged: not an evaluation's window_start, which may lie a day back.
        observations: whether to read what was observed of the pools too.

    Raises:
        MarketDataMissing: a value was never scraped, was evicted, or does not cover the wanted types and products.
        MarketDataStale: a value is older than its time to live at `now`.
    """
    families = [(region, name) for region, names in wanted.families.items() for name in names]
    types = [(region, name) for region, names in wanted.types.items() for name in names]
    seen_in, seen = (wanted.types, families) if observations else ((), [])
    asked: list[list[tuple[str, ...]]] = [
        [(price_key(*of), of[0]) for of in families],
        [(risk_key(region), region) for region in wanted.types],
        [(risk_key(*of), *of) for of in types],
        [(pool_history_key(region), region) for region in seen_in],
        [(pool_history_key(*of), *of) for of in seen],
    ]
    prices, lists, risks, listed, histories = _read(redis, asked)
    readers = [
        Reader(now, settings.price_history_ttl_s, "spot_prices"),
        Reader(now, settings.spot_risk_ttl_s, "spot_advisor"),
        Reader(now, settings.price_history_ttl_s, "pool_observations"),
    ]
    covers = {region: (set(wanted.types[region]), set(wanted.products[region])) for region in wanted.types}
    changes, pools, codes = decode_prices(readers[0], prices, covers)
    advisor = decode_advisor(readers[1], risks, decode_lists(readers[1], lists))
    every_type = {name for names in wanted.types.values() for name in names}
    known, on_demand = catalogue.types, catalogue.on_demand
    here = among(on_demand["instance_type"], every_type) & among(on_demand["region"], wanted.types)
    observed = decode_observations(readers[2], listed, histories) if observations else None
    return Market(
        prices=changes,
        pools=pools,
        pool_of_change=codes,
        advisor=advisor,
        catalogue=known[among(known["instance_type"], every_type)].reset_index(drop=True),
        on_demand=on_demand[here].reset_index(drop=True),
        sources=sources_of(*readers, catalogue.reader),
        observations=observed,
    )


def _read(redis: redis_client.Redis, asked: list[list[tuple[str, ...]]]) -> list[list[tuple[Any, ...]]]:
    """The value of each entry's key, which comes first, put at its end; all in one round trip."""
    keys = [entry[0] for entries in asked for entry in entries]
    with redis_errors():
        values: Any = iter(redis.mget(keys) if keys else [])
    return [[(*entry, next(values)) for entry in entries] for entries in asked]
