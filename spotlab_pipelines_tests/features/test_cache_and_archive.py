"""Whatever was scraped when: each spec has the same floats from Redis, from the archive as of then, and in training."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from uuid import uuid4

import pandas as pd
import redis as redis_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.specs import SPECS
from spotlab_pipelines.features.tables import FeatureInputs, FeatureTables, feature_tables
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import Market, read_catalogue, read_market
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.history import MarketHistory, cover_of
from spotlab_pipelines.market.layout import (
    HISTORY_DAYS,
    INSTANCE_CATALOGUE,
    POOL_OBSERVATIONS,
    RECORDS,
    SPOT_ADVISOR,
    SPOT_PRICES,
)
from spotlab_pipelines.market.observations import publish_observations
from spotlab_pipelines.market.parse import parse_instance_types
from spotlab_pipelines.market.publish import Envelope, publish_advisor, publish_catalogue
from spotlab_pipelines.market.publish_prices import publish_prices
from spotlab_pipelines.market.records import RecordEntry, record_frame
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.features.examples import LINUX, NOW, WEEK, changes, listed_market
from spotlab_pipelines_tests.features.observed import ZONES, drawn_observations, places
from spotlab_pipelines_tests.features.test_movement import TYPES, price_rows

REGION = "us-east-1"
WANTED = Wanted(types={REGION: tuple(sorted(TYPES))}, families={REGION: ("c5", "m5")}, products={REGION: (LINUX,)})
COVER = cover_of(WANTED)
ADVISOR, ON_DEMAND = listed_market(TYPES)
CATALOGUE = parse_instance_types(
    {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": 2},
        "MemoryInfo": {"SizeInMiB": 8192},
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
    }
    for name in TYPES
)


def archive_all(archive: Archive, prices: pd.DataFrame, seen: pd.DataFrame, scrapes: list[datetime]) -> None:
    """What scrapes at these instants leave: of prices and observations what is new, and the documents each time."""
    documents = {SPOT_ADVISOR: ADVISOR, INSTANCE_CATALOGUE: CATALOGUE.merge(ON_DEMAND, on="instance_type", how="left")}
    before = pd.Timestamp("2000-01-01", tz="UTC")
    facts = {SPOT_PRICES: (prices, "changed_at"), POOL_OBSERVATIONS: (seen, "observed_at")}
    asked = [RecordEntry(REGION, 0, family=name, types=of, products=by) for (_, name), (of, by) in COVER.items()]
    for at in scrapes:
        for kind, (frame, time) in facts.items():
            new = frame[(frame[time] > before) & (frame[time] <= pd.Timestamp(at))].reset_index(drop=True)
            record(archive, kind, at, new.rename(columns={"kind": "observation"}), asked)
        for kind, frame in documents.items():
            record(archive, kind, at, frame, [RecordEntry(REGION, len(frame))])
        before = pd.Timestamp(at)


def record(archive: Archive, kind: str, at: datetime, frame: pd.DataFrame, entries: list[RecordEntry]) -> None:
    """One scrape of one kind."""
    scrape_id = uuid4()
    if len(frame):
        archive.write_scrape(kind=kind, region=REGION, fetched_at=at, scrape_id=scrape_id, frame=frame)
    frame = record_frame(kind, entries)
    archive.write_scrape(kind=RECORDS, region=None, fetched_at=at, scrape_id=scrape_id, frame=frame)


def served(redis: redis_py.Redis, settings: Settings, prices: pd.DataFrame, seen: pd.DataFrame, at: datetime) -> Market:
    """The market as an evaluation reads it from Redis after a scrape at `at`."""
    redis.flushall()

    def envelope(source: str) -> Envelope:
        return Envelope(source, str(uuid4()), at)

    publish_catalogue(redis, CATALOGUE, ON_DEMAND, envelope(INSTANCE_CATALOGUE), ttl_s=600)
    publish_advisor(redis, ADVISOR, envelope(SPOT_ADVISOR), ttl_s=600, regions=[REGION])
    known = prices[prices["changed_at"] <= pd.Timestamp(at)]
    # As a scrape does: each pool's last change before the window, and those within it.
    in_window = known["changed_at"] > pd.Timestamp(at - WEEK)
    opening = known[~in_window].sort_values(["changed_at", "spot_price_usd_per_hour"])
    opening = opening.drop_duplicates(["instance_type", "az_id"], keep="last")
    publish_prices(
        redis, pd.concat([known[in_window], opening]), envelope(SPOT_PRICES), ttl_s=600, since=at - WEEK, covered=COVER
    )
    age = pd.Timestamp(at) - seen["observed_at"]
    recent = seen[(age >= pd.Timedelta(0)) & (age < pd.Timedelta(days=HISTORY_DAYS))]
    publish_observations(redis, recent, envelope(POOL_OBSERVATIONS), ttl_s=600, regions=[REGION])
    catalogue = read_catalogue(redis, settings, now=at)
    return read_market(redis, settings, now=at, wanted=WANTED, catalogue=catalogue, observations=True)


def tables(market: Market, at: datetime) -> FeatureTables:
    more = tuple(spec for spec in SPECS if spec != "v1")
    inputs = FeatureInputs("v1", at.isoformat(), WEEK.total_seconds(), 0.3, 2.0, at.isoformat(), more)
    return feature_tables(market, places(*ZONES[:1]), inputs)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=price_rows,
    seen=drawn_observations(),
    hours=st.lists(st.integers(0, 120), min_size=1, max_size=3, unique=True),
    data=st.data(),
)
def test_every_spec_is_the_same_from_the_cache_from_the_archive_and_in_training(
    redis: redis_py.Redis, settings: Settings, rows: list, seen: pd.DataFrame, hours: list[int], data: st.DataObject
):
    scrapes = sorted(NOW - timedelta(hours=each) for each in hours)
    at = data.draw(st.sampled_from(scrapes), "at")
    prices = changes(*rows)
    kinds = {name: pd.Series([name] * len(seen), dtype="str") for name in ("kind", "source")}
    seen = seen.assign(**kinds | {"kind": pd.Series(["probe"] * len(seen), dtype="str")})
    with tempfile.TemporaryDirectory() as folder:
        archive_all(Archive(folder), prices, seen, scrapes)
        market = MarketHistory(Archive(folder)).market_at(WANTED, t=at, window=WEEK, observed_days=HISTORY_DAYS)
    archived, cached = tables(market, at), tables(served(redis, settings, prices, seen, at), at)
    assert set(cached.by_spec) == set(SPECS)
    pd.testing.assert_frame_equal(archived.pools, cached.pools, check_exact=True)
    # Training looks at many instants at once, with all that came later at hand.
    past = Past.of(seen, PriceHistory.from_changes(prices), price_window=WEEK)
    instants = [cached.pools.assign(sampled_at=pd.Timestamp(moment).as_unit("us")) for moment in (at, at + WEEK)]
    together = pd.concat(instants, ignore_index=True)
    for spec, frame in cached.by_spec.items():
        pd.testing.assert_frame_equal(archived.by_spec[spec], frame, check_exact=True)
        trained, _ = compute_features(together, spec, open_bucket_rate=0.3, past=past)
        mine = trained[trained["sampled_at"] == pd.Timestamp(at)].drop(columns="sampled_at").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, frame, check_exact=True)
