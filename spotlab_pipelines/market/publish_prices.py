"""Price histories in Redis: what each says of itself, who wants what of it, and how one comes to replace another.

Accounts share them and want different things of them. What is wanted stands beside the history, in a sorted set of
types and products with the time at which an account last asked for each; what nobody has asked for within a time to
live is given up by the next scrape. A fresh history is never replaced by one that lacks what somebody wants of it, nor
by one whose prices of some zone are older: accounts do not all see the same zones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd

from spotlab_pipelines.database.redis import redis_errors
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.market.cache import price_key
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY, family_of
from spotlab_pipelines.market.parse import CLOCK_SKEW
from spotlab_pipelines.market.publish import Envelope

if TYPE_CHECKING:
    import redis as redis_client

WATCHED_TRIES = 20
"""How often a publication starts over because another one wrote the same keys meanwhile."""

Pair = tuple[str, str]
"""(region, family)."""


def wish_key(region: str, family: str) -> str:
    """The key of what is wanted of a family's price history."""
    return f"spot_price_wanted:{region}:{family}"


@dataclass(frozen=True)
class Wishes:
    """The types and products that accounts have asked for lately."""

    types: frozenset[str]
    products: frozenset[str]

    @classmethod
    def of(cls, members: Collection[bytes | str]) -> Wishes:
        """Read the members of a wish key."""
        names = [member.decode() if isinstance(member, bytes) else member for member in members]
        kinds = {"t:": set[str](), "p:": set[str]()}
        for name in names:
            kinds[name[:2]].add(name[2:])
        return cls(frozenset(kinds["t:"]), frozenset(kinds["p:"]))


@dataclass(frozen=True)
class PriceCover:
    """What a price history in Redis says of itself.

    Attributes:
        fetched_at: when it was fetched. since: from when on it goes.
        types, products: what it was asked for.
        zones: zone id -> when its prices were last fetched; of a zone that the last account does not see, earlier.
    """

    fetched_at: datetime
    since: datetime
    types: frozenset[str]
    products: frozenset[str]
    zones: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: bytes | None, *, now: datetime) -> PriceCover | None:
        """Read it from a value; None if there is no value, or it is not one of ours or one of the future, which no
        reader takes: nothing can be said of it."""
        try:
            value = orjson.loads(raw or b"")
            fetched_at, since = datetime.fromisoformat(value["fetched_at"]), datetime.fromisoformat(value["since"])
            zones = {name: datetime.fromisoformat(at) for name, at in value.get("zones", {}).items()}
            if any(time.utcoffset() is None for time in (fetched_at, since, *zones.values())):
                return None
            if max([fetched_at, *zones.values()]) > now + CLOCK_SKEW:
                return None
            return cls(fetched_at, since, frozenset(value["types"]), frozenset(value["products"]), zones)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def includes(self, types: Sequence[str], products: Sequence[str]) -> bool:
        """Whether all these types were asked for, in all these products."""
        return self.types >= set(types) and self.products >= set(products)

    def lacks(self, other: PriceCover, wishes: Wishes) -> bool:
        """Whether `other` has something that this one has not: a wish fulfilled, or newer prices of a zone."""
        return not (
            self.types >= other.types & wishes.types
            and self.products >= other.products & wishes.products
            and all(name in self.zones and self.zones[name] >= at for name, at in other.zones.items())
        )


def look_up(
    redis: redis_client.Redis,
    wanted: Mapping[Pair, tuple[Sequence[str], Sequence[str]]],
    *,
    now: datetime,
    ttl_s: int,
) -> dict[Pair, tuple[PriceCover | None, Wishes]]:
    """Say what is wanted, and read what Redis holds and what all accounts want of it, in one round trip."""
    with redis_errors(), redis.pipeline(transaction=False) as pipeline:
        pipeline.mget([price_key(*pair) for pair in wanted])
        for pair, (types, products) in wanted.items():
            members = [*(f"t:{name}" for name in types), *(f"p:{name}" for name in products)]
            key, at = wish_key(*pair), now.timestamp()
            pipeline.zadd(key, dict.fromkeys(members, at), gt=True)
            pipeline.zremrangebyscore(key, "-inf", at - ttl_s)
            pipeline.expire(key, ttl_s)
            pipeline.zrange(key, 0, -1)
        values, *answers = pipeline.execute()
    wishes = [Wishes.of(members) for members in answers[3::4]]
    return {pair: (PriceCover.of(raw, now=now), wish) for pair, raw, wish in zip(wanted, values, wishes, strict=True)}


