"""Scrapes from end to end: source → archive → Redis → a row; broken sources write nothing but that row."""

import json
import re
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from spotlab_pipelines.accounts.fleet import load_fleet, sync_fleet
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.database.tables import Account, Instance, Scrape
from spotlab_pipelines.errors import (
    AccessDenied,
    MarketDataMissing,
    NotFound,
    PageLoop,
    SettingsError,
    SourceMalformed,
    StoreUnavailable,
)
from spotlab_pipelines.market.advisor import scrape_advisor
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import read_catalogue, read_market
from spotlab_pipelines.market.catalogue import scrape_catalogue, wanted_market
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.prices import scrape_prices
from spotlab_pipelines.market.publish_prices import wish_key
from spotlab_pipelines.market.scrapes import recorded
from spotlab_pipelines_tests.accounts.registering import FLEET, register, register_in_aws
from spotlab_pipelines_tests.local_aws import catalogue as catalogue_of_aws
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance

A, B = "111122223333", "444455556666"
BOTH_REGIONS = ("us-east-1", "eu-west-1")
IRELAND = FleetInstance("m5.large", "eu-west-1", "euw1-az1")


@pytest.fixture
def settings(settings):
    """One day of prices: a week of them takes botocore seconds to read."""
    return settings.model_copy(update={"price_window_days": 1, "price_history_days": 1})


@pytest.fixture
def archive(settings):
    return Archive(settings.archive_location)


@pytest.fixture
def sessions(engine, local_aws):
    return AccountSessions(engine)


@pytest.fixture
def advised(settings, local_aws):
    """The settings with the local AWS's Advisor."""
    return settings.model_copy(update={"advisor_url": local_aws.advisor_url})


@pytest.fixture
def scrape(settings, sessions, engine, redis, archive):
    """Scrape one account's prices."""
    return lambda account_id=A: scrape_prices(settings, sessions, engine, redis, archive, account_id)


@pytest.fixture
def ready(settings, sessions, engine, redis, archive, local_aws):
    """An account with a synced fleet in two regions, and a scraped catalogue."""
    register_in_aws(engine, local_aws, A, fleet=[*FLEET, IRELAND], regions=BOTH_REGIONS)
    sync_fleet(sessions, engine, A)
    return scrape_catalogue(settings, sessions, engine, redis, archive)


@pytest.fixture
def second(ready, sessions, engine, local_aws):
    """Another account like the first."""
    register_in_aws(engine, local_aws, B, fleet=[*FLEET, IRELAND], regions=BOTH_REGIONS)
    sync_fleet(sessions, engine, B)


class InBetween(Archive):
    """An archive that lets something happen once, after a scrape has fetched and before it publishes."""

    def __init__(self, url, happens):
        super().__init__(url)
        self.happens = happens

    def write_scrape(self, **fields):
        happens, self.happens = self.happens, lambda: None
        happens()
        return super().write_scrape(**fields)


def rows(engine, source):
    with engine.connect() as connection:
        return connection.execute(sa.select(Scrape).where(Scrape.source == source).order_by(Scrape.fetched_at)).all()


def files(archive, kind):
    from pathlib import Path

    return sorted(Path(archive.url).glob(f"scrapes/kind={kind}/**/*.parquet"))


def archived(archive, kind):
    """All rows of a kind as pandas reads them, the path's columns included."""
    return pd.read_parquet(f"{archive.url}/scrapes/kind={kind}")


def calls_of(local_aws, monkeypatch, action):
    seen = []
    take = local_aws.app.faults.take
    monkeypatch.setattr(
        local_aws.app.faults, "take", lambda name, **where: (seen.append(name == action), take(name, **where))[1]
    )
    return lambda: sum(seen)


def arguments_of(local_aws, monkeypatch):
    """A list that grows with the parameters of each first page of prices that is asked for."""
    seen = []
    describe = local_aws.app.prices.describe

    def watched(call, account_id):
        if not call.params.get("NextToken"):
            start = call.params["StartTime"]
            moment = start if isinstance(start, datetime) else datetime.fromisoformat(start)
            seen.append(dict(call.params) | {"StartTime": moment.replace(tzinfo=UTC)})
        return describe(call, account_id)

    monkeypatch.setattr(local_aws.app.prices, "describe", watched)
    return seen


