"""The Advisor's scrape: fetched if it changed, archived once, and never worse than the last good one without a word."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.tables import Scrape
from spotlab_pipelines.errors import MarketDataStale, SettingsError, SourceMalformed, SourceUnavailable
from spotlab_pipelines.market import fetch, parquet
from spotlab_pipelines.market.advisor import last_good, scrape_advisor
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import lacking_sources, risk_key
from spotlab_pipelines.market.fetch import Validators, fetch_document
from spotlab_pipelines.market.values import Reader
from spotlab_pipelines_tests.market.feeds import feed_server

TYPES: dict[str, Any] = {f"m5.{size}xlarge": {"s": 60 + size, "r": size % 5} for size in range(1, 11)}
REGIONS: dict[str, Any] = {f"us-east-{number}": {"Linux": TYPES} for number in range(1, 6)}
KEY = risk_key("us-east-1", "m5.1xlarge")
ETAG = {"ETag": '"one"', "Last_Modified": "Mon, 02 Nov 2026 12:00:00 GMT"}


@pytest.fixture
def feed():
    with feed_server() as feed:
        feed.publish(REGIONS, **ETAG)
        yield feed


@pytest.fixture
def archive(settings):
    return Archive(settings.archive_location)


@pytest.fixture
def scrape(settings, engine, redis, archive, feed):
    """Scrape the feed."""
    settings = settings.model_copy(update={"advisor_url": feed.url})
    return lambda **changes: scrape_advisor(settings, engine, redis, archive, **changes)


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(
            sa.select(Scrape).where(Scrape.source == "spot_advisor").order_by(Scrape.fetched_at)
        ).all()


def files(archive):
    return [Path(archive.url) / file.path for file in archive.scrape_files("spot_advisor")]


def stored(archive):
    """How many scrapes have archived rows of their own."""
    return len({file.id for file in archive.scrape_files("spot_advisor")})


def sources(redis, now, ttl_s=3600):
    """What a reader at `now` is told of the value's origin."""
    reader = Reader(now, ttl_s, "spot_advisor")
    value = reader.open(KEY, redis.get(KEY))
    return reader.sources().iloc[0], value


def broken(feed, how):
    changes = {
        "empty": {"body": b""},
        "cut": {"body": feed.body[:-40]},
        "html": {"body": b"<html><body>Moved</body></html>"},
        "one bad entry": {"body": feed.body.replace(b'"r":3', b'"r":9', 1)},
        "gone": {"status": 404},
        "broken off": {"cut": 100},
    }[how]
    feed.headers = {}
    for name, value in changes.items():
        setattr(feed, name, value)


MALFORMED = ["empty", "cut", "html", "one bad entry"]


@pytest.mark.parametrize("how", [*MALFORMED, "gone", "broken off"])
def test_a_broken_feed_leaves_the_last_good_one_readable_and_flagged(scrape, engine, redis, archive, feed, how):
    good = scrape()
    before = {key: orjson.loads(redis.get(key)) for key in redis.scan_iter()}
    broken(feed, how)
    with pytest.raises(SourceMalformed if how in MALFORMED else SourceUnavailable) as caught:
        scrape()
    reason = f"{type(caught.value).__name__}: {caught.value}"
    assert stored(archive) == 1
    first, failed = rows(engine)
    assert (first.error, failed.error, failed.row_count, failed.archive_path) == (None, reason, 0, None)
    after = {key: orjson.loads(redis.get(key)) for key in redis.scan_iter()}
    assert all(value.pop("stale") is True and value.pop("note") for value in after.values())
    assert after == before, "the last good content, of the last good scrape and as old as it is"
    source, _ = sources(redis, good.fetched_at + timedelta(seconds=3600))
    assert (source["scrape_id"], source["stale"]) == (good.scrape_id, True)
    assert reason.startswith(source["note"].rstrip("…"))
    with pytest.raises(MarketDataStale, match="last good one, of") as refused:
        sources(redis, good.fetched_at + timedelta(seconds=3601))
    for told in (good.fetched_at.isoformat(), source["note"]):
        assert told in str(refused.value)
    assert redis.ttl(KEY) > 86400


