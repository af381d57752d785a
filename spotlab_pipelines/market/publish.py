"""What a scrape writes to Redis: each function puts a whole scrape there in one MULTI pipeline. Keys are cache.py's.

A value is replaced whole and carries source, scrape_id and fetched_at. Frames are validated before they come here.
Price histories, which accounts share, are publish_prices.py's.
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
from spotlab_pipelines.market.cache import INSTANCE_METADATA, metadata_key, risk_key
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, joined

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