def test_the_advisor_goes_to_archive_redis_and_scrapes(advised, engine, redis, archive):
    report = scrape_advisor(advised, engine, redis, archive)
    (row,) = rows(engine, "spot_advisor")
    assert (str(row.id), row.row_count, row.archive_path, row.error) == (
        report.scrape_id,
        report.row_count,
        report.archive_path,
        None,
    )
    assert len(archived(archive, "spot_advisor")) == report.row_count > 0
    assert len(report.preview) == 10
    value = json.loads(redis.get("spot_risk:us-east-1:m5.large"))
    assert value["scrape_id"] == report.scrape_id
    assert set(value["os"]) <= {"Linux", "Windows"}


def test_regions_that_the_advisor_does_not_know_are_listed_as_empty(advised, engine, redis, archive, local_aws):
    register_in_aws(engine, local_aws, A, regions=["us-east-1", "ap-southeast-3"])
    scrape_advisor(advised, engine, redis, archive)
    assert json.loads(redis.get("spot_risk:ap-southeast-3"))["types"] == []


def test_the_catalogue_holds_types_and_prices_of_all_accounts_regions(ready, settings, redis, archive, market):
    catalogue = read_catalogue(redis, settings, now=datetime.now(UTC))
    assert set(catalogue.on_demand["region"]) == set(BOTH_REGIONS)
    assert len(catalogue.types) == ready.details["instance_types"]
    assert len(archived(archive, "instance_catalogue")) == ready.row_count
    mine = catalogue.on_demand.set_index(["region", "os", "instance_type"])["on_demand_usd_per_hour"]
    recorded = market.on_demand
    assert len(mine) == len(recorded.drop_duplicates())
    linux = mine.loc[("us-east-1", "Linux", "m5.large")]
    assert linux == pytest.approx(0.096)


def test_a_catalogue_without_an_active_account_says_so(settings, engine, redis, archive, local_aws):
    with pytest.raises(NotFound, match="accounts add"):
        scrape_catalogue(settings, AccountSessions(engine), engine, redis, archive)


def test_a_catalogue_that_is_denied_is_recorded_and_writes_nothing(
    settings, sessions, engine, redis, archive, local_aws
):
    register_in_aws(engine, local_aws, A, denies="actions")
    with pytest.raises(AccessDenied, match="DescribeInstanceTypes"):
        scrape_catalogue(settings, sessions, engine, redis, archive)
    (row,) = rows(engine, "instance_catalogue")
    assert row.error.startswith("AccessDenied: ")
    assert redis.dbsize() == 0
    assert files(archive, "instance_catalogue") == []


def test_an_account_that_is_marked_does_not_take_the_catalogue_from_the_others(
    settings, sessions, engine, redis, archive, local_aws
):
    first, second = sorted((A, B))
    register_in_aws(engine, local_aws, first, denies="assume")
    register_in_aws(engine, local_aws, second)
    with engine.begin() as connection:
        connection.execute(
            sa.update(Account)
            .where(Account.account_id == first)
            .values(access_state="access_broken", access_checked_at=sa.func.now())
        )
    assert scrape_catalogue(settings, sessions, engine, redis, archive).details["account_id"] == second


def test_prices_are_those_of_the_market_over_the_window(ready, scrape, settings, engine, redis, archive, market):
    report = scrape()
    (row,) = rows(engine, "spot_prices")
    assert (row.account_id, row.row_count, row.error) == (A, report.row_count, None)
    found = archived(archive, "spot_prices")
    found = found.astype({"region": "str"})
    assert len(found) == report.row_count
    assert not found.duplicated([*POOL_KEY, "changed_at"]).any()
    assert (found["fetched_at"] == report.fetched_at).all()
    since, prices = report.fetched_at - settings.price_window, market.prices
    truth = prices[(prices["changed_at"] <= report.fetched_at) & (prices["product"] == "Linux/UNIX")]
    truth = truth[truth["instance_type"].isin(found["instance_type"])]
    opening = truth[truth["changed_at"] < since].sort_values("changed_at").drop_duplicates(list(POOL_KEY), keep="last")
    expected = pd.concat([opening, truth[truth["changed_at"] >= since]])
    order = [*POOL_KEY, "changed_at"]
    merged = found.sort_values(order, ignore_index=True)
    expected = expected.sort_values(order, ignore_index=True)
    assert len(merged) == len(expected)
    assert (merged[list(POOL_KEY)] == expected[list(POOL_KEY)]).all().all()
    assert abs(merged["spot_price_usd_per_hour"] - expected["spot_price_usd_per_hour"]).max() < 1e-6


