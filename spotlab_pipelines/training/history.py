"""Reading what models learn from: how the Spot instances of all active accounts ended, and the market of that time.

Reads the world and hands frames to examples.py; fitting is first_models.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.accounts.registry import Account, list_accounts
from spotlab_pipelines.accounts.spot_requests import read_spot_requests
from spotlab_pipelines.errors import AccessDenied, NotEnoughData, NotFound
from spotlab_pipelines.features.specs import V1, get_spec
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import read_catalogue
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import family_of
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import HISTORY_DAYS
from spotlab_pipelines.market.observations import observed_when_known
from spotlab_pipelines.market.past import PastMarkets
from spotlab_pipelines.market.prices import collect_prices
from spotlab_pipelines.market.records import Cover, not_covered
from spotlab_pipelines.settings import HORIZONS_H
from spotlab_pipelines.training.examples import build_examples
from spotlab_pipelines.training.exposures import exposures_of, recorded_runs

if TYPE_CHECKING:
    import redis as redis_client
    import sqlalchemy as sa

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.settings import Settings

TRAINING_DAYS = 30
SAMPLED_EVERY = timedelta(hours=6)

Progress = Callable[[str], None]


def read_examples(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    redis: redis_client.Redis,
    *,
    training_days: float = TRAINING_DAYS,
    progress: Progress | None = None,
    feature_spec: str = V1.version,
    until: datetime | None = None,
) -> pd.DataFrame:
    """Point-in-time examples of all active accounts' Spot instances over the `training_days` up to `until`.

    `until` is now if not given. The Advisor and on-demand prices are those that were known at each instant; the
    first scrape stands in before it, as nobody knows what was said then. Pool observations count from when a scrape had
    brought them, as in service; those of an account's first scrape from their own time. An account that denies us is
    left out: its history is missing, the others' is not wrong for it.

    Raises:
        NotFound: no account is registered, or the Advisor was never scraped.
        MarketDataMissing, MarketDataStale: the catalogue was not scraped.
        NotEnoughData: in these days no account has seen an interruption, or no pool had features when it was looked at.
    """
    say = progress or (lambda _: None)
    accounts = list_accounts(engine)
    if not accounts:
        raise NotFound("Expected a registered account to learn from.", remedy="Run `spotlab accounts add` first.")
    say(f"reading the Spot requests of {len(accounts)} accounts")
    now = datetime.now(UTC)
    until = until or now
    readable, requested = _requests(sessions, accounts)
    since = until - timedelta(days=training_days)
    runs = recorded_runs(engine, [account.account_id for account in readable], since=since, until=until)
    exposures, requests = exposures_of(requested, runs), len(requested)
    exposures = exposures[exposures["ended_at"].isna() | (exposures["ended_at"] > pd.Timestamp(since))]
    exposures = exposures[exposures["started_at"] < pd.Timestamp(until)]
    if not exposures["interrupted"].any():
        raise NotEnoughData(
            f"the Spot requests of {len(accounts)} accounts hold no interruption in the last {training_days:g} days,"
            f" nor does the record ({requests} requests in all, {len(exposures)} runs in these days)."
        )
    wanted = _wanted(exposures, read_catalogue(redis, settings, now=now).types)
    say(f"reading {training_days:g} days of prices of {sum(map(len, wanted.types.values()))} instance types")
    changes = _read_prices(settings, engine, sessions, readable, wanted, start=since - settings.price_window, end=until)
    archive = Archive(settings.archive_location)
    # What the Advisor says today of the month before is the answer: it counts from the scrape on that brought it.
    documents = PastMarkets(archive, first_known=True)
    named = list(wanted.types), {name for names in wanted.types.values() for name in names}
    observations = None
    if get_spec(feature_spec).needs_observations:
        earliest = since - timedelta(days=HISTORY_DAYS)
        observations = observed_when_known(engine, archive, wanted.types, start=earliest, end=until)
    say(f"computing features as of every {SAMPLED_EVERY / timedelta(hours=1):g} h")
    examples = build_examples(
        exposures,
        changes,
        advisor=lambda instant: documents.advisor(*named, known_at=instant),
        on_demand=lambda instant: documents.on_demand(*named, known_at=instant),
        every=SAMPLED_EVERY,
        window=settings.price_window,
        not_before=pd.Timestamp(since),
        until=pd.Timestamp(until),
        horizons_h=HORIZONS_H,
        open_bucket_rate=settings.open_bucket_rate,
        feature_spec=feature_spec,
        observations=observations,
    )
    if examples.empty:
        raise NotEnoughData(
            f"of {len(exposures)} Spot instances in the last {training_days:g} days none ran, in a pool with"
            f" features, at one of the instants that are looked at (every {SAMPLED_EVERY / timedelta(hours=1):g} h)."
        )
    return examples


def _requests(sessions: AccountSessions, accounts: list[Account]) -> tuple[list[Account], pd.DataFrame]:
    """The accounts that let us in, and their Spot requests.

    Raises:
        NotEnoughData: none lets us in.
    """
    readable, frames = [], []
    for account in accounts:
        try:
            frames.append(read_spot_requests(sessions, account))
        except AccessDenied:
            continue
        readable.append(account)
    if not readable:
        raise NotEnoughData(f"none of {len(accounts)} accounts lets its Spot requests be read.")
    return readable, pd.concat(frames, ignore_index=True).drop_duplicates("spot_request_id", ignore_index=True)


def _wanted(exposures: pd.DataFrame, catalogue: pd.DataFrame) -> Wanted:
    """The whole families of the exposed types, as the family's stress is a mean over them."""
    types, products = {}, {}
    for region, part in exposures.groupby("region", sort=True):
        members = catalogue["instance_type"][
            family_of(catalogue["instance_type"]).isin(family_of(part["instance_type"]))
        ]
        types[str(region)] = tuple(sorted({*members, *part["instance_type"]}))
        products[str(region)] = tuple(sorted(part["product"].unique()))
    return Wanted(types=types, families={}, products=products)


def _read_prices(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    accounts: list[Account],
    wanted: Wanted,
    *,
    start: datetime,
    end: datetime,
) -> pd.DataFrame:
    """The prices of each region from the archive, after what it lacks has been brought there.

    Through the first account that works in a region: pools are shared by all.
    """
    archive = Archive(settings.archive_location)
    cover: Cover = {}
    by_reader: dict[str, Cover] = {}
    readers = {account.account_id: account for account in accounts}
    for region, types in wanted.types.items():
        reader = next(account for account in accounts if region in account.regions)
        families: dict[str, list[str]] = {}
        for name in types:
            families.setdefault(name.partition(".")[0], []).append(name)
        here = {(region, family): (tuple(names), wanted.products[region]) for family, names in families.items()}
        cover |= here
        by_reader.setdefault(reader.account_id, {}).update(here)
    fresh = timedelta(seconds=settings.price_history_ttl_s)
    for account_id, part in by_reader.items():
        lacking = not_covered(archive, part, since=end - fresh, until=end)
        if lacking:
            collect_prices(settings, sessions, engine, archive, readers[account_id], lacking)
    return MarketHistory(archive).prices(cover, start=start, end=end)
