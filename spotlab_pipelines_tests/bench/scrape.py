"""An account's price scrape against its bare HTTP calls: ten regions of sixty instance types each.

The floor makes the very calls that the scrape makes, page by page, through botocore clients whose sessions are warm, as
many at a time: what AWS's own client needs to bring the rows as Python objects. The scrape besides asks Redis, parses,
checks, compares with the archive, writes there, publishes and keeps a row. A second account with the same regions and
families makes no price call at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.laboratory import laboratory
from spotlab_pipelines_tests.bench.measure import Figure, best_of

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.market.fetching import Listing
    from spotlab_pipelines_tests.local_aws.client import LocalAwsClient

ROUNDS = 3
FIRST, SECOND = "111111111111", "222222222222"
REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1"),
    *("eu-west-2", "eu-central-1", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1"),
)
FAMILIES, SIZES, ZONES = 12, 5, 2
DAYS, CHANGES_PER_DAY = 14, 5.5
LINUX = "Linux/UNIX"


def figures() -> list[Figure]:
    """Best of three: a first scrape, and the one after it."""
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.fetching import group_listings
    from spotlab_pipelines.market.prices import scrape_prices

    with laboratory(_market) as (settings, engine, aws, market):
        redis, archive = connect_redis(settings), Archive(settings.archive_location)
        sessions = AccountSessions(engine)
        for account_id in (FIRST, SECOND):
            _account(engine, aws, account_id)
        _publish_catalogue(redis, market)

        def scrape(account_id: str = FIRST) -> Any:
            return scrape_prices(settings, sessions, engine, redis, archive, account_id)

        def anew() -> None:
            redis.delete(*(redis.keys("spot_price_*") or ["none"]))
            shutil.rmtree(archive.url, ignore_errors=True)

        anew()
        first = scrape()
        start = first.fetched_at - timedelta(days=settings.price_history_days)
        listings = group_listings({(region, name, LINUX): start for region in REGIONS for name in _names()})
        bare = _bare(sessions, listings, first.fetched_at)
        assert first.details["listings"] == len(listings)
        # A few rows more: pages may repeat one.
        assert 0 <= bare() - first.row_count < 0.01 * first.row_count
        measured_s, floor_s = best_of(ROUNDS, scrape, bare, before=anew)
        second = scrape(SECOND)
        assert (second.details["families_fetched"], second.details["listings"], second.row_count) == (0, 0, 0)
        name = f"price scrape of {len(REGIONS)} regions × {FAMILIES * SIZES} types: {first.row_count:,} price changes"
        note = f"{len(listings)} listings; a second account makes 0 price calls"
        return [Figure(name, measured_s, "the same calls through warm botocore clients", floor_s, 1.3, note)]


def _bare(sessions: AccountSessions, listings: list[Listing], end: datetime) -> Callable[[], int]:
    from spotlab_pipelines.market.fetching import PARALLEL_CALLS

    def one(listing: Listing) -> int:
        client, rows = sessions.get_ec2_client(FIRST, listing.region), 0
        asked: dict[str, Any] = {
            "InstanceTypes": list(listing.types),
            "ProductDescriptions": list(listing.products),
            "StartTime": listing.start,
            "EndTime": end,
            "MaxResults": 1000,
        }
        while True:
            page = client.describe_spot_price_history(**asked)
            rows += len(page.get("SpotPriceHistory", []))
            asked["NextToken"] = page.get("NextToken")
            if not asked["NextToken"]:
                return rows

    def work() -> int:
        with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
            return sum(pool.map(one, listings))

    return work


def _names() -> list[str]:
    return [f"m{family}.s{size}" for family in range(FAMILIES) for size in range(SIZES)]


def _market(settings: Settings) -> Path:
    """A market recording of the regions: names of our own, zones as the local AWS knows them."""
    from spotlab_pipelines_tests.local_aws.zones import recorder_zones

    random, end = np.random.default_rng(3), datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    folder = settings.data_dir / "bench-market"
    folder.mkdir(parents=True)
    pools = pd.MultiIndex.from_tuples(
        [
            (region, zone, name)
            for region in REGIONS
            for zone in sorted(recorder_zones(region))[:ZONES]
            for name in _names()
        ]
    )
    pool = np.repeat(np.arange(len(pools)), random.poisson(DAYS * CHANGES_PER_DAY, len(pools)))
    seconds = random.integers(0, DAYS * 86400, len(pool))
    prices = pd.DataFrame(
        {
            "Region": pools.get_level_values(0).take(pool),
            "AvailabilityZone": pools.get_level_values(1).take(pool),
            "InstanceType": pools.get_level_values(2).take(pool),
            "ProductDescription": LINUX,
            "SpotPrice": np.round(random.uniform(0.03, 0.06, len(pool)), 4),
            "Timestamp": pd.Timestamp(end - timedelta(days=DAYS)) + pd.to_timedelta(seconds, unit="s"),
        }
    )
    prices.to_parquet(folder / "price-history.parquet", index=False)
    on_demand = pd.DataFrame(
        [(region, name, "Linux", 0.1) for region in REGIONS for name in _names()],
        columns=["region", "instance_type", "operating_system", "usd_per_hour"],
    )
    on_demand.to_csv(folder / "on-demand.csv", index=False)
    types = [{"InstanceType": name} for name in _names()]
    documents = {
        "instance-types.json": {"InstanceTypes": types},
        "advisor.json": {"spot_advisor": {}},
        "recording.json": {"start": (end - timedelta(days=DAYS)).isoformat(), "end": end.isoformat()},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return folder


def _account(engine: sa.Engine, aws: LocalAwsClient, account_id: str) -> None:
    """An account with one instance in each region, of a type that all others fit."""
    from spotlab_pipelines.accounts.registry import add_account
    from spotlab_pipelines.accounts.users import add_user
    from spotlab_pipelines.database.tables import Instance
    from spotlab_pipelines_tests.local_aws.zones import recorder_zones

    add_user(engine, "bench@example.com")
    account = add_account(
        engine,
        account_id=account_id,
        name=account_id,
        owner_email="bench@example.com",
        role_arn=f"arn:aws:iam::{account_id}:role/SpotLab",
        regions=list(REGIONS),
    )
    aws.add_account(account_id, external_id=account.external_id.get_secret_value(), regions=list(REGIONS))
    rows = [
        {
            "account_id": account_id,
            "instance_id": f"i-{account_id[0]}{number:016x}",
            "region": region,
            "az_id": sorted(recorder_zones(region).values())[0],
            "instance_type": _names()[0],
            "product": LINUX,
            "lifecycle": "spot",
            "state": "running",
            "tags": {},
            "launched_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for number, region in enumerate(REGIONS)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(Instance), rows)


def _publish_catalogue(redis: redis_client.Redis, market: Path) -> None:
    """Types that all fit each other; the catalogue's own scrape is not measured here."""
    from spotlab_pipelines.market.frames import text
    from spotlab_pipelines.market.publish import Envelope, publish_catalogue

    names = _names()
    types = pd.DataFrame(
        {
            "instance_type": text(names),
            "vcpus": 2,
            "memory_mib": 8192,
            "architecture": text(["x86_64"] * len(names)),
            "accelerators": text([""] * len(names)),
            "current_generation": True,
            "network_performance": text(["Up to 10 Gigabit"] * len(names)),
        }
    )
    prices = pd.read_csv(market / "on-demand.csv").rename(
        columns={"operating_system": "os", "usd_per_hour": "on_demand_usd_per_hour"}
    )
    on_demand = prices.assign(price_source="pricing").astype(
        dict.fromkeys(["region", "os", "instance_type", "price_source"], "str")
    )
    origin = Envelope("instance_catalogue", "00000000-0000-0000-0000-000000000000", datetime.now(UTC))
    publish_catalogue(redis, types, on_demand, origin, ttl_s=86400)