def test_an_evaluation_can_read_all_it_wants_after_the_scrapes(
    ready, advised, scrape, engine, redis, archive, sessions
):
    scrape_advisor(advised, engine, redis, archive)
    scrape()
    now = datetime.now(UTC)
    catalogue = read_catalogue(redis, advised, now=now)
    wanted = wanted_market(sync_fleet(sessions, engine, A), catalogue.types, advised.flexibility_factor)
    found = read_market(redis, advised, now=now, wanted=wanted, catalogue=catalogue)
    assert set(found.prices["region"]) == set(BOTH_REGIONS)
    assert {"m5.large", "c5.xlarge"} <= set(found.advisor["instance_type"])
    assert len(found.pools) == found.pool_of_change.max() + 1


def test_a_family_that_is_fresh_is_not_fetched_again_by_any_account(second, scrape, local_aws, monkeypatch):
    first = scrape(A)
    count = calls_of(local_aws, monkeypatch, "DescribeSpotPriceHistory")
    second = scrape(B)
    assert count() == 0
    assert second.row_count == second.details["listings"] == 0
    assert second.details["families_reused"] == first.details["families_fetched"] > 0
    assert second.data_age_s >= (second.fetched_at - first.fetched_at).total_seconds(), "as old as what it relies on"
    assert second.archive_path is None


