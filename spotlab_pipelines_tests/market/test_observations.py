"""What Spot requests say of pools: shared by all accounts, stored once, the same from the cache as from the archive."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.accounts.frames import REFUSAL_COLUMNS, SPOT_REQUEST_COLUMNS
from spotlab_pipelines.accounts.registry import add_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database.tables import InterruptionEvent, Scrape
from spotlab_pipelines.errors import AccessDenied, MarketDataMissing
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.frames import POOL_KEY, family_of
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import HISTORY_DAYS, POOL_OBSERVATIONS
from spotlab_pipelines.market.observations import (
    observations_of,
    observed_when_known,
    publish_observations,
    scrape_observations,
)
from spotlab_pipelines.market.pool_history import decode_observations, pool_history_key
from spotlab_pipelines.market.publish import Envelope
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded
from spotlab_pipelines.market.values import Reader
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import register_in_aws
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.server import LocalAws

A, B = "111122223333", "444455556666"
REGION = "us-east-1"
FLEET = [FleetInstance("m5.large", REGION, f"use1-az{zone}") for zone in (1, 2)]
AT = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
COLUMNS = ["az_id", "available", "kind"]

Scrape_ = Callable[[str], ScrapeReport]


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive_location)


@pytest.fixture
def scrape(
    settings: Settings, engine: sa.Engine, redis: redis_py.Redis, archive: Archive, local_aws: LocalAws
) -> Scrape_:
    """Scrape an account's observations."""
    sessions = AccountSessions(engine)
    return lambda account_id: scrape_observations(settings, sessions, engine, redis, archive, account_id)


def requests(*rows: tuple[str, float, float | None, str]) -> pd.DataFrame:
    """Fulfilled requests from (zone, hours before AT of the start, and of the end, status code)."""
    frame = pd.DataFrame(
        [
            (
                f"sir-{n}",
                f"i-{n}",
                REGION,
                zone,
                "m5.large",
                "Linux/UNIX",
                start,
                end,
                code.startswith("instance"),
                code,
            )
            for n, (zone, start, end, code) in enumerate(rows)
        ],
        columns=list(SPOT_REQUEST_COLUMNS),
    )
    times = {name: AT - pd.to_timedelta(frame[name].astype(float), unit="h") for name in ("started_at", "ended_at")}
    texts = [name for name in SPOT_REQUEST_COLUMNS if name not in ("started_at", "ended_at", "interrupted")]
    return frame.assign(**{name: value.dt.as_unit("us") for name, value in times.items()}).astype(
        dict.fromkeys(texts, "str")
    )


def test_launches_running_instances_interruptions_and_refusals_speak_of_their_pools():
    refusals = pd.DataFrame(
        [("sir-9", REGION, "use1-az4", "m5.large", "Linux/UNIX", AT - timedelta(hours=1), "capacity-not-available")],
        columns=list(REFUSAL_COLUMNS),
    ).astype({"region": "str", "az_id": "str", "instance_type": "str", "product": "str"})
    refusals["refused_at"] = refusals["refused_at"].dt.as_unit("us")
    observed = observations_of(
        requests(
            ("use1-az1", 5, None, "fulfilled"),
            ("use1-az1", 4, None, "fulfilled"),
            ("use1-az2", 9, 2, "instance-terminated-no-capacity"),
            ("use1-az2", 8, 3, "terminated-by-user"),
        ),
        refusals,
        at=AT,
    )
    observed = observed.sort_values(["az_id", "observed_at"])
    hours = [(AT - time.to_pydatetime()).total_seconds() / 3600 for time in pd.DatetimeIndex(observed["observed_at"])]
    told = list(zip(observed["az_id"], hours, observed["available"], observed["kind"], strict=True))
    assert told == [
        ("use1-az1", 5.0, True, "launch"),
        ("use1-az1", 4.0, True, "launch"),
        ("use1-az1", 0.0, True, "running"),
        ("use1-az2", 9.0, True, "launch"),
        ("use1-az2", 8.0, True, "launch"),
        ("use1-az2", 2.0, False, "interruption"),
        ("use1-az4", 1.0, False, "launch"),
    ]
    assert not {"account_id", "instance_id"} & set(observed.columns), "pools are shared by all accounts"


def seen_in_redis(redis: redis_py.Redis, *families: str) -> pd.DataFrame:
    """The observations of these families as an evaluation reads them."""
    reader = Reader(datetime.now(UTC), 3600, "pool_observations")
    lists = [(pool_history_key(REGION), REGION, redis.get(pool_history_key(REGION)))]
    keys = [(pool_history_key(REGION, name), REGION, name) for name in families]
    return decode_observations(reader, lists, [(*key, redis.get(key[0])) for key in keys])  # type: ignore[list-item]


