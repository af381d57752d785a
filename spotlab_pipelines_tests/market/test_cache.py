"""The cache: what is written is what is read, and what is missing, old or broken is an error with a name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pandas as pd
import pytest

from spotlab_pipelines.errors import MarketDataMissing, MarketDataStale, StoreUnavailable
from spotlab_pipelines.market.cache import price_key, read_catalogue, read_market, risk_key
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import check_advisor, check_catalogue, check_on_demand, check_prices
from spotlab_pipelines.market.parse import parse_instance_types
from spotlab_pipelines.market.parse_advisor import parse_advisor
from spotlab_pipelines.market.prices import Cover
from spotlab_pipelines.market.publish import Envelope, publish_advisor, publish_catalogue
from spotlab_pipelines.market.publish_prices import publish_prices
from spotlab_pipelines_tests.market.feeds import whole_feed

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
SINCE = NOW - timedelta(days=7)
LINUX = "Linux/UNIX"
ENVELOPE = Envelope("test", "scrape-1", NOW)
WANTED = Wanted(
    types={"us-east-1": ("c5.large", "m5.large", "m5.xlarge")},
    families={"us-east-1": ("c5", "m5")},
    products={"us-east-1": (LINUX,)},
)
COVERED = {
    ("us-east-1", "c5"): (["c5.large"], [LINUX]),
    ("us-east-1", "m5"): (["m5.large", "m5.xlarge"], [LINUX, "Windows"]),
}


def types():
    sizes = {"c5.large": (2, 4096), "m5.large": (2, 8192), "m5.xlarge": (4, 16384)}
    return parse_instance_types(
        {
            "InstanceType": name,
            "VCpuInfo": {"DefaultVCpus": vcpus},
            "MemoryInfo": {"SizeInMiB": memory},
            "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        }
        for name, (vcpus, memory) in sizes.items()
    )


def on_demand():
    rows = [("us-east-1", "Linux", "m5.large", 0.096, "pricing"), ("eu-west-1", "RHEL", "m5.large", 0.167, "pricing")]
    frame = pd.DataFrame(rows, columns=["region", "os", "instance_type", "on_demand_usd_per_hour", "price_source"])
    return frame.astype(dict.fromkeys(["region", "os", "instance_type", "price_source"], "str"))


def prices():
    rows = [
        ("us-east-1", "m5.xlarge", "use1-az1", LINUX, NOW - timedelta(hours=3), 0.07),
        ("us-east-1", "m5.large", "use1-az2", LINUX, NOW - timedelta(hours=1), 0.1 + 0.2),
        ("us-east-1", "m5.large", "use1-az1", LINUX, NOW - timedelta(hours=2, microseconds=1), 1 / 3),
        ("us-east-1", "m5.large", "use1-az1", LINUX, NOW - timedelta(days=9), 0.04),
        ("us-east-1", "m5.large", "use1-az1", "Windows", NOW - timedelta(days=1), 0.09),
    ]
    columns = ["region", "instance_type", "az_id", "product", "changed_at", "spot_price_usd_per_hour"]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[:4], "str"))
    return frame.assign(changed_at=frame["changed_at"].dt.as_unit("us"))


FEED = {"us-east-1": {"Linux": {"m5.large": {"s": 62, "r": 1}, "m5.xlarge": {"s": -3, "r": 4}}}}


@pytest.fixture
def filled(redis, settings):
    """Redis with a small market, all of it fetched at NOW."""
    publish_catalogue(redis, types(), on_demand(), ENVELOPE, ttl_s=settings.instance_metadata_ttl_s)
    feed = parse_advisor(whole_feed(FEED))
    publish_advisor(redis, feed, ENVELOPE, ttl_s=settings.spot_risk_ttl_s, regions=["eu-west-1"])
    publish_prices(redis, prices(), ENVELOPE, ttl_s=settings.price_history_ttl_s, since=SINCE, covered=COVERED)
    return redis


def read(redis, settings, *, now=NOW, wanted=WANTED):
    return read_market(redis, settings, now=now, wanted=wanted, catalogue=read_catalogue(redis, settings, now=now))


def test_the_market_comes_back_bit_for_bit(filled, settings):
    market = read(filled, settings)
    expected = prices().query("product == 'Linux/UNIX'")
    expected = expected.sort_values(["region", "instance_type", "az_id", "product", "changed_at"], ignore_index=True)
    pd.testing.assert_frame_equal(market.prices, expected, check_exact=True)
    pd.testing.assert_frame_equal(market.catalogue, types())
    assert market.advisor[["instance_type", "bucket", "interrupt_rate_max", "savings_pct"]].to_numpy().tolist() == [
        ["m5.large", 1, 0.10, 62],
        ["m5.xlarge", 4, 1.0, -3],
    ]
    assert market.on_demand["on_demand_usd_per_hour"].tolist() == [0.096]
    for check, frame in [
        (check_prices, market.prices),
        (check_advisor, market.advisor),
        (check_catalogue, market.catalogue),
        (check_on_demand, market.on_demand),
    ]:
        check(frame)


def test_each_change_knows_its_pool(filled, settings):
    market = read(filled, settings)
    assert market.pool_of_change.tolist() == [0, 0, 1, 2]
    named = market.pools.take(market.pool_of_change).reset_index(drop=True)
    pd.testing.assert_frame_equal(named, market.prices[list(market.pools.columns)])


def test_the_catalogue_knows_all_regions(filled, settings):
    catalogue = read_catalogue(filled, settings, now=NOW)
    assert sorted(catalogue.on_demand["region"]) == ["eu-west-1", "us-east-1"]
    assert catalogue.types["instance_type"].tolist() == ["c5.large", "m5.large", "m5.xlarge"]


def test_what_aws_has_nothing_for_is_absent_without_an_error(filled, settings):
    market = read(filled, settings)
    assert "c5.large" not in set(market.prices["instance_type"]) | set(market.advisor["instance_type"])
    ireland = Wanted(types={"eu-west-1": ("m5.large",)}, families={"eu-west-1": ()}, products={"eu-west-1": (LINUX,)})
    assert read(filled, settings, wanted=ireland).advisor.empty


def test_the_sources_of_a_market_are_named(filled, settings):
    sources = read(filled, settings).sources
    assert set(sources["scrape_id"]) == {"scrape-1"}
    assert sources["keys"].tolist() == [2, 3, 3]
    assert (sources["fetched_at"] == NOW).all()


def test_fetch_times_with_and_without_fractions_of_a_second_mix(filled, settings):
    later = replace(ENVELOPE, scrape_id="scrape-2", fetched_at=NOW + timedelta(microseconds=5))
    publish_prices(
        filled, prices(), later, ttl_s=3600, since=SINCE, covered={("us-east-1", "c5"): COVERED["us-east-1", "c5"]}
    )
    sources = read(filled, settings).sources
    assert sorted(sources["fetched_at"])[-1] == pd.Timestamp(later.fetched_at)


def test_a_market_is_two_round_trips(filled, settings, monkeypatch):
    sent = []
    execute = type(filled).execute_command
    monkeypatch.setattr(
        type(filled), "execute_command", lambda self, *a, **k: sent.append(a[0]) or execute(self, *a, **k)
    )
    read(filled, settings)
    assert sent == ["SORT", "MGET"]


VALUES = {
    "spot_price_history:us-east-1:m5": "spot_prices",
    "spot_risk:us-east-1": "spot_advisor",
    "spot_risk:us-east-1:m5.large": "spot_advisor",
    "instance_metadata:m5.large": "instance_catalogue",
}
"""One key of every kind of value, and the asset that fills it."""


@pytest.mark.parametrize(("key", "asset"), [*VALUES.items(), ("instance_metadata", "instance_catalogue")])
def test_a_missing_value_names_its_key_and_what_to_materialise(filled, settings, key, asset):
    assert filled.delete(key) == 1
    with pytest.raises(MarketDataMissing, match=f"Redis has no {key}[: ].*Materialise {asset}"):
        read(filled, settings)


@pytest.mark.parametrize(("key", "asset"), VALUES.items())
def test_one_stale_value_among_fresh_ones_is_named(filled, settings, key, asset):
    value = orjson.loads(filled.get(key))
    filled.set(key, orjson.dumps(value | {"fetched_at": (NOW - timedelta(seconds=86401)).isoformat()}))
    with pytest.raises(
        MarketDataStale, match=f"^{key} was fetched 86401 s ago by scrape scrape-1.*Materialise {asset}"
    ):
        read(filled, settings)


@pytest.mark.parametrize(("key", "asset"), VALUES.items())
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_value_is_named(filled, settings, key, asset, kept):
    value = filled.get(key)
    filled.set(key, value[: int(kept * len(value))])
    with pytest.raises(MarketDataMissing, match=f"{key} in Redis cannot be read.*Materialise {asset}"):
        read(filled, settings)


@pytest.mark.parametrize(
    ("path", "new", "key"),
    [
        (["os", "Linux", "savings_pct"], 61.5, "spot_risk:us-east-1:m5.large"),
        (["os", "Linux", "bucket"], "1", "spot_risk:us-east-1:m5.large"),
        (["vcpus"], "2", "instance_metadata:m5.large"),
        (["memory_mib"], 8192.5, "instance_metadata:m5.large"),
        (["vcpus"], 0, "instance_metadata:m5.large"),
        (["memory_mib"], -8192, "instance_metadata:m5.large"),
        (["architecture"], None, "instance_metadata:m5.large"),
        (["current_generation"], "no", "instance_metadata:m5.large"),
        (["on_demand", "us-east-1", "Linux", "usd_per_hour"], -1, "instance_metadata:m5.large"),
        (["on_demand", "us-east-1", "Linux", "usd_per_hour"], "0.1", "instance_metadata:m5.large"),
        (["on_demand", "us-east-1", "Linux", "source"], "guess", "instance_metadata:m5.large"),
        (["os", "Linux", "savings_pct"], 101, "spot_risk:us-east-1:m5.large"),
        (["os"], {"BeOS": {"bucket": 1, "savings_pct": 5}}, "spot_risk:us-east-1:m5.large"),
        (["types"], "m5.large", "spot_risk:us-east-1"),
    ],
)
def test_figures_that_cannot_be_are_refused(filled, settings, path, new, key):
    value = orjson.loads(filled.get(key))
    alter(value, path, new)
    filled.set(key, orjson.dumps(value))
    with pytest.raises(MarketDataMissing, match="cannot be read"):
        read(filled, settings)


def test_what_a_full_redis_evicted_is_missing(filled, settings):
    """A Redis that may evict acknowledges every write; what it gave up for them is told, whichever it was."""
    was = {name: filled.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    try:
        filled.config_set("maxmemory-policy", "allkeys-lru")
        filled.config_set("maxmemory", filled.info("memory")["used_memory"] + 2**20)
        for number in range(200):
            filled.set(f"other:{number}", bytes(2**15))
        lost = [key for key in (*VALUES, "instance_metadata") if not filled.exists(key)]
        assert lost, "something was evicted"
        with pytest.raises(MarketDataMissing, match="Redis has no "):
            read(filled, settings)
    finally:
        for name, value in was.items():
            filled.config_set(name, value)


def test_an_empty_redis_is_missing_not_empty(redis, settings):
    with pytest.raises(MarketDataMissing, match="never scraped"):
        read_catalogue(redis, settings, now=NOW)


def test_a_family_that_was_never_scraped_is_missing(filled, settings):
    wanted = replace(WANTED, families={"us-east-1": ("c5", "r5")})
    with pytest.raises(MarketDataMissing, match="spot_price_history:us-east-1:r5"):
        read(filled, settings, wanted=wanted)


@pytest.mark.parametrize(("what", "lacks"), [("types", "m5.metal"), ("products", "SUSE Linux")])
def test_a_value_that_does_not_cover_what_is_wanted_is_missing(filled, settings, what, lacks):
    values = getattr(WANTED, what)["us-east-1"]
    wanted = replace(WANTED, **{what: {"us-east-1": (*values, lacks)}})
    with pytest.raises(MarketDataMissing, match=f"does not cover {lacks}"):
        read(filled, settings, wanted=wanted)


def test_values_are_fresh_up_to_their_time_to_live_and_stale_after(filled, settings):
    read(filled, settings, now=NOW + timedelta(seconds=3600))
    with pytest.raises(MarketDataStale, match=r"spot_price_history:us-east-1:c5 was fetched 3601 s ago.*may be 3600 s"):
        read(filled, settings, now=NOW + timedelta(seconds=3601))
    with pytest.raises(MarketDataStale, match=r"instance_metadata:.*Materialise instance_catalogue"):
        read(filled, settings, now=NOW + timedelta(seconds=86401))


def test_a_value_of_the_future_is_refused_beyond_clock_skew(filled, settings):
    """Fetched by a machine whose clock is ahead, it would look fresh for as long as that."""
    assert len(read(filled, settings, now=NOW - timedelta(minutes=5)).prices) == 4
    with pytest.raises(MarketDataMissing, match=r"fetched_at 2026-11-02T12:00:00\+00:00 lies after now.*clocks"):
        read(filled, settings, now=NOW - timedelta(minutes=5, microseconds=1))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"source": "x", "scrape_id": "y", "fetched_at": "yesterday"}',
        b'{"source": "x", "scrape_id": "y", "fetched_at": "2026-11-02T12:00:00"}',
        b'{"source": "x", "scrape_id": "y", "fetched_at": "2026-11-02T12:00:00+00:00"}',
    ],
)
@pytest.mark.parametrize(
    "key",
    [
        "spot_price_history:us-east-1:m5",
        "spot_risk:us-east-1",
        "spot_risk:us-east-1:m5.large",
        "instance_metadata:m5.large",
    ],
)
def test_a_value_of_another_shape_is_refused_by_its_key(filled, settings, key, broken):
    filled.set(key, broken)
    with pytest.raises(MarketDataMissing, match=f"{key} in Redis cannot be read"):
        read(filled, settings)


def alter(value, path, new):
    *way, last = path
    inner = value
    for step in way:
        inner = inner[step]
    inner[last] = new


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (["changes", "spot_price_usd_per_hour"], [0.04, 0.0, 0.09, 0.3, 0.07]),
        (["changes", "spot_price_usd_per_hour"], [0.04, None, 0.09, 0.3, 0.07]),
        (["changes", "spot_price_usd_per_hour"], [0.04, "x", 0.09, 0.3, 0.07]),
        (["changes", "spot_price_usd_per_hour"], [0.04]),
        (["changes", "spot_price_usd_per_hour"], ["0.04"] * 5),
        (["changes", "changed_at_us"], [0.5] * 5),
        (["changes", "changed_at_us"], ["now"] * 5),
        (["changes", "pool"], [0, 0, 1, 2, 4]),
        (["changes", "pool"], [-1, 0, 1, 2, 3]),
        (["changes", "pool"], [3, 2, 1, 0, 0]),
        (["pools", "az_id"], ["use1-az1"]),
    ],
)
def test_columns_that_cannot_be_are_refused(filled, settings, path, new):
    key = price_key("us-east-1", "m5")
    value = orjson.loads(filled.get(key))
    alter(value, path, new)
    filled.set(key, orjson.dumps(value))
    with pytest.raises(MarketDataMissing, match=f"{key} in Redis cannot be read"):
        read(filled, settings)


def test_a_bucket_that_cannot_be_is_refused(filled, settings):
    key = risk_key("us-east-1", "m5.large")
    value = orjson.loads(filled.get(key))
    value["os"]["Linux"]["bucket"] = 5
    filled.set(key, orjson.dumps(value))
    with pytest.raises(MarketDataMissing, match="expected 0 … 4, got"):
        read(filled, settings)


def test_values_expire_and_carry_their_origin(filled, settings):
    for key in filled.keys():  # noqa: SIM118 - Redis, not a dict
        ttl = settings.instance_metadata_ttl_s if key.startswith(b"instance_metadata") else 3600
        assert ttl - 60 < filled.ttl(key) <= ttl
        if key != b"instance_metadata":
            assert {"source", "scrape_id", "fetched_at"} <= orjson.loads(filled.get(key)).keys()


def test_a_new_catalogue_forgets_types_that_are_gone(filled, settings):
    publish_catalogue(filled, types().head(1), on_demand(), ENVELOPE, ttl_s=3600)
    assert read_catalogue(filled, settings, now=NOW).types["instance_type"].tolist() == ["c5.large"]


def test_a_type_that_left_the_advisor_is_absent_although_its_old_value_lives(filled, settings):
    feed = parse_advisor(whole_feed({"us-east-1": {"Linux": {"m5.large": {"s": 1, "r": 0}}}}))
    publish_advisor(filled, feed, ENVELOPE, ttl_s=3600, regions=[])
    assert filled.exists(risk_key("us-east-1", "m5.xlarge"))
    assert read(filled, settings).advisor["instance_type"].tolist() == ["m5.large"]


M5: tuple[str, str] = ("us-east-1", "m5")
NARROW: Cover = {M5: (("m5.large", "m5.xlarge"), (LINUX,))}
LATER = replace(ENVELOPE, scrape_id="scrape-2", fetched_at=NOW + timedelta(minutes=1))


def test_a_fresh_price_history_is_not_replaced_by_a_narrower_one(filled, settings):
    before = filled.get(price_key(*M5))
    narrow: Cover = NARROW | {("us-east-1", "c5"): (("c5.large",), (LINUX,))}
    kept = publish_prices(filled, prices(), LATER, ttl_s=3600, since=SINCE, covered=narrow)
    assert kept == [M5]
    assert filled.get(price_key(*M5)) == before
    assert set(read(filled, settings).sources["scrape_id"]) == {"scrape-1", "scrape-2"}


@pytest.mark.parametrize("cover", [COVERED, {M5: (["m5.large", "m5.xlarge", "m5.metal"], [LINUX, "Windows", "SUSE"])}])
def test_a_price_history_is_replaced_by_one_that_covers_as_much(filled, cover):
    assert publish_prices(filled, prices(), LATER, ttl_s=3600, since=SINCE, covered=cover) == []
    assert orjson.loads(filled.get(price_key(*M5)))["scrape_id"] == "scrape-2"


@pytest.mark.parametrize("there", [b"<html>", b"{}", None, {"fetched_at": "2026-11-03T12:00:00+00:00"}])
def test_what_is_stale_unreadable_or_of_the_future_holds_nothing_up(filled, there):
    if isinstance(there, dict):
        there = orjson.dumps(orjson.loads(filled.get(price_key(*M5))) | there)
    if there is not None:
        filled.set(price_key(*M5), there)
    later = replace(LATER, fetched_at=NOW + timedelta(seconds=3601))
    assert publish_prices(filled, prices(), later, ttl_s=3600, since=SINCE, covered=NARROW) == []
    assert orjson.loads(filled.get(price_key(*M5)))["scrape_id"] == "scrape-2"


def test_a_wider_value_that_comes_between_the_look_and_the_writing_stays(redis, settings):
    """A narrow publication has looked and found nothing; before it writes, a wide one does."""
    from redis.client import Pipeline

    wide = replace(ENVELOPE, scrape_id="wide")

    class Slow(Pipeline):
        def multi(self):
            if not redis.exists(price_key(*M5)):
                publish_prices(redis, prices(), wide, ttl_s=3600, since=SINCE, covered=COVERED)
            super().multi()

    class SlowRedis(type(redis)):
        def pipeline(self, transaction=True, shard_hint=None):
            return Slow(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    slow = SlowRedis(connection_pool=redis.connection_pool)
    assert publish_prices(slow, prices(), LATER, ttl_s=3600, since=SINCE, covered=NARROW) == [M5]
    assert orjson.loads(redis.get(price_key(*M5)))["scrape_id"] == "wide"


def test_redis_that_does_not_answer_is_named(settings):
    import redis as redis_py

    nobody = redis_py.Redis(port=9)
    with pytest.raises(StoreUnavailable):
        read_catalogue(nobody, settings, now=NOW)
