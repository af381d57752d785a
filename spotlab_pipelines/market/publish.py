"""What a scrape writes to Redis: each function puts a whole scrape there in one MULTI pipeline. Keys are cache.py's.

A value is replaced whole and carries source, scrape_id and fetched_at. Frames are validated before they come here.
Price histories are shared by accounts that want different things of them: a fresh one is never replaced by a narrower.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd

from spotlab_pipelines.database.redis import redis_errors
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.market.cache import INSTANCE_METADATA, metadata_key, price_key, risk_key
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, POOL_KEY, family_of

if TYPE_CHECKING:
    import redis as redis_client

WATCHED_TRIES = 20
"""How often a publication starts over because another one wrote the same keys meanwhile."""


@dataclass(frozen=True)
class Envelope:
    """Where a value comes from."""

    source: str
    scrape_id: str
    fetched_at: datetime

    def wrap(self, **content: Any) -> bytes:
        """The value as JSON, with its origin."""
        fetched_at = self.fetched_at.astimezone(UTC).isoformat()
        return orjson.dumps(
            {"source": self.source, "scrape_id": self.scrape_id, "fetched_at": fetched_at, **content},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )


def publish_advisor(
    redis: redis_client.Redis, rows: pd.DataFrame, envelope: Envelope, *, ttl_s: int, regions: Sequence[str]
) -> int:
    """Write Advisor rows; `regions` are those that get a list even if the Advisor has nothing for them.

    Returns:
        The number of keys written.
    """
    entries: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    names = ("region", "instance_type", "os", "bucket", "interrupt_rate_min", "interrupt_rate_max", "savings_pct")
    for region, name, os, bucket, rate_min, rate_max, savings in zip(
        *(rows[column].tolist() for column in names), strict=True
    ):
        entries[region, name][os] = {
            "bucket": bucket,
            "interrupt_rate_min": rate_min,
            "interrupt_rate_max": rate_max,
            "savings_pct": savings,
        }
    listed: dict[str, list[str]] = {region: [] for region in regions}
    for region, name in entries:
        listed.setdefault(region, []).append(name)
    values = {risk_key(*key): envelope.wrap(os=by_os) for key, by_os in entries.items()}
    values |= {risk_key(region): envelope.wrap(types=sorted(types)) for region, types in listed.items()}
    _replace(redis, values, ttl_s)
    return len(values)


def publish_catalogue(
    redis: redis_client.Redis, types: pd.DataFrame, on_demand: pd.DataFrame, envelope: Envelope, *, ttl_s: int
) -> int:
    """Write instance types with their on-demand prices; the set of known types is replaced with them.

    Returns:
        The number of types written.
    """
    prices: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    columns = ("instance_type", "region", "os", "on_demand_usd_per_hour", "price_source")
    for name, region, os, price, source in zip(*(on_demand[column].tolist() for column in columns), strict=True):
        prices[name][region][os] = {"usd_per_hour": price, "source": source}
    values = {
        metadata_key(row[0]): envelope.wrap(
            **dict(zip(CATALOGUE_COLUMNS, row, strict=True)), on_demand=prices.get(row[0], {})
        )
        for row in zip(*(types[column].tolist() for column in CATALOGUE_COLUMNS), strict=True)
    }
    _replace(redis, values, ttl_s, members=types["instance_type"].tolist())
    return len(values)


@dataclass(frozen=True)
class PriceCover:
    """What a price history in Redis says of itself: when it was fetched, since when it goes, what it was asked for."""

    fetched_at: datetime
    since: datetime
    types: frozenset[str]
    products: frozenset[str]

    @classmethod
    def of(cls, raw: bytes | None) -> PriceCover | None:
        """Read it from a value; None if there is no value or it is not one of ours: nothing can be said of it."""
        try:
            value = orjson.loads(raw or b"")
            times = (datetime.fromisoformat(value["fetched_at"]), datetime.fromisoformat(value["since"]))
            if any(time.utcoffset() is None for time in times):
                return None
            return cls(*times, frozenset(value["types"]), frozenset(value["products"]))
        except (KeyError, TypeError, ValueError):
            return None

    def includes(self, types: Sequence[str], products: Sequence[str]) -> bool:
        """Whether all these types were asked for, in all these products."""
        return self.types >= set(types) and self.products >= set(products)


def publish_prices(
    redis: redis_client.Redis,
    changes: pd.DataFrame,
    envelope: Envelope,
    *,
    ttl_s: int,
    since: datetime,
    covered: Mapping[tuple[str, str], tuple[Sequence[str], Sequence[str]]],
) -> list[tuple[str, str]]:
    """Write price histories, one value a (region, family).

    A value that is still fresh and covers a type or a product that ours does not stays as it is, since another account
    relies on it: it came after this scrape looked at what there was, or it would have asked for that too.

    Args:
        changes: price changes frame.
        since: start of the window; each pool's last change before it is among the changes.
        covered: (region, family) -> (types, products) that were asked for. Each gets a value, without changes if AWS
            has none: that is how a reader tells "nothing there" from "never scraped".

    Returns:
        The (region, family) pairs that were not written.

    Raises:
        StoreUnavailable: Redis does not answer, or other scrapes do not stop writing the same keys.
    """
    changes = changes.sort_values([*POOL_KEY, "changed_at"], ignore_index=True)
    groups = changes.groupby([changes["region"], family_of(changes["instance_type"])], sort=False).indices
    values = {
        (region, family): envelope.wrap(
            region=region,
            family=family,
            since=since.astimezone(UTC).isoformat(),
            types=sorted(types),
            products=sorted(products),
            **_columns(changes.take(np.asarray(groups.get((region, family), []), dtype="int64"))),
        )
        for (region, family), (types, products) in covered.items()
    }
    oldest = envelope.fetched_at - timedelta(seconds=ttl_s)
    return _replace_unless_wider(redis, values, covered, ttl_s=ttl_s, oldest=oldest) if values else []


def _replace_unless_wider(
    redis: redis_client.Redis,
    values: Mapping[tuple[str, str], bytes],
    covered: Mapping[tuple[str, str], tuple[Sequence[str], Sequence[str]]],
    *,
    ttl_s: int,
    oldest: datetime,
) -> list[tuple[str, str]]:
    """Set the values in one MULTI, but for the keys whose value was fetched since `oldest` and covers more.

    The keys are watched, so that no value can come between the look at what is there and the writing.
    """
    from redis.exceptions import WatchError

    keys = [price_key(*pair) for pair in values]
    with redis_errors(), redis.pipeline(transaction=True) as pipeline:
        for _ in range(WATCHED_TRIES):
            try:
                pipeline.watch(*keys)
                found: Any = pipeline.mget(keys)
                there = {pair: PriceCover.of(raw) for pair, raw in zip(values, found, strict=True)}
                wider = [
                    pair
                    for pair, cover in there.items()
                    if cover is not None
                    and cover.fetched_at >= oldest
                    and not (cover.types <= set(covered[pair][0]) and cover.products <= set(covered[pair][1]))
                ]
                pipeline.multi()
                for pair, key in zip(values, keys, strict=True):
                    if pair not in wider:
                        pipeline.set(key, values[pair], ex=ttl_s)
                pipeline.execute()
            except WatchError:
                continue
            return wider
    raise StoreUnavailable(
        f"Expected to write {len(keys)} price histories, but others wrote them {WATCHED_TRIES} times in between.",
        remedy="Scrape again; if it lasts, let fewer accounts be evaluated at the same moment.",
    )


def _columns(changes: pd.DataFrame) -> dict[str, Any]:
    """Sorted changes as columns, each pool named once and then by its number."""
    key = ["instance_type", "az_id", "product"]
    first = ~changes.duplicated(key).to_numpy(dtype=bool)
    return {
        "pools": {name: changes[name][first].tolist() for name in key},
        "changes": {
            "pool": np.cumsum(first) - 1,
            "changed_at_us": utc_ticks(changes["changed_at"].dt.as_unit("us")),
            "spot_price_usd_per_hour": changes["spot_price_usd_per_hour"].to_numpy(),
        },
    }


def _replace(
    redis: redis_client.Redis, values: Mapping[str, bytes], ttl_s: int, members: Sequence[str] | None = None
) -> None:
    with redis_errors(), redis.pipeline(transaction=True) as pipeline:
        for key, value in values.items():
            pipeline.set(key, value, ex=ttl_s)
        if members is not None:
            pipeline.delete(INSTANCE_METADATA)
            if members:
                pipeline.sadd(INSTANCE_METADATA, *members)
                pipeline.expire(INSTANCE_METADATA, ttl_s)
        pipeline.execute()
