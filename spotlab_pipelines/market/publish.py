"""What a scrape writes to Redis: each function puts a whole scrape there in one MULTI pipeline. Keys are cache.py's.

A value is replaced whole and carries source, scrape_id and fetched_at. Frames are validated before they come here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd

from spotlab_pipelines.database.redis import redis_errors
from spotlab_pipelines.market.cache import INSTANCE_METADATA, metadata_key, price_key, risk_key
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, POOL_KEY, family_of

if TYPE_CHECKING:
    import redis as redis_client


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


def publish_prices(
    redis: redis_client.Redis,
    changes: pd.DataFrame,
    envelope: Envelope,
    *,
    ttl_s: int,
    since: datetime,
    covered: Mapping[tuple[str, str], tuple[Sequence[str], Sequence[str]]],
) -> int:
    """Write price histories, one value a (region, family).

    Args:
        changes: price changes frame.
        since: start of the window; each pool's last change before it is among the changes.
        covered: (region, family) -> (types, products) that were asked for. Each gets a value, without changes if AWS
            has none: that is how a reader tells "nothing there" from "never scraped".

    Returns:
        The number of changes written.
    """
    changes = changes.sort_values([*POOL_KEY, "changed_at"], ignore_index=True)
    groups = changes.groupby([changes["region"], family_of(changes["instance_type"])], sort=False).indices
    values = {
        price_key(region, family): envelope.wrap(
            region=region,
            family=family,
            since=since.astimezone(UTC).isoformat(),
            types=sorted(types),
            products=sorted(products),
            **_columns(changes.take(np.asarray(groups.get((region, family), []), dtype="int64"))),
        )
        for (region, family), (types, products) in covered.items()
    }
    _replace(redis, values, ttl_s)
    return len(changes)


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
