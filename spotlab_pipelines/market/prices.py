"""Spot price history: one account's scrape of the families it runs or could run, and what the archive lacks of them.

Histories are shared by all accounts, because pools are told apart by zone id: a family that another account's scrape
has just brought is not fetched again. Of one that is, only what the archive does not know yet: the first scrape of a
type and product takes all that AWS keeps, a later one what came since the last. The archive and what is new make the
value in Redis. One that is fetched again is fetched with all that any account has wanted of it lately, so that no
account's scrape takes from another what it has come to rely on; what nobody wants any more is given up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import load_fleet
from spotlab_pipelines.accounts.registry import Account, get_account
from spotlab_pipelines.accounts.rules import partition_of
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import SettingsError, StoreUnavailable
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import price_key, read_catalogue
from spotlab_pipelines.market.fetching import bring_prices, zones_of
from spotlab_pipelines.market.fitting import wanted_market
from spotlab_pipelines.market.layout import SPOT_PRICES as SOURCE
from spotlab_pipelines.market.publish import Envelope, withdraw
from spotlab_pipelines.market.publish_prices import Pair, look_up, publish_prices
from spotlab_pipelines.market.records import Cover
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

FRESH_SHARE = 0.5
"""A cached family is fetched again when it is older than this share of its time to live: it must still be fresh when
the evaluation reads it."""

OVERTAKEN_TRIES = 5
"""How often a family is scraped again because another account published a wider value of it meanwhile."""


def scrape_prices(
    settings: Settings,
    sessions: AccountSessions,
    engine: sa.Engine,
    redis: redis_client.Redis,
    archive: Archive,
    account_id: str,
) -> ScrapeReport:
    """Fetch the price history of the families that the account's fleet runs in or could run in.

    All regions are fetched and validated before anything is written: one that fails leaves the archive and Redis as
    they were. In the archive each region with changes that are new has its own file; with several, `archive_path` has a
    * for the region.

    A family of which another account published more while this scrape was reading it is left to that account's value.
    If that one lacks something that we want, the family is scraped once more, in a scrape of its own; the report is the
    last one's.

    Raises:
        MarketDataMissing, MarketDataStale: the instance catalogue, which says what fits, is not there.
        AccessDenied, Throttled, SourceUnavailable, PageLoop: a region could not be read.
        SourceMalformed: a price or a time that cannot be; pool and row are named.
        SettingsError: the account is in another AWS partition than the catalogue.
        StoreUnavailable: a store does not answer, or others publish the same families without end.
    """
    for _ in range(OVERTAKEN_TRIES):
        report, done = _scrape_once(settings, sessions, engine, redis, archive, account_id)
        if done:
            return report
    raise StoreUnavailable(
        f"Expected to publish the prices that account {account_id} wants, but other accounts' scrapes came in between"
        f" {OVERTAKEN_TRIES} times.",
        remedy="Scrape again; if it lasts, let fewer accounts be evaluated at the same moment.",
    )


def _scrape_once(
    settings: Settings,
    sessions: AccountSessions,
    engine: sa.Engine,
    redis: redis_client.Redis,
    archive: Archive,
    account_id: str,
) -> tuple[ScrapeReport, bool]:
    """One scrape, and whether Redis then held all that the account wants."""
    account = get_account(engine, account_id)
    with recorded(engine, SOURCE, account_id=account_id) as record:
        wanted = _wanted(settings, engine, redis, account_id, record.fetched_at)
        zones = zones_of(sessions, account, {region for region, _ in wanted})
        lacking = _lacking(settings, redis, wanted, zones, record.fetched_at)
        covered = lacking.cover
        since = record.fetched_at - settings.price_window
        brought = bring_prices(
            settings, sessions, account, archive, covered, zones=zones, since=since, now=record.fetched_at
        )
        record.keep_parts(archive, brought.new.by_region())
        record.undo_with(partial(withdraw, redis, record.id, price_key("*", "*")))
        overtaken = publish_prices(
            redis,
            brought.known.frame(),
            Envelope(SOURCE, str(record.id), record.fetched_at),
            ttl_s=settings.price_history_ttl_s,
            since=since,
            covered=covered,
            zones={pair: lacking.zones[pair] | dict.fromkeys(zones[pair[0]], record.fetched_at) for pair in covered},
        )
        record.covers(archive, brought.entries(covered, unpublished=overtaken))
    left = _lacking(settings, redis, {key: wanted[key] for key in overtaken}, zones, record.fetched_at)
    report = record.report(
        brought.new.frame(),
        oldest=lacking.oldest,
        account_id=account_id,
        regions=sorted({region for region, _ in wanted}),
        families_fetched=len(covered),
        families_overtaken=len(overtaken),
        families_reused=len(wanted) - len(covered),
        pools=len(brought.known.pools),
        listings=brought.listings,
        window_start=since.isoformat(),
    )
    return report, not left.cover


def collect_prices(
    settings: Settings, sessions: AccountSessions, engine: sa.Engine, archive: Archive, account: Account, cover: Cover
) -> ScrapeReport:
    """Bring to the archive what it lacks of `cover`, without publishing it: for those who look further back.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed, StoreUnavailable: as in `scrape_prices`.
    """
    with recorded(engine, SOURCE, account_id=account.account_id) as record:
        now = record.fetched_at
        zones = zones_of(sessions, account, {region for region, _ in cover})
        brought = bring_prices(settings, sessions, account, archive, cover, zones=zones, since=now, now=now)
        record.keep_parts(archive, brought.new.by_region())
        record.covers(archive, brought.entries(cover, unpublished=cover))
    return record.report(brought.new.frame(), account_id=account.account_id, listings=brought.listings)


def _wanted(settings: Settings, engine: sa.Engine, redis: redis_client.Redis, account_id: str, now: datetime) -> Cover:
    """What the account's fleet wants, with the products that settings name in any case."""
    fleet = load_fleet(engine, account_id)
    if fleet.empty:
        return {}
    catalogue = read_catalogue(redis, settings, now=now)
    _check_partition(account_id, fleet["region"].unique(), catalogue.on_demand["region"].unique())
    wanted = wanted_market(fleet, catalogue.types, settings.flexibility_factor)
    cover: Cover = {}
    for region, families in wanted.families.items():
        products = tuple(sorted({*wanted.products[region], *settings.products}))
        for family in families:
            types = tuple(name for name in wanted.types[region] if name.partition(".")[0] == family)
            cover[region, family] = (types, products)
    return cover