def test_two_accounts_tell_of_the_same_pools_and_each_thing_is_stored_once(
    engine: sa.Engine, redis: redis_py.Redis, archive: Archive, local_aws: LocalAws, scrape: Scrape_
):
    for account in (A, B):
        register_in_aws(engine, local_aws, account, fleet=FLEET)
    scrape(A)
    scrape(B)
    taken = local_aws.add_instances(A, FLEET[:1])[0]
    local_aws.interrupt(A, REGION, taken)
    local_aws.refuse(A, REGION, "m5.large", "use1-az4")
    report = scrape(A)
    again = scrape(A)
    assert report.details["failures_new"] == 2
    assert report.details["interruptions_new"] == 1
    assert (again.details["failures_new"], again.details["interruptions_new"]) == (0, 0)
    assert set(again.preview["kind"]) == {"running"}, "the rest is there already"
    with engine.connect() as connection:
        events = connection.execute(
            sa.select(InterruptionEvent.instance_id, InterruptionEvent.source, InterruptionEvent.status_code)
        ).all()
    assert (taken, "spot_request", "instance-terminated-no-capacity") in events
    assert len(events) == len({event.instance_id for event in events})

    stored = pd.read_parquet(f"{archive.url}/scrapes/kind=pool_observations")
    assert not stored.drop(columns="fetched_at").duplicated().any()
    assert not {"account_id", "instance_id"} & set(stored.columns)
    now = datetime.now(UTC)
    history = MarketHistory(archive)
    known = history.observations([REGION], start=now - timedelta(days=HISTORY_DAYS), end=now)
    families = sorted(family_of(known["instance_type"]).unique())
    assert json.loads(redis.get(pool_history_key(REGION)))["families"] == families  # type: ignore[arg-type]
    cached = seen_in_redis(redis, *families, "never-seen")
    order = list(known.columns)
    pd.testing.assert_frame_equal(cached.sort_values(order, ignore_index=True), known)
    mine = known[known["instance_type"] == "m5.large"]
    assert (mine[mine["az_id"] == "use1-az4"][COLUMNS].to_numpy() == ["use1-az4", False, "launch"]).any()

    # From the cache and from the archive, features are the same to the last bit, and as of then they are as then.
    pools = known[list(POOL_KEY)].drop_duplicates(ignore_index=True)
    for at in (now, report.fetched_at):
        was_known = history.observations([REGION], start=at - timedelta(days=HISTORY_DAYS), end=at, known_at=at)
        from_archive = features(pools, was_known, at)
        pd.testing.assert_frame_equal(features(pools, cached, at), from_archive, check_exact=True)
    before = history.observations(
        [REGION], start=now - timedelta(days=HISTORY_DAYS), end=now, known_at=again.fetched_at
    )
    assert len(before) == len(known)


def features(pools: pd.DataFrame, seen: pd.DataFrame, at: datetime) -> pd.DataFrame:
    return compute_features(pools, "v2-history", open_bucket_rate=0.3, past=Past.of(seen, as_of=at))[0]


def bring(
    engine: sa.Engine, archive: Archive, account_id: str, fetched_h: float, *seen: tuple[str, float, bool]
) -> None:
    """A scrape of an account, hours before AT, that brings (zone, hours before AT, available)."""
    frame = observations_of(
        requests(*((zone, hours, None, "fulfilled") for zone, hours, _ in seen)), no_refusals(), at=AT
    )
    frame = frame[frame["kind"] == "launch"].rename(columns={"kind": "observation"}).reset_index(drop=True)
    ok = {AT - timedelta(hours=hours): available for _, hours, available in seen}
    with recorded(engine, POOL_OBSERVATIONS, account_id=account_id) as record:
        record.fetched_at = AT - timedelta(hours=fetched_h)
        record.keep(archive, frame.assign(available=[ok[at.to_pydatetime()] for at in frame["observed_at"]]))


def fail_to_read(engine: sa.Engine, account_id: str, fetched_h: float) -> None:
    """A scrape of an account that is denied, hours before AT."""
    with recorded(engine, POOL_OBSERVATIONS, account_id=account_id) as record:
        record.fetched_at = AT - timedelta(hours=fetched_h)
        raise AccessDenied("not yet")


