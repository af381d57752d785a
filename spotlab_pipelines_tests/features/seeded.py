"""A market in Redis and a fleet in Postgres without any AWS, for what comes after the scrapes: tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation
from spotlab_pipelines.database.tables import Account, Instance, User
from spotlab_pipelines.market.frames import POOL_KEY, family_of
from spotlab_pipelines.market.observations import publish_observations
from spotlab_pipelines.market.parse_advisor import advisor_frame
from spotlab_pipelines.market.publish import Envelope, publish_advisor, publish_catalogue
from spotlab_pipelines.market.publish_prices import publish_prices
from spotlab_pipelines.market.reading import new_facts
from spotlab_pipelines.market.records import RecordEntry
from spotlab_pipelines.market.scrapes import ScrapeRecord
from spotlab_pipelines_tests.features.examples import LINUX

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

REGION = "us-east-1"
ACCOUNT = "111111111111"


@dataclass(frozen=True)
class SeededMarket:
    """Types that all fit each other, in every zone, with random prices; frames as the scrapes give them."""

    types: pd.DataFrame
    on_demand: pd.DataFrame
    advisor: pd.DataFrame
    changes: pd.DataFrame
    zones: tuple[str, ...]


def seeded_market(
    *, families: int = 3, sizes: int = 2, zones: int = 3, changes_per_pool: int = 12, seed: int = 1, now: datetime
) -> SeededMarket:
    """Prices between 30 and 60 % of 0.10 USD per hour, changed over the last ten days."""
    generator = np.random.default_rng(seed)
    names = [f"m{family}.s{size}" for family in range(families) for size in range(sizes)]
    zone_ids = tuple(f"use1-az{zone + 1}" for zone in range(zones))
    types = pd.DataFrame(
        {
            "instance_type": pd.Series(names, dtype="str"),
            "vcpus": 2,
            "memory_mib": 8192,
            "architecture": pd.Series(["x86_64"] * len(names), dtype="str"),
            "accelerators": pd.Series([""] * len(names), dtype="str"),
            "current_generation": True,
            "network_performance": pd.Series(["Up to 10 Gigabit"] * len(names), dtype="str"),
        }
    )
    on_demand = pd.DataFrame(
        {
            "region": pd.Series([REGION] * len(names), dtype="str"),
            "os": pd.Series(["Linux"] * len(names), dtype="str"),
            "instance_type": types["instance_type"],
            "on_demand_usd_per_hour": 0.10,
            "price_source": pd.Series(["pricing"] * len(names), dtype="str"),
        }
    )
    bucket = generator.integers(0, 5, len(names))
    advisor = advisor_frame(
        on_demand["region"], on_demand["os"], types["instance_type"], bucket, np.full(len(names), 60)
    )
    count = len(names) * zones * changes_per_pool
    ages = generator.uniform(0, 10 * 86400, count)
    changes = pd.DataFrame(
        {
            "region": pd.Series([REGION] * count, dtype="str"),
            "instance_type": pd.Series(np.repeat(names, zones * changes_per_pool), dtype="str"),
            "az_id": pd.Series(np.tile(np.repeat(zone_ids, changes_per_pool), len(names)), dtype="str"),
            "product": pd.Series([LINUX] * count, dtype="str"),
            "changed_at": pd.to_datetime([now - timedelta(seconds=age) for age in ages], utc=True).as_unit("us"),
            "spot_price_usd_per_hour": np.round(generator.uniform(0.03, 0.06, count), 4),
        }
    )
    return SeededMarket(types, on_demand, advisor, changes, zone_ids)


def publish(redis: redis_client.Redis, settings: Settings, market: SeededMarket, *, fetched_at: datetime) -> None:
    """Put a market into Redis as the scrapes would."""

    def envelope(source: str) -> Envelope:
        return Envelope(source, f"00000000-0000-0000-0000-{abs(hash(source)) % 10**12:012d}", fetched_at)

    publish_catalogue(redis, market.types, market.on_demand, envelope("instance_catalogue"), ttl_s=86400)
    publish_advisor(redis, market.advisor, envelope("spot_advisor"), ttl_s=3600, regions=[REGION])
    names = market.types["instance_type"]
    covered = {
        (REGION, str(family)): (members.tolist(), [LINUX]) for family, members in names.groupby(family_of(names))
    }
    since = fetched_at - settings.price_window
    publish_prices(redis, market.changes, envelope("spot_prices"), ttl_s=3600, since=since, covered=covered)


def seeded_observations(market: SeededMarket, *, now: datetime, seed: int = 2, rows: int = 400) -> pd.DataFrame:
    """Observations of the market's pools over the last ten days; a fifth of them failed, one pool was never seen."""
    generator = np.random.default_rng(seed)
    pools = market.changes[list(POOL_KEY)].drop_duplicates(ignore_index=True)
    of = pools.take(generator.integers(0, len(pools) - 1, rows)).reset_index(drop=True)
    ages = generator.uniform(0, 10 * 86400, rows)
    return of.assign(
        observed_at=pd.to_datetime([now - timedelta(seconds=age) for age in ages], utc=True).as_unit("us"),
        available=generator.random(rows) < 0.8,
        kind=pd.Series(["probe"] * rows, dtype="str"),
        source=pd.Series(["seeded"] * rows, dtype="str"),
    )