def _check_partition(account_id: str, regions: Iterable[str], catalogue_regions: Iterable[str]) -> None:
    """Refuse an account whose instances no catalogue describes: each of its pools would lack an on-demand price."""
    covered = sorted({partition_of(region) for region in catalogue_regions})
    elsewhere = sorted(region for region in regions if partition_of(region) not in covered)
    if covered and elsewhere:
        partition = partition_of(elsewhere[0])
        raise SettingsError(
            f"The instance catalogue covers AWS's partition {', '.join(covered)} only; account {account_id} has"
            f" instances in {', '.join(elsewhere)}, which is in {partition}.",
            remedy=f"Give the accounts of {partition} a laboratory of their own, with one of them as"
            " SPOTLAB_CATALOGUE_ACCOUNT_ID.",
        )


@dataclass(frozen=True)
class Lacking:
    """What Redis lacks of an account's prices.

    Attributes:
        cover: each with all that accounts want of it: what replaces a value must not take from others what they use.
        zones: for each, when the value's prices of zones were fetched, those that the account does not see included.
        oldest: when the oldest of what Redis does not lack was fetched; the present if there is none.
    """

    cover: Cover
    zones: dict[Pair, dict[str, datetime]]
    oldest: datetime


def _lacking(
    settings: Settings,
    redis: redis_client.Redis,
    wanted: Cover,
    zones: Mapping[str, Collection[str]],
    now: datetime,
) -> Lacking:
    """Those of `wanted` that Redis does not hold fresh: for the whole window, all types, products and zones."""
    lacking: Cover = {}
    fetched: dict[Pair, dict[str, datetime]] = {}
    oldest = now
    ttl_s = settings.price_history_ttl_s
    readable_since = now - timedelta(seconds=ttl_s)
    fresh_since = now - timedelta(seconds=FRESH_SHARE * ttl_s)
    found = look_up(redis, wanted, now=now, ttl_s=ttl_s) if wanted else {}
    for pair, (held, wishes) in found.items():
        if (
            held is not None
            and held.includes(*wanted[pair])
            and held.fetched_at >= fresh_since
            and held.fetched_at - held.since >= settings.price_window
            and all(held.zones.get(name, readable_since) >= fresh_since for name in zones[pair[0]])
        ):
            oldest = min(oldest, held.fetched_at)
            continue
        lacking[pair] = (tuple(sorted(wishes.types)), tuple(sorted(wishes.products)))
        readable = held is not None and held.fetched_at >= readable_since
        fetched[pair] = dict(held.zones) if held is not None and readable else {}
    return Lacking(lacking, fetched, oldest)