def test_a_family_is_fetched_again_if_it_is_old_or_does_not_cover(ready, scrape, redis):
    scrape()
    key = "spot_price_history:us-east-1:m5"
    good = json.loads(redis.get(key))
    old = (datetime.now(UTC) - timedelta(seconds=1900)).isoformat()
    insufficient = [
        good | {"products": []},
        good | {"types": good["types"][1:]},
        good | {"since": good["fetched_at"]},
        good | {"fetched_at": old},
        good | {"fetched_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
        {"nonsense": True},
    ]
    for value in insufficient:
        redis.set(key, json.dumps(value))
        assert scrape().details["families_fetched"] == 1, value
    redis.set(key, json.dumps(good))
    assert scrape().details["families_fetched"] == 0


def test_a_redis_snapshot_is_what_the_archive_says_of_that_instant(
    ready, advised, scrape, engine, redis, archive, sessions
):
    scrape_advisor(advised, engine, redis, archive)
    report = scrape()
    now = datetime.now(UTC)
    catalogue = read_catalogue(redis, advised, now=now)
    wanted = wanted_market(load_fleet(engine, A), catalogue.types, advised.flexibility_factor)
    cached = read_market(redis, advised, now=now, wanted=wanted, catalogue=catalogue)
    found = MarketHistory(archive).market_at(wanted, t=report.fetched_at, window=advised.price_window)
    for name in ("prices", "pools", "advisor", "catalogue", "on_demand", "sources"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(cached, name), check_exact=True, obj=name)
    assert (found.pool_of_change == cached.pool_of_change).all()


def test_before_anything_was_scraped_nothing_was_known(ready, advised, scrape, engine, redis, archive):
    history = MarketHistory(archive)
    with pytest.raises(NotFound, match="no scrape of spot_advisor that ended well"):
        history.advisor(["us-east-1"], ["m5.large"])
    first = scrape_advisor(advised, engine, redis, archive)
    assert len(history.advisor(["us-east-1"], ["m5.large"], known_at=first.fetched_at)) == 2
    with pytest.raises(NotFound, match=re.escape(f"the first one ran at {first.fetched_at.isoformat()}")):
        history.advisor(["us-east-1"], ["m5.large"], known_at=first.fetched_at - timedelta(microseconds=1))
    assert history.catalogue(["m5.large"])["vcpus"].tolist() == [2]
    assert set(history.on_demand(["eu-west-1"], ["m5.large"])["os"]) == {"Linux", "Windows"}
    cover = {("us-east-1", "m5"): (("m5.large",), ("Linux/UNIX",))}
    report = scrape()
    early, late = (report.fetched_at + timedelta(microseconds=step) for step in (-1, 0))
    window = {"start": early - timedelta(days=1), "end": late}
    assert history.prices(cover, **window, known_at=early).empty
    assert len(history.prices(cover, **window, known_at=late)) == len(history.prices(cover, **window)) > 0


def test_a_document_that_is_confirmed_is_known_under_the_confirming_scrape_and_stored_once(
    advised, engine, redis, archive
):
    first = scrape_advisor(advised, engine, redis, archive)
    kept = files(archive, "spot_advisor")
    history = MarketHistory(archive)
    with recorded(engine, "spot_advisor") as record:
        record.confirm(archive, history.document("spot_advisor"), "unchanged")
    assert files(archive, "spot_advisor") == kept
    again = history.document("spot_advisor", regions=["us-east-1"])
    assert (again.scrape_id, again.fetched_at, again.note) == (str(record.id), record.fetched_at, "unchanged")
    assert (again.content_id, again.content_at) == (first.scrape_id, first.fetched_at)
    before = history.document("spot_advisor", known_at=first.fetched_at, regions=["us-east-1"])
    assert (before.scrape_id, before.note) == (first.scrape_id, "")
    pd.testing.assert_frame_equal(again.frame, before.frame)
    assert record.row_count == first.row_count


def age(redis, seconds):
    """Make every price history in Redis look older."""
    for key in redis.keys("spot_price_history:*"):
        value = json.loads(redis.get(key))
        moved = {
            name: (datetime.fromisoformat(value[name]) - timedelta(seconds=seconds)).isoformat()
            for name in ("fetched_at", "since")
        }
        redis.set(key, json.dumps(value | moved))


def test_the_next_scrape_asks_for_what_is_new_and_stores_that_once(
    ready, scrape, settings, redis, archive, local_aws, monkeypatch
):
    first = scrape()
    values = {key: json.loads(redis.get(key)) for key in redis.keys("spot_price_history:*")}
    calls = arguments_of(local_aws, monkeypatch)
    age(redis, 1900)
    pool = {"region": "eu-west-1", "instance_type": "m5.large", "az_id": "euw1-az1"}
    local_aws.inject_price(**pool, price="0.0777", changed_at=first.fetched_at)
    second = scrape()
    assert second.details["families_fetched"] == first.details["families_fetched"]
    assert {call["StartTime"] for call in calls} == {
        (first.fetched_at - timedelta(seconds=600)).replace(minute=0, second=0, microsecond=0)
    }
    found = archived(archive, "spot_prices")
    assert len(found) == first.row_count + second.row_count
    assert not found.duplicated([*POOL_KEY, "changed_at", "spot_price_usd_per_hour"]).any()
    assert found["spot_price_usd_per_hour"][found["fetched_at"] == second.fetched_at].tolist()[-1:] == [0.0777]
    for key, before in values.items():
        now = json.loads(redis.get(key))
        # What the window has left behind is gone, what was in it or is new is there.
        assert abs(len(now["changes"]["pool"]) - len(before["changes"]["pool"])) <= 3 + second.row_count
        assert now["pools"]["instance_type"] == before["pools"]["instance_type"]


def test_a_type_or_product_that_is_newly_wanted_gets_all_of_its_past(
    ready, scrape, settings, sessions, engine, redis, archive, local_aws, monkeypatch
):
    first = scrape()
    calls = arguments_of(local_aws, monkeypatch)
    wider = settings.model_copy(update={"products": ("Linux/UNIX", "Windows")})
    second = scrape_prices(wider, sessions, engine, redis, archive, A)
    past = {call["StartTime"]: set(call["ProductDescriptions"]) for call in calls}
    assert past[second.fetched_at - timedelta(days=1)] == {"Windows"}
    assert [products for start, products in past.items() if start > first.fetched_at - timedelta(hours=2)] == [
        {"Linux/UNIX"}
    ]
    found = archived(archive, "spot_prices")
    windows = found[found["product"] == "Windows"]
    assert windows["changed_at"].min() < second.fetched_at - timedelta(hours=23)
    assert not found.duplicated([*POOL_KEY, "changed_at", "spot_price_usd_per_hour"]).any()


def test_an_archive_that_is_lost_is_filled_again_from_the_beginning(ready, scrape, redis, archive):
    import shutil

    first = scrape()
    shutil.rmtree(f"{archive.url}/scrapes")
    age(redis, 1900)
    assert scrape().row_count >= first.row_count - 20


@pytest.fixture
def two_fleets(settings, sessions, engine, redis, archive, local_aws):
    """A runs Linux and Windows, B runs Linux and SUSE, both m5.large in one region; the catalogue is there."""
    products = {A: ("Linux/UNIX", "Windows"), B: ("Linux/UNIX", "SUSE Linux")}
    for account_id, names in products.items():
        fleet = [FleetInstance("m5.large", "us-east-1", "use1-az1", product=name) for name in names]
        register_in_aws(engine, local_aws, account_id, fleet=fleet)
        sync_fleet(sessions, engine, account_id)
    scrape_catalogue(settings, sessions, engine, redis, archive)


def prices_of(settings, engine, redis, account_id):
    """The prices that an evaluation of the account would read."""
    now = datetime.now(UTC)
    catalogue = read_catalogue(redis, settings, now=now)
    wanted = wanted_market(load_fleet(engine, account_id), catalogue.types, settings.flexibility_factor)
    return read_market(redis, settings, now=now, wanted=wanted, catalogue=catalogue).prices


def test_accounts_that_scrape_one_after_the_other_keep_what_each_wants(
    two_fleets, advised, scrape, engine, redis, archive
):
    scrape_advisor(advised, engine, redis, archive)
    scrape(A)
    assert not prices_of(advised, engine, redis, A).empty
    with pytest.raises(MarketDataMissing, match="does not cover SUSE Linux"):
        prices_of(advised, engine, redis, B)
    scrape(B)
    assert not prices_of(advised, engine, redis, A).empty
    assert not prices_of(advised, engine, redis, B).empty
    assert scrape(A).details["families_fetched"] == 0


@pytest.mark.parametrize("lives", ["fresh", "stale"])
def test_what_is_fetched_again_covers_what_was_wanted_within_a_time_to_live(two_fleets, scrape, settings, redis, lives):
    scrape(A)
    key, age_s = "spot_price_history:us-east-1:m5", {"fresh": 2000, "stale": settings.price_history_ttl_s + 1}[lives]
    value = json.loads(redis.get(key))
    fetched_at = datetime.now(UTC) - timedelta(seconds=age_s)
    since = fetched_at - settings.price_window
    redis.set(key, json.dumps(value | {"fetched_at": fetched_at.isoformat(), "since": since.isoformat()}))
    redis.zadd(wish_key("us-east-1", "m5"), {"p:Windows": fetched_at.timestamp()})
    scrape(B)
    products = set(json.loads(redis.get(key))["products"])
    assert products == {"Linux/UNIX", "SUSE Linux"} | ({"Windows"} if lives == "fresh" else set())


def test_what_nobody_wants_any_more_is_given_up_although_its_value_is_fresh(two_fleets, scrape, redis):
    scrape(A)
    key = "spot_price_history:us-east-1:m5"
    redis.zadd(wish_key("us-east-1", "m5"), {"p:Windows": (datetime.now(UTC) - timedelta(hours=2)).timestamp()})
    age(redis, 2000)
    assert set(json.loads(redis.get(key))["products"]) == {"Linux/UNIX", "Windows"}
    scrape(B)
    assert set(json.loads(redis.get(key))["products"]) == {"Linux/UNIX", "SUSE Linux"}
    assert redis.ttl(wish_key("us-east-1", "m5")) > 0
    # Who wants it after all is served, from where the archive ends.
    assert scrape(A).details["families_fetched"] > 0
    assert set(json.loads(redis.get(key))["products"]) == {"Linux/UNIX", "SUSE Linux", "Windows"}


@pytest.fixture
def hidden_zone(local_aws, monkeypatch):
    """A zone of us-east-1 that account A does not see."""
    hidden, prices = "use1-az4", local_aws.app.prices
    zones, of_account = prices._zones, catalogue_of_aws.account_zones

    def visible(account_id, region):
        names = of_account(account_id, region)
        return {name: zone for name, zone in names.items() if account_id != A or zone != hidden}

    def asked(call, account_id, filters):
        found = zones(call, account_id, filters)
        return sorted(visible(A, call.region).values()) if account_id == A and found is None else found

    monkeypatch.setattr(catalogue_of_aws, "account_zones", visible)
    monkeypatch.setattr(prices, "_zones", asked)
    return hidden


def test_accounts_that_see_other_zones_get_their_own_and_take_none_from_each_other(
    hidden_zone, second, scrape, redis, archive, local_aws, monkeypatch
):
    def zones_of(key="spot_price_history:us-east-1:m5"):
        value = json.loads(redis.get(key))
        return set(value["zones"]), set(value["pools"]["az_id"])

    scrape(A)
    assert all(hidden_zone not in found for found in zones_of())
    calls = arguments_of(local_aws, monkeypatch)
    wider = scrape(B)
    assert 0 < wider.details["families_fetched"] < wider.details["families_fetched"] + wider.details["families_reused"]
    assert all(hidden_zone in found for found in zones_of())
    # What A has fetched a moment ago lacks a zone of B's: B begins at the beginning.
    assert {call["StartTime"] for call in calls} == {wider.fetched_at - timedelta(days=1)}
    assert scrape(A).details["families_fetched"] == 0
    age(redis, 1900)
    narrow = scrape(A)
    assert narrow.details["families_fetched"] > 0
    assert all(hidden_zone in found for found in zones_of())
    found = archived(archive, "spot_prices")
    assert not found.duplicated([*POOL_KEY, "changed_at", "spot_price_usd_per_hour"]).any()


def test_accounts_that_scrape_at_the_same_moment_keep_what_each_wants(
    two_fleets, advised, sessions, engine, redis, archive, scrape
):
    """A publishes after B has fetched and before B publishes: B must neither narrow A's value nor go without."""
    scrape_advisor(advised, engine, redis, archive)
    slow = InBetween(archive.url, happens=lambda: scrape(A))
    report = scrape_prices(advised, sessions, engine, redis, slow, B)
    assert not prices_of(advised, engine, redis, A).empty
    assert not prices_of(advised, engine, redis, B).empty
    assert report.details["families_fetched"] > 0
    # A has seen what B wants, and brought it along.
    assert [row.error for row in rows(engine, "spot_prices")] == [None] * 2


def test_an_account_that_is_overtaken_by_one_that_sees_fewer_zones_scrapes_again(
    hidden_zone, second, settings, sessions, engine, redis, archive, scrape
):
    slow = InBetween(archive.url, happens=lambda: scrape(A))
    scrape_prices(settings, sessions, engine, redis, slow, B)
    value = json.loads(redis.get("spot_price_history:us-east-1:m5"))
    assert hidden_zone in value["zones"]
    assert hidden_zone in value["pools"]["az_id"]
    assert len(rows(engine, "spot_prices")) == 3


def test_an_account_whose_wish_another_has_just_fulfilled_does_not_scrape_again(
    two_fleets, settings, advised, sessions, engine, redis, archive, scrape
):
    scrape_advisor(advised, engine, redis, archive)
    with engine.begin() as connection:
        connection.execute(sa.update(Instance).where(Instance.account_id == B).values(product="Linux/UNIX"))
    slow = InBetween(archive.url, happens=lambda: scrape(A))
    report = scrape_prices(advised, sessions, engine, redis, slow, B)
    assert report.details["families_overtaken"] > 0
    assert not prices_of(advised, engine, redis, A).empty
    assert not prices_of(advised, engine, redis, B).empty
    assert len(rows(engine, "spot_prices")) == 2


def refusing_redis():
    """A Redis that takes no connection."""
    import redis as redis_py
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis_py.Redis(port=9, retry=Retry(NoBackoff(), 0))


def test_prices_that_cannot_be_published_are_not_archived(ready, scrape, settings, sessions, engine, redis, archive):
    class Lost(InBetween):
        def write_scrape(self, **fields):
            path = super().write_scrape(**fields)
            redis.config_set("maxmemory", 1)
            return path

    try:
        with pytest.raises(StoreUnavailable, match="full"):
            scrape_prices(settings, sessions, engine, redis, Lost(archive.url, lambda: None), A)
    finally:
        redis.config_set("maxmemory", 0)
    assert files(archive, "spot_prices") == []
    (row,) = rows(engine, "spot_prices")
    assert (row.archive_path, row.row_count, row.error.split(":")[0]) == (None, 0, "StoreUnavailable")


def test_a_region_that_cannot_be_archived_takes_the_earlier_ones_with_it(ready, settings, sessions, engine, redis):
    from pathlib import Path

    archive = Archive(settings.archive_location)
    today = f"date={datetime.now(UTC).date().isoformat()}"
    blocked = Path(archive.url) / "scrapes" / "kind=spot_prices" / "region=us-east-1" / today
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with pytest.raises(StoreUnavailable, match="could not be written"):
        scrape_prices(settings, sessions, engine, redis, archive, A)
    assert files(archive, "spot_prices") == []
    assert redis.keys("spot_price_history:*") == []


def test_the_shared_scrapes_archive_nothing_that_redis_does_not_take(advised, engine, archive, ready, sessions):
    with pytest.raises(StoreUnavailable):
        scrape_advisor(advised, engine, refusing_redis(), archive)
    with pytest.raises(StoreUnavailable):
        scrape_catalogue(advised, sessions, engine, refusing_redis(), archive)
    assert files(archive, "spot_advisor") == []
    assert archived(archive, "instance_catalogue")["scrape_id"].unique().tolist() == [ready.scrape_id]


def test_every_archived_file_is_named_by_the_row_of_a_scrape_that_ended_well(ready, scrape, engine, archive):
    from pathlib import Path

    scrape()
    named = {
        path
        for row in rows(engine, "spot_prices") + rows(engine, "instance_catalogue")
        for path in Path(archive.url).glob(row.archive_path)
    }
    assert named == {*files(archive, "spot_prices"), *files(archive, "instance_catalogue")}
    assert len(named) == 4


def test_a_scrape_that_is_cancelled_archives_nothing_and_says_so(advised, engine, archive):
    class Cancelled(BaseException):
        """As when a run is terminated."""

    def scrape():
        with recorded(engine, "spot_advisor") as record:
            record.keep(archive, pd.DataFrame({"region": ["us-east-1"]}))
            assert len(files(archive, "spot_advisor")) == 1
            raise Cancelled

    with pytest.raises(Cancelled):
        scrape()
    assert files(archive, "spot_advisor") == []
    (row,) = rows(engine, "spot_advisor")
    assert (row.archive_path, row.error.split(":")[0]) == (None, "Cancelled")


def test_a_scrape_whose_row_postgres_does_not_take_leaves_nothing_anywhere(
    ready, advised, scrape, engine, owner, redis, archive, sessions
):
    """At the very last moment, when the transaction is to be committed."""
    with owner.begin() as connection:
        connection.execute(
            sa.text("""
                create function refuse() returns trigger language plpgsql as $$
                begin if new.error is null then raise exception 'no'; end if; return null; end $$;
                create constraint trigger refuse after insert on scrapes deferrable initially deferred
                for each row execute function refuse();
            """)
        )
    before = files(archive, "*"), set(redis.keys("instance_metadata*"))
    for work in (scrape, lambda: scrape_advisor(advised, engine, redis, archive)):
        with pytest.raises(DBAPIError, match="no"):
            work()
    assert (files(archive, "*"), set(redis.keys("instance_metadata*"))) == before
    assert redis.keys("spot_price_history:*") + redis.keys("spot_risk:*") == []
    with pytest.raises(DBAPIError, match="no"):
        scrape_catalogue(advised, sessions, engine, redis, archive)
    assert files(archive, "*") == before[0]
    assert redis.keys("instance_metadata:*") == []
    assert ["no" in row.error for row in rows(engine, "spot_prices")] == [True]


def test_a_price_that_cannot_be_writes_nothing(ready, scrape, engine, redis, archive, local_aws):
    pool = {"region": "eu-west-1", "instance_type": "m5.large", "az_id": "euw1-az1"}
    for price in ("0", "-0.5", "NaN"):
        local_aws.clear_faults()
        local_aws.inject_price(**pool, price=price, changed_at=datetime.now(UTC) - timedelta(hours=1))
        with pytest.raises(SourceMalformed, match=f"got '{price}' for pool m5.large Linux/UNIX in eu-west-1"):
            scrape()
    assert files(archive, "spot_prices") == []
    assert redis.keys("spot_price_history:*") == []
    recorded = [(row.row_count, row.error.split(":")[0]) for row in rows(engine, "spot_prices")]
    assert recorded == [(0, "SourceMalformed")] * 3


def test_a_price_from_the_future_writes_nothing(ready, scrape, redis, local_aws):
    future = datetime.now(UTC) + timedelta(hours=2)
    local_aws.inject_price(region="eu-west-1", instance_type="m5.large", az_id="euw1-az1", price="1", changed_at=future)
    with pytest.raises(SourceMalformed, match="expected a time up to"):
        scrape()
    assert redis.keys("spot_price_history:*") == []


def test_a_page_loop_ends_by_name_and_writes_nothing(ready, scrape, redis, local_aws):
    local_aws.add_fault("DescribeSpotPriceHistory", region="eu-west-1", times=None, page_loop=True)
    with pytest.raises(PageLoop, match="came before"):
        scrape()
    assert redis.keys("spot_price_history:*") == []


def test_another_account_goes_on_when_one_is_denied(second, scrape, local_aws, redis):
    local_aws.set_denies(A, "actions")
    with pytest.raises(AccessDenied, match=A):
        scrape(A)
    assert redis.keys("spot_price_history:*") == []
    assert scrape(B).row_count > 0


def test_prices_need_the_catalogue_first(engine, sessions, local_aws, scrape):
    register_in_aws(engine, local_aws, A)
    sync_fleet(sessions, engine, A)
    with pytest.raises(MarketDataMissing, match="Materialise instance_catalogue"):
        scrape()


def test_an_account_of_another_partition_is_told_that_the_catalogue_is_not_its_own(ready, scrape, engine):
    register(engine, B, role_arn=f"arn:aws-cn:iam::{B}:role/SpotLab", regions=["cn-north-1"])
    with engine.begin() as connection:
        connection.execute(
            sa.update(Instance).where(Instance.region == "eu-west-1").values(account_id=B, region="cn-north-1")
        )
    with pytest.raises(
        SettingsError, match=r"partition aws only.* in cn-north-1, which is in aws-cn.*SPOTLAB_CATALOGUE_ACCOUNT_ID"
    ):
        scrape(B)
    assert scrape(A).row_count > 0


def test_an_account_without_instances_wants_no_prices(engine, sessions, local_aws, scrape):
    register_in_aws(engine, local_aws, A, fleet=[])
    sync_fleet(sessions, engine, A)
    assert scrape().row_count == 0


def test_no_external_id_reaches_redis_the_archive_or_the_record(
    second, scrape, advised, engine, redis, archive, local_aws
):
    from pathlib import Path

    from spotlab_pipelines.accounts.registry import list_accounts

    scrape_advisor(advised, engine, redis, archive)
    scrape(A)
    local_aws.set_denies(B, "assume")
    with pytest.raises(AccessDenied):
        sync_fleet(AccountSessions(engine), engine, B)
    written = b"".join(redis.get(key) for key in redis.scan_iter() if redis.type(key) == b"string")
    written += b"".join(path.read_bytes() for path in Path(archive.url).rglob("*") if path.is_file())
    with engine.connect() as connection:
        written += repr(connection.execute(sa.select(Scrape)).all()).encode()
    for account in list_accounts(engine):
        assert account.external_id.get_secret_value().encode() not in written