def publish_seen(
    redis: redis_client.Redis, observations: pd.DataFrame, *, fetched_at: datetime, ttl_s: int = 3600
) -> None:
    """Put observations of the seeded region into Redis as their scrape would."""
    envelope = Envelope("pool_observations", "00000000-0000-0000-0000-000000000001", fetched_at)
    publish_observations(redis, observations, envelope, ttl_s=ttl_s, regions=[REGION])


def archived(archive: Archive, market: SeededMarket, *, fetched_at: datetime, prices: bool = True) -> None:
    """Archive a market as the scrapes of one moment would; with `prices` what had changed by then."""

    def keep(source: str, frame: pd.DataFrame, entries: Sequence[RecordEntry] = ()) -> None:
        record = ScrapeRecord(source, fetched_at=fetched_at)
        record.keep(archive, frame)
        if entries:
            record.covers(archive, entries)
        record.close()

    names = market.types["instance_type"]
    keep("instance_catalogue", market.types.merge(market.on_demand, on="instance_type", how="left"))
    keep("spot_advisor", market.advisor)
    if prices:
        entries = [
            RecordEntry(REGION, 0, family=str(family), types=tuple(members), products=(LINUX,), zones=market.zones)
            for family, members in names.groupby(family_of(names))
        ]
        changes = market.changes[market.changes["changed_at"] <= fetched_at]
        new = new_facts(archive, "spot_prices", changes)
        keep("spot_prices", new, entries)


def seed_account(engine: sa.Engine, market: SeededMarket, *, instances: int, environment: str = "LAB") -> None:
    """An account with a fleet spread over the market's pools; every ninth instance is on demand."""
    names, zones = market.types["instance_type"].tolist(), market.zones
    with engine.begin() as connection:
        owner = connection.execute(
            sa.insert(User).values(email=f"owner-{ACCOUNT}@example.com").returning(User.id)
        ).scalar_one()
        connection.execute(
            sa.insert(Account).values(
                account_id=ACCOUNT,
                name="seeded",
                owner_id=owner,
                environment=environment,
                role_arn=f"arn:aws:iam::{ACCOUNT}:role/SpotLab",
                external_id="an-external-id-for-tests-only",
                regions=[REGION],
                evaluation_interval_s=1800,
                interruption_cost_usd=1.0,
            )
        )
        connection.execute(
            sa.insert(Instance),
            [
                {
                    "account_id": ACCOUNT,
                    "instance_id": f"i-{number:017x}",
                    "region": REGION,
                    "az_id": zones[number // len(names) % len(zones)],
                    "instance_type": names[number % len(names)],
                    "product": LINUX,
                    "lifecycle": "on-demand" if number % 9 == 8 else "spot",
                    "state": "running",
                    "tags": {"Name": f"worker-{number}"},
                    "launched_at": datetime(2026, 1, 1, tzinfo=UTC),
                }
                for number in range(instances)
            ],
        )


def begun(engine: sa.Engine, window_start: datetime) -> EvaluationKey:
    """The key of an evaluation of the seeded account that has begun."""
    key = EvaluationKey(ACCOUNT, window_start)
    begin_evaluation(engine, key, None)
    return key