def test_what_is_flagged_is_so_until_a_scrape_works_again(scrape, redis, feed):
    scrape()
    feed.status = 404
    feed.headers = {}
    with pytest.raises(SourceUnavailable):
        scrape()
    assert sources(redis, datetime.now(UTC))[0]["stale"]
    feed.publish(REGIONS | {"eu-west-1": {"Linux": TYPES}})
    scrape()
    source, value = sources(redis, datetime.now(UTC))
    assert (source["stale"], source["note"]) == (False, "")
    assert "stale" not in value
    assert redis.ttl(KEY) <= 3600


def test_the_last_good_feed_is_flagged_although_redis_has_lost_it(scrape, redis, feed, settings):
    good = scrape()
    redis.flushall()
    feed.body, feed.headers = b"", {}
    with pytest.raises(SourceMalformed):
        scrape()
    assert sources(redis, datetime.now(UTC))[0]["fetched_at"] == good.fetched_at
    lacking = lambda age_s: lacking_sources(  # noqa: E731
        redis, settings, ["us-east-1", "eu-west-1"], now=good.fetched_at + timedelta(seconds=age_s)
    )
    assert lacking(3600) == ["instance_catalogue"]
    assert lacking(3601) == ["instance_catalogue", "spot_advisor"], "kept to be told of, not to be used"


def test_a_failure_is_told_although_redis_cannot_be_flagged(scrape, settings, engine, archive, feed):
    import redis as redis_py

    scrape()
    feed.body, feed.headers = b"", {}
    settings = settings.model_copy(update={"advisor_url": feed.url})
    with pytest.raises(SourceMalformed) as caught:
        scrape_advisor(settings, engine, redis_py.Redis(port=9), archive)
    assert "could not be flagged" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(("status", "error"), [(403, SourceUnavailable), (304, SourceMalformed)])
def test_a_first_scrape_that_fails_has_nothing_to_flag(scrape, engine, redis, feed, status, error):
    feed.status, feed.body = status, b""
    with pytest.raises(error):
        scrape()
    assert len(rows(engine)) == 1
    assert redis.dbsize() == 0


def test_a_feed_that_has_not_changed_is_confirmed_and_stored_once(scrape, engine, redis, archive, feed):
    first = scrape()
    size = redis.dbsize()
    redis.flushall()
    second = scrape()
    third = scrape()
    assert [asked.get("If-None-Match") for asked in feed.asked] == [None, '"one"', '"one"']
    assert [asked.get("If-Modified-Since") for asked in feed.asked] == [None, *[ETAG["Last_Modified"]] * 2]
    assert stored(archive) == 1
    assert redis.dbsize() == size, "all of it is published anew"
    source, _ = sources(redis, datetime.now(UTC))
    assert (source["scrape_id"], source["fetched_at"], source["stale"]) == (third.scrape_id, third.fetched_at, False)
    assert source["note"] == f"confirmed unchanged since {first.fetched_at.isoformat()}"
    assert redis.ttl(KEY) > 3590
    assert (second.row_count, second.archive_path) == (first.row_count, None)
    known = last_good(archive)
    assert known is not None
    assert (known.scrape_id, known.content_id, known.note) == (third.scrape_id, first.scrape_id, source["note"])
    assert [row.provenance["etag"] for row in rows(engine)] == ['"one"'] * 3


def test_the_same_content_counts_as_unchanged_whatever_the_server_says(scrape, redis, archive, feed):
    first = scrape()
    turned = {region: {"Linux": dict(reversed(TYPES.items()))} for region in reversed(REGIONS)}
    feed.publish(turned, ETag='"two"')
    second = scrape()
    assert stored(archive) == 1
    assert second.details["unchanged_since"] == first.fetched_at.isoformat()
    scrape()
    assert feed.asked[-1]["If-None-Match"] == '"two"', "the server's newest word is asked by"


