"""What the archive lacks of price histories, fetched from EC2: the listings, side by side, and what of them is new.

The first listing of a type and product goes back as far as AWS keeps prices, a later one to the newest scrape that
asked for it, and a little before that, since rows may come late. Who wants what, and what the cache holds, is
prices.py's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.zones import availability_zones
from spotlab_pipelines.market.changes import Changes, concatenated, merged
from spotlab_pipelines.market.frames import check_prices, family_of
from spotlab_pipelines.market.history import covered
from spotlab_pipelines.market.parse import CLOCK_SKEW, parse_price_history
from spotlab_pipelines.market.reading import read_changes
from spotlab_pipelines.market.records import Cover, RecordEntry, covered_until, whole_scrapes

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.registry import Account
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

PARALLEL_CALLS = 8
TYPES_PER_LISTING = 40

Zones = Mapping[str, Collection[str]]
"""Region -> the zone ids that an account sees there."""
Starts = Mapping[tuple[str, str, str], datetime]
"""(region, type, product) -> from when on prices are asked for."""


@dataclass(frozen=True)
class Listing:
    """One call, with its pages: the prices of some types and products in one region since `start`."""

    region: str
    types: tuple[str, ...]
    products: tuple[str, ...]
    start: datetime


@dataclass(frozen=True)
class Brought:
    """What `bring_prices` found.

    Attributes:
        new: changes that the archive does not have.
        known: all that is known of the window, with each pool's last change before it.
        starts: from when on each type and product was asked for.
        zones: the zone ids that the account sees, by region: those that were asked for.
        listings: how many there were.
    """

    new: Changes
    known: Changes
    starts: Starts
    zones: Zones
    listings: int

    def entries(self, cover: Cover, *, unpublished: Collection[tuple[str, str]]) -> list[RecordEntry]:
        """The rows of the scrape's record."""
        family = family_of(self.new.pools["instance_type"])
        counts = np.bincount(self.new.pool, minlength=len(self.new.pools))
        rows: dict[tuple[str, str], int] = defaultdict(int)
        for region, name, count in zip(self.new.pools["region"], family, counts.tolist(), strict=True):
            rows[region, name] += count
        return [
            RecordEntry(
                region,
                rows[region, name],
                family=name,
                types=types,
                products=products,
                zones=tuple(sorted(self.zones[region])),
                since=max(self.starts[region, one, product] for one in types for product in products),
                published=(region, name) not in unpublished,
            )
            for (region, name), (types, products) in cover.items()
        ]


def zones_of(sessions: AccountSessions, account: Account, regions: Collection[str]) -> Zones:
    """The zone ids that the account sees in these regions; errors as in `bring_prices`."""
    names = sorted(regions)
    with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
        found = pool.map(lambda region: availability_zones(sessions, account.account_id, region), names)
        return {region: frozenset(zones.values()) for region, zones in zip(names, found, strict=True)}


def bring_prices(
    settings: Settings,
    sessions: AccountSessions,
    account: Account,
    archive: Archive,
    cover: Cover,
    *,
    zones: Zones,
    since: datetime,
    now: datetime,
) -> Brought:
    """Fetch what the archive lacks of `cover` up to `now`; nothing is written.

    Args:
        zones: see `zones_of`.
        since: start of the window that is to be known.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop: a listing could not be read.
        SourceMalformed: a price or a time that cannot be; pool and row are named.
        StoreUnavailable: the archive does not answer.
    """
    regions = sorted({region for region, _ in cover})
    whole = whole_scrapes(archive, now=now, settle=settings.archive_settle)
    starts = _starts(settings, archive, cover, zones, now)
    with ThreadPoolExecutor(PARALLEL_CALLS) as pool:

        def archived(region: str) -> Changes:
            types = {name for (place, _), (types, _) in cover.items() if place == region for name in types}
            start = min([since, *(start for (place, *_), start in starts.items() if place == region)])
            changes = covered(read_changes(archive, region, types, counts=whole), cover)
            return changes.in_force(start, now + CLOCK_SKEW)

        listings = group_listings(starts)
        fetching = [pool.submit(_fetch, sessions, account, listing, now) for listing in listings]
        reading = [pool.submit(archived, region) for region in regions]
        fetched = merged([concatenated([]), *(task.result() for task in fetching)])
        held = concatenated([task.result() for task in reading])
    return Brought(
        new=fetched.not_in(held),
        known=merged([held, fetched]).in_force(since, now + CLOCK_SKEW),
        starts=starts,
        zones=zones,
        listings=len(listings),
    )


def _starts(
    settings: Settings, archive: Archive, cover: Cover, zones: Zones, now: datetime
) -> dict[tuple[str, str, str], datetime]:
    """From when on each (region, type, product) is to be asked for.

    Full hours, so that what several scrapes have covered within an hour is one listing.
    """
    oldest = now - timedelta(days=settings.price_history_days)
    wanted = {key: (*asked, zones[key[0]]) for key, asked in cover.items()}
    known = covered_until(archive, wanted, until=now, since=oldest) if cover else {}
    overlap = timedelta(seconds=settings.price_overlap_s)
    starts = {}
    for (region, _), (types, products) in cover.items():
        for name in types:
            for product in products:
                last = known.get((region, name, product))
                hour = oldest if last is None else (last - overlap).replace(minute=0, second=0, microsecond=0)
                starts[region, name, product] = max(hour, oldest)
    return starts


def group_listings(starts: Starts) -> list[Listing]:
    """Group what is to be read by region, start and products, in listings short enough to run side by side."""
    products: dict[tuple[str, str, datetime], list[str]] = defaultdict(list)
    for (region, name, product), start in starts.items():
        products[region, name, start].append(product)
    types: dict[tuple[str, datetime, tuple[str, ...]], list[str]] = defaultdict(list)
    for (region, name, start), asked in products.items():
        types[region, start, tuple(sorted(asked))].append(name)
    return [
        Listing(region, tuple(names[first : first + TYPES_PER_LISTING]), asked, start)
        for (region, start, asked), names in types.items()
        for first in range(0, len(names), TYPES_PER_LISTING)
    ]


def _fetch(sessions: AccountSessions, account: Account, listing: Listing, end: datetime) -> Changes:
    """The changes in [start, end] of a listing and each pool's last change before `start`."""
    client = sessions.get_ec2_client(account.account_id, listing.region)
    what = f"DescribeSpotPriceHistory of account {account.account_id} in {listing.region}"
    with aws_errors(what, account):
        pages = paginate(
            client.describe_spot_price_history,
            "SpotPriceHistory",
            max_pages=sessions.max_pages,
            InstanceTypes=list(listing.types),
            ProductDescriptions=list(listing.products),
            StartTime=listing.start,
            EndTime=end,
            MaxResults=1000,
        )
        rows: Sequence[Mapping[str, Any]] = list(pages)
    named = {row.get("AvailabilityZone", "") for row in rows}
    zones = availability_zones(sessions, account.account_id, listing.region, naming=named)
    return Changes.of(check_prices(parse_price_history(rows, region=listing.region, zone_ids=zones, now=end), what))