def publish_prices(
    redis: redis_client.Redis,
    changes: pd.DataFrame,
    envelope: Envelope,
    *,
    ttl_s: int,
    since: datetime,
    covered: Mapping[Pair, tuple[Sequence[str], Sequence[str]]],
    zones: Mapping[Pair, Mapping[str, datetime]] | None = None,
) -> list[Pair]:
    """Write price histories, one value a (region, family).

    A value that is still fresh and has what ours lacks (see `PriceCover.lacks`) stays as it is, since another account
    relies on it: it came after this scrape looked at what there was, or it would have asked for that too.

    Args:
        changes: price changes frame.
        since: start of the window; each pool's last change before it is among the changes.
        covered: (region, family) -> (types, products) that were asked for. Each gets a value, without changes if AWS
            has none: that is how a reader tells "nothing there" from "never scraped".
        zones: (region, family) -> zone id -> when its prices were fetched.

    Returns:
        The (region, family) pairs that were not written.

    Raises:
        StoreUnavailable: Redis does not answer, or other scrapes do not stop writing the same keys.
    """
    changes = changes.sort_values([*POOL_KEY, "changed_at"], ignore_index=True)
    groups = changes.groupby([changes["region"], family_of(changes["instance_type"])], sort=False).indices
    zones = zones or {}
    since = since.astimezone(UTC)
    covers = {
        pair: PriceCover(envelope.fetched_at, since, frozenset(types), frozenset(products), zones.get(pair, {}))
        for pair, (types, products) in covered.items()
    }
    values = {
        (region, family): envelope.wrap(
            region=region,
            family=family,
            since=since.isoformat(),
            types=sorted(cover.types),
            products=sorted(cover.products),
            zones={name: at.astimezone(UTC).isoformat() for name, at in cover.zones.items()},
            **_columns(changes.take(np.asarray(groups.get((region, family), []), dtype="int64"))),
        )
        for (region, family), cover in covers.items()
    }
    return _replace_unless_lacking(redis, values, covers, ttl_s=ttl_s, now=envelope.fetched_at) if values else []


def _replace_unless_lacking(
    redis: redis_client.Redis,
    values: Mapping[Pair, bytes],
    covers: Mapping[Pair, PriceCover],
    *,
    ttl_s: int,
    now: datetime,
) -> list[Pair]:
    """Set the values in one MULTI, but for the keys whose value is fresh at `now` and has what ours lacks.

    The keys and the wishes are watched, so that nothing can come between the look at what is there and the writing.
    """
    from redis.exceptions import WatchError

    oldest = now - timedelta(seconds=ttl_s)
    keys, wish_keys = [price_key(*pair) for pair in values], [wish_key(*pair) for pair in values]
    with redis_errors(), redis.pipeline(transaction=True) as pipeline:
        for _ in range(WATCHED_TRIES):
            try:
                pipeline.watch(*keys, *wish_keys)
                found: Any = pipeline.mget(keys)
                there = {pair: PriceCover.of(raw, now=now) for pair, raw in zip(values, found, strict=True)}
                fresh = {pair: cover for pair, cover in there.items() if cover and cover.fetched_at >= oldest}
                kept = [
                    pair
                    for pair, cover in fresh.items()
                    if covers[pair].lacks(cover, _wishes(pipeline.zrange(wish_key(*pair), 0, -1), cover))
                ]
                pipeline.multi()
                for pair, key in zip(values, keys, strict=True):
                    if pair not in kept:
                        pipeline.set(key, values[pair], ex=ttl_s)
                pipeline.execute()
            except WatchError:
                continue
            return kept
    raise StoreUnavailable(
        f"Expected to write {len(keys)} price histories, but others wrote them {WATCHED_TRIES} times in between.",
        remedy="Scrape again; if it lasts, let fewer accounts be evaluated at the same moment.",
    )


def _wishes(members: Any, cover: PriceCover) -> Wishes:
    """What is wanted; where nobody has said anything, all that is there may be."""
    return Wishes.of(members) if members else Wishes(cover.types, cover.products)


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