def test_validators_are_of_their_url_alone(feed):
    known = Validators(feed.url, ETAG["ETag"], ETAG["Last_Modified"])
    assert fetch_document(feed.url, 5, known) == fetch.Fetched(None, known)
    assert fetch_document(feed.url, 5, replace(known, url="http://elsewhere/")).body == feed.body
    assert "If-None-Match" not in feed.asked[-1]


@pytest.mark.parametrize("lost", ["the files", "a column", "a bit"])
def test_an_archive_that_lost_the_last_good_feed_is_given_it_again(scrape, archive, feed, lost):
    scrape()
    for path in files(archive):
        if lost == "the files":
            path.unlink()
        elif lost == "a column":
            table = pq.ParquetFile(path).read().drop_columns("bucket")
            path.write_bytes(parquet.write_table(table, {}, parquet.DENSE, json_columns=[]))
        else:
            path.write_bytes(path.read_bytes().replace(b"PAR1", b"PAR0"))
    assert last_good(archive) is None
    again = scrape()
    assert "If-None-Match" not in feed.asked[-1]
    assert again.details["unchanged_since"] == again.fetched_at.isoformat()
    found = last_good(archive)
    assert found is not None
    assert found.scrape_id == again.scrape_id


def test_a_sudden_loss_is_truncation_until_someone_accepts_it(scrape, engine, redis, archive, feed):
    good = scrape()
    fewer = {region: REGIONS[region] for region in list(REGIONS)[:4]}
    feed.publish(fewer)
    with pytest.raises(
        SourceMalformed, match=r"1 of 5 regions, 0 of 10 types, 10 of 50 entries gone.*market accept-advisor"
    ):
        scrape()
    source, _ = sources(redis, datetime.now(UTC))
    assert (source["scrape_id"], source["stale"]) == (good.scrape_id, True)
    accepted = scrape(accept_loss=True)
    assert (accepted.row_count, stored(archive)) == (40, 2)
    assert rows(engine)[-1].provenance["loss_accepted_by"]
    assert scrape().details["unchanged_since"] == accepted.fetched_at.isoformat()


def test_a_loss_within_the_share_is_believed(scrape, settings, engine, redis, archive, feed):
    scrape()
    feed.publish(dict(list(REGIONS.items())[:3]))
    settings = settings.model_copy(update={"advisor_url": feed.url, "advisor_max_loss_share": 0.4})
    assert scrape_advisor(settings, engine, redis, archive).row_count == 30


def test_a_server_that_asks_for_a_pause_is_given_it_up_to_a_limit(feed, monkeypatch):
    """The first retry comes at once unless it is asked otherwise."""
    monkeypatch.setattr(fetch, "RETRY_AFTER_MAX_S", 1)
    feed.first = [(503, {"Retry-After": "3600"})]
    started = time.monotonic()
    assert fetch_document(feed.url, 5).body == feed.body
    assert 1 <= time.monotonic() - started < 30
    feed.first = [(500, {}), (429, {})]
    assert fetch_document(feed.url, 5).body == feed.body


def test_a_server_that_stays_down_is_unavailable(feed):
    feed.status = 503
    with pytest.raises(SourceUnavailable, match="503"):
        fetch_document(feed.url, 5)
    assert len(feed.asked) == fetch.ATTEMPTS


def test_the_advisor_may_lie_in_a_bucket(local_aws):
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="feeds")
    s3.put_object(Bucket="feeds", Key="a/advisor.json", Body=b"{}")
    assert fetch_document("s3://feeds/a/advisor.json", 1).body == b"{}"
    with pytest.raises(SourceUnavailable, match="s3://feeds/b"):
        fetch_document("s3://feeds/b.json", 1)


def test_another_kind_of_url_is_refused():
    with pytest.raises(SettingsError, match="ftp://"):
        fetch_document("ftp://example.com/advisor.json", 1)
