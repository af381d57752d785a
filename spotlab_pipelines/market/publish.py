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
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, POOL_KEY, family_of, joined

if TYPE_CHECKING:
    import redis as redis_client

WITHDRAWN_AT_ONCE = 1000
WATCHED_TRIES = 20
"""How often a publication starts over because another one wrote the same keys meanwhile."""


@dataclass(frozen=True)
class Envelope:
    """Where a value comes from.

    Attributes:
        stale: a newer scrape failed, so that this is the last good content.
        note: why there is no newer content, or since when it is unchanged; "" if it is new.
    """

    source: str
    scrape_id: str
    fetched_at: datetime
    stale: bool = False
    note: str = ""

    @property
    def head(self) -> dict[str, Any]:
        """What every value begins with."""
        head: dict[str, Any] = {
            "source": self.source,
            "scrape_id": self.scrape_id,
            "fetched_at": self.fetched_at.astimezone(UTC).isoformat(),
        }
        if self.stale:
            head["stale"] = True
        return head | ({"note": self.note} if self.note else {})

    def wrap(self, **content: Any) -> bytes:
        """The value as JSON, with its origin."""
        return orjson.dumps({**self.head, **content}, option=orjson.OPT_SERIALIZE_NUMPY)


def publish_advisor(
    redis: redis_client.Redis, rows: pd.DataFrame, envelope: Envelope, *, ttl_s: int, regions: Sequence[str]
) -> int:
    """Write Advisor rows; `regions` are those that get a list even if the Advisor has nothing for them.

    Returns:
        The number of keys written.
    """
    keys = joined(rows, ("region", "instance_type"), by=":").tolist()
    begin, values = envelope.wrap(os={})[:-2], {}
    for key, entry in zip(keys, _advisor_entries(rows), strict=True):
        values[key] = values[key] + b"," + entry if key in values else begin + entry
    listed: dict[str, list[str]] = {region: [] for region in regions}
    for key in values:
        region, _, name = key.partition(":")
        listed.setdefault(region, []).append(name)
    named = {risk_key(key): value + b"}}" for key, value in values.items()}
    named |= {risk_key(region): envelope.wrap(types=sorted(types)) for region, types in listed.items()}
    _replace(redis, named, ttl_s)
    return len(named)


def _advisor_entries(rows: pd.DataFrame) -> list[bytes]:
    """Each row as `"OS":{…}`. Few of 25,000 rows differ in what they say, so each saying is encoded once."""
    says = ["bucket", "interrupt_rate_min", "interrupt_rate_max", "interrupt_rate_mid", "savings_pct"]
    os, systems = pd.factorize(rows["os"])
    code = ((rows["savings_pct"].to_numpy() * 5) + rows["bucket"].to_numpy()) * len(systems) + os
    _, first, of_row = np.unique(code, return_index=True, return_inverse=True)
    columns = [rows["os"].iloc[first].tolist(), *(rows[name].iloc[first].tolist() for name in says)]
    said = [
        orjson.dumps({name: dict(zip(says, values, strict=True))})[1:-1] for name, *values in zip(*columns, strict=True)
    ]
    return [said[one] for one in of_row.tolist()]


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


WITHDRAW = """
local mine, removed = '"scrape_id":"' .. ARGV[1] .. '"', 0
for _, key in ipairs(KEYS) do
    local value = redis.call('GET', key)
    if value and string.find(string.sub(value, 1, 400), mine, 1, true) then
        removed = removed + redis.call('DEL', key)
    end
end
return removed
"""


def withdraw(redis: redis_client.Redis, scrape_id: object, pattern: str) -> None:
    """Take back what a scrape that failed has published: of the keys like `pattern` those that still hold its values.

    What they held before is not brought back: without a value a reader is told that one is missing.
    """
    with redis_errors():
        names = list(redis.scan_iter(match=pattern, count=WITHDRAWN_AT_ONCE))
        for start in range(0, len(names), WITHDRAWN_AT_ONCE):
            part = names[start : start + WITHDRAWN_AT_ONCE]
            redis.eval(WITHDRAW, len(part), *part, str(scrape_id))


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