def test_looking_back_nothing_is_known_before_a_scrape_brought_it(engine: sa.Engine, archive: Archive):
    """But for what the first scrape of an account brought: there is no other past."""
    add_user(engine, "owner@example.com")
    for account_id in (A, B):
        role = f"arn:aws:iam::{account_id}:role/SpotLab"
        add_account(
            engine, account_id=account_id, name=account_id, owner_email="owner@example.com", role_arn=role,
            regions=(REGION,),
        )  # fmt: skip
    with pytest.raises(AccessDenied):
        fail_to_read(engine, B, 90)
    bring(engine, archive, A, 40, ("use1-az1", 60, True), ("use1-az1", 50, False), ("use1-az1", 44, True))
    # Access was lost for a day: the failure comes late.
    bring(engine, archive, A, 10, ("use1-az1", 30, False), ("use1-az1", 12, True))
    bring(engine, archive, B, 6, ("use1-az2", 20, False))
    bring(engine, archive, B, 5, ("use1-az2", 8, True))
    start = AT - timedelta(days=HISTORY_DAYS)
    seen = observed_when_known(engine, archive, [REGION], start=start, end=AT)
    hours = [[(AT - at) / timedelta(hours=1) for at in seen[name]] for name in ("observed_at", "known_at")]
    told = list(zip(seen["az_id"], *hours, strict=True))
    assert told == [
        *(("use1-az1", first, first) for first in (60, 50, 44)),
        *(("use1-az1", late, 10) for late in (30, 12)),
        ("use1-az2", 20, 20),
        ("use1-az2", 8, 5),
    ]

    history, pools = MarketHistory(archive), seen[list(POOL_KEY)].drop_duplicates(ignore_index=True).head(1)
    for back in (39, 29, 20, 10.5, 10, 9, 0):
        at = AT - timedelta(hours=back)
        as_of = history.observations([REGION], start=start, end=at, known_at=at)
        in_service, found = features(pools, as_of, at), features(pools, seen, at)
        pd.testing.assert_frame_equal(found, in_service, check_exact=True)
        last_failure = 30 if back <= 10 else 50
        assert found["log_hours_without_failure"].iloc[0] == pytest.approx(math.log1p(last_failure - back))
    before = features(pools, seen, AT - timedelta(hours=45))
    assert before["log_hours_without_failure"].iloc[0] == pytest.approx(math.log1p(5))


def test_a_lost_cache_is_filled_from_the_archive_by_whoever_comes_next(
    engine: sa.Engine, redis: redis_py.Redis, local_aws: LocalAws, scrape: Scrape_
):
    register_in_aws(engine, local_aws, A, fleet=FLEET)
    register_in_aws(engine, local_aws, B, fleet=[])
    scrape(A)
    told = seen_in_redis(redis, "m5")
    redis.flushall()
    scrape(B)
    # B has requests of its own; what A has told is there beside them.
    both = told.merge(seen_in_redis(redis, "m5"), how="left", indicator=True)
    assert len(told) > 0
    assert (both["_merge"] == "both").all()


def test_an_account_that_denies_us_leaves_no_trace_but_a_row(
    engine: sa.Engine, redis: redis_py.Redis, archive: Archive, local_aws: LocalAws, scrape: Scrape_
):
    register_in_aws(engine, local_aws, A, fleet=FLEET)
    local_aws.set_denies(A, "actions")
    with pytest.raises(AccessDenied):
        scrape(A)
    assert archive.scrape_files("pool_observations") == []
    assert redis.keys("pool_history*") == []
    with engine.connect() as connection:
        [error] = connection.scalars(sa.select(Scrape.error).where(Scrape.source == "pool_observations")).all()
    assert error is not None
    assert "AccessDenied" in error


def test_a_scrape_that_fails_after_it_published_takes_everything_back(
    settings: Settings, engine: sa.Engine, redis: redis_py.Redis, archive: Archive, local_aws: LocalAws,
    scrape: Scrape_, owner: sa.Engine,
):  # fmt: skip
    register_in_aws(engine, local_aws, A, fleet=FLEET)
    with owner.begin() as connection:
        connection.execute(sa.text("alter table scrapes add check (error is not null)"))
    with pytest.raises(Exception, match="scrapes"):
        scrape(A)
    assert archive.scrape_files("pool_observations") == []
    assert redis.keys("pool_history*") == []


def test_a_value_of_another_shape_is_an_error_that_names_its_key(redis: redis_py.Redis):
    seen = observations_of(requests(("use1-az1", 5, None, "fulfilled")), no_refusals(), at=AT)
    envelope = Envelope("pool_observations", "00000000-0000-0000-0000-000000000001", datetime.now(UTC))
    assert publish_observations(redis, seen, envelope, ttl_s=60, regions=[REGION, "eu-west-1"]) == 3
    assert json.loads(redis.get(pool_history_key("eu-west-1")))["families"] == []  # type: ignore[arg-type]
    key = pool_history_key(REGION, "m5")
    good = json.loads(redis.get(key))  # type: ignore[arg-type]
    broken = {
        "differ in length": {**good, "observations": {**good["observations"], "available": []}},
        "numbers of pool": {**good, "observations": {**good["observations"], "pool": [0, 7]}},
        "numbers of kind": {**good, "observations": {**good["observations"], "kind": [-1, 0]}},
        "KeyError": {name: value for name, value in good.items() if name != "pools"},
    }
    for message, value in broken.items():
        redis.set(key, json.dumps(value))
        with pytest.raises(MarketDataMissing, match=f"{key}.*{message}"):
            seen_in_redis(redis, "m5")


def no_refusals() -> pd.DataFrame:
    frame = pd.DataFrame(columns=list(REFUSAL_COLUMNS), dtype="str")
    return frame.assign(refused_at=pd.DatetimeIndex([], tz="UTC").as_unit("us"))
