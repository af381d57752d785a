"""What was observed of EC2's pools: capacity given, kept, refused or taken away, as the accounts' Spot requests tell.

Pools are shared by all accounts, so an observation names none. The archive keeps each one once, with the scrape that
brought it; Redis holds, a value a region and family, what the archive says of the last HISTORY_DAYS days.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.interruptions import SpotRequestEndings, endings_of_requests, record_endings
from spotlab_pipelines.accounts.past import remember_past
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.spot_requests import RUNNING_CODES, read_spot_requests_and_refusals
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.redis import redis_errors
from spotlab_pipelines.database.tables import Scrape
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS, POOL_KEY, check_observations, family_of, text
from spotlab_pipelines.market.layout import HISTORY_DAYS
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS as SOURCE
from spotlab_pipelines.market.pool_history import family_columns, pool_history_key
from spotlab_pipelines.market.publish import Envelope, withdraw
from spotlab_pipelines.market.reading import new_facts, read_observations
from spotlab_pipelines.market.records import whole_scrapes
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

REQUESTS = "spot requests"


def scrape_observations(
    settings: Settings,
    sessions: AccountSessions,
    engine: sa.Engine,
    redis: redis_client.Redis,
    archive: Archive,
    account_id: str,
) -> ScrapeReport:
    """Read the account's Spot requests: interruptions and past instances go on record, what they say of pools to
    archive and Redis.

    All regions are read before anything is written. Of a region one scrape at a time writes, so that the value in Redis
    is what the archive says; an interruption is one row of `interruption_events`, however often it is read.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
        StoreUnavailable: a store does not answer.
    """
    account = get_account(engine, account_id)
    with recorded(engine, SOURCE, account_id=account_id) as record:
        requests, refusals = read_spot_requests_and_refusals(sessions, account)
        observed = observations_of(requests, refusals, at=record.fetched_at)
        since = record.fetched_at - timedelta(days=HISTORY_DAYS)
        observed = observed[observed["observed_at"] > pd.Timestamp(since)]
        remember_past(engine, account_id, requests)
        endings = endings_of_requests(requests)
        interruptions = record_endings(engine, account_id, SpotRequestEndings.name, endings, read_at=record.fetched_at)
        regions = sorted({*account.regions, *observed["region"]})
        with database_errors(), engine.begin() as connection:
            for region in regions:
                lock(connection, f"pool_observations/{region}")
            stays = whole_scrapes(archive, now=record.fetched_at, settle=settings.archive_settle)
            facts = observed.rename(columns={"kind": "observation"})
            new = new_facts(archive, SOURCE, facts, counts=lambda file: file.fetched_at > since and stays(file))
            record.keep(archive, new)
            record.undo_with(partial(withdraw, redis, record.id, pool_history_key("*")))
            envelope = Envelope(SOURCE, str(record.id), record.fetched_at)
            known = read_observations(archive, regions, start=since).drop(columns="fetched_at")
            keys = publish_observations(redis, known, envelope, ttl_s=settings.price_history_ttl_s, regions=regions)
    return record.report(
        new.rename(columns={"observation": "kind"}),
        account_id=account_id,
        regions=regions,
        interruptions_new=interruptions,
        failures_new=int((~new["available"]).sum()),
        pools=len(known[[*POOL_KEY]].drop_duplicates()),
        keys=keys,
    )


def observed_when_known(
    engine: sa.Engine, archive: Archive, regions: Collection[str], *, start: datetime, end: datetime
) -> pd.DataFrame:
    """Pool observations in (start, end], each with the instant from which it was known: for looking back as in service.

    That is when a scrape brought it, however late. What the first scrape of an account brought counts from
    `observed_at`: nobody had asked that account before, and a fresh laboratory has no other past.

    Returns:
        Pool observations frame with `known_at`, each once, by pool and time.

    Raises:
        StoreUnavailable: a store does not answer.
        ArchiveTooNew, IntegrityError: a file is not one that this code reads.
    """
    frame = read_observations(archive, regions, start=start, end=end)
    late = ~frame["fetched_at"].isin(_first_scrapes(engine))
    return frame.drop(columns="fetched_at").assign(known_at=frame["fetched_at"].where(late, frame["observed_at"]))


def observations_of(requests: pd.DataFrame, refusals: pd.DataFrame, *, at: datetime) -> pd.DataFrame:
    """What Spot requests say of their pools; pure.

    A fulfilled request says that the pool had capacity when it was made; a running instance that it has at `at`; an
    interruption that it had none then; a request that is refused for want of capacity that it had none at its last
    status change.

    Args:
        requests: fulfilled ones. refusals: unfulfilled ones; both as accounts/spot_requests.py reads them.
        at: when they were read.

    Returns:
        Pool observations frame, each observation once.
    """
    interrupted = requests[requests["interrupted"] & requests["ended_at"].notna()]
    running = requests[requests["status_code"].isin(RUNNING_CODES)]
    seen_at = pd.Series([at] * len(running), index=running.index, dtype=requests["started_at"].dtype)
    parts = [
        _observed(requests, requests["started_at"], "launch", available=True),
        _observed(running, seen_at, "running", available=True),
        _observed(interrupted, interrupted["ended_at"], "interruption", available=False),
        _observed(refusals, refusals["refused_at"], "launch", available=False),
    ]
    frame = pd.concat(parts, ignore_index=True).drop_duplicates()
    return check_observations(frame.sort_values(list(OBSERVATION_COLUMNS), ignore_index=True))


def publish_observations(
    redis: redis_client.Redis, observations: pd.DataFrame, envelope: Envelope, *, ttl_s: int, regions: Sequence[str]
) -> int:
    """Write all that is known of these regions in one MULTI; return the number of keys.

    Args:
        observations: pool observations frame of these regions.
        regions: each gets a list, an empty one if nothing was observed there.
    """
    frame = observations.sort_values(list(OBSERVATION_COLUMNS), ignore_index=True)
    groups: Any = frame.groupby([frame["region"], family_of(frame["instance_type"])])
    listed: dict[str, list[str]] = {region: [] for region in regions}
    values = {}
    for (region, family), rows in groups:
        listed[region].append(family)
        values[pool_history_key(region, family)] = envelope.wrap(**family_columns(rows))
    values |= {pool_history_key(region): envelope.wrap(families=names) for region, names in listed.items()}
    with redis_errors(), redis.pipeline(transaction=True) as pipeline:
        for key, value in values.items():
            pipeline.set(key, value, ex=ttl_s)
        pipeline.execute()
    return len(values)


def _first_scrapes(engine: sa.Engine) -> pd.DatetimeIndex:
    """When the first good scrape of each account ran. Facts name no account; their `fetched_at` tells their scrape."""
    first = (
        sa.select(sa.func.min(Scrape.fetched_at))
        .where(Scrape.source == SOURCE, Scrape.error.is_(None))
        .group_by(Scrape.account_id)
    )
    with database_errors(), engine.connect() as connection:
        return pd.to_datetime(list(connection.scalars(first)), utc=True).as_unit("us")


def _observed(frame: pd.DataFrame, at: pd.Series, kind: str, *, available: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{name: frame[name].array for name in POOL_KEY},
            "observed_at": at.array,
            "available": pd.Series([available] * len(frame), dtype=bool).array,
            "kind": text([kind] * len(frame)),
            "source": text([REQUESTS] * len(frame)),
        }
    )
