"""The instance catalogue's scrape: every type in the accounts' regions, with on-demand prices by region and OS."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.access import MARKED_STATES
from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.registry import Account, get_account, list_accounts
from spotlab_pipelines.accounts.rules import partition_of
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import NotFound, SourceMalformed
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import metadata_key
from spotlab_pipelines.market.fitting import Wanted, fitting_types, wanted_market
from spotlab_pipelines.market.frames import PRICING_OS
from spotlab_pipelines.market.parse import on_demand_attributes, parse_instance_types, parse_price_list
from spotlab_pipelines.market.pricing import CURRENCIES, pricing_region
from spotlab_pipelines.market.publish import Envelope, publish_catalogue, withdraw
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

__all__ = [
    "Wanted",
    "fitting_types",
    "parse_instance_types",
    "parse_price_list",
    "scrape_catalogue",
    "wanted_market",
]

SOURCE = "instance_catalogue"
PARALLEL_CALLS = 8


def scrape_catalogue(
    settings: Settings, sessions: AccountSessions, engine: sa.Engine, redis: redis_client.Redis, archive: Archive
) -> ScrapeReport:
    """Fetch types and on-demand prices through one account's session, archive them, and replace them in Redis.

    The account is settings.catalogue_account_id or the first active one; the regions are those of all active accounts
    in its partition. Accounts of another partition find no catalogue; the scrape of their prices says so. GovCloud has
    no price list within reach: its on-demand prices are estimated where Spot and the Advisor allow (fallback.py).

    Raises:
        NotFound: there is no active account.
        AccessDenied, Throttled, SourceUnavailable: AWS does not let the account read.
        SourceMalformed: AWS answers with another shape or with nothing; what is in Redis and the archive stays.
    """
    account = _catalogue_account(settings, engine)
    partition = partition_of(account.regions[0])
    everywhere = {region for other in list_accounts(engine) for region in other.regions} | set(account.regions)
    regions = sorted(region for region in everywhere if partition_of(region) == partition)
    asked_in = pricing_region(settings.pricing_region, partition)
    with recorded(engine, SOURCE, account_id=account.account_id) as record:
        with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
            listings = pool.map(lambda region: _instance_types(sessions, account, region), regions)
            markets = [(region, os) for region in regions for os in PRICING_OS.values()] if asked_in else []
            lists = pool.map(lambda market: _price_list(sessions, account, *market, asked_in=str(asked_in)), markets)
            types = parse_instance_types(item for listing in listings for item in listing)
            on_demand = all_prices([*lists], regions)
        merged = types.merge(on_demand, on="instance_type", how="left")
        record.keep(archive, merged)
        record.undo_with(partial(withdraw, redis, record.id, metadata_key("*")))
        publish_catalogue(
            redis,
            types,
            on_demand[on_demand["instance_type"].isin(types["instance_type"])],
            Envelope(SOURCE, str(record.id), record.fetched_at),
            ttl_s=settings.instance_metadata_ttl_s,
        )
    return record.report(
        merged,
        account_id=account.account_id,
        regions=regions,
        price_list=f"asked in {asked_in}" if asked_in else f"none in {partition}; on-demand prices are estimated",
        instance_types=len(types),
        on_demand_prices=len(on_demand),
        types_without_price=int((~types["instance_type"].isin(on_demand["instance_type"])).sum()),
    )


def _catalogue_account(settings: Settings, engine: sa.Engine) -> Account:
    if settings.catalogue_account_id:
        return get_account(engine, settings.catalogue_account_id)
    active = list_accounts(engine)
    if not active:
        raise NotFound(
            "The instance catalogue is read with an account's session, and no account is active.",
            remedy="Register one with `spotlab accounts add`.",
        )
    # One account that is shut or lax must not take the catalogue from all the others.
    return next((account for account in active if account.access_state not in MARKED_STATES), active[0])


def _instance_types(sessions: AccountSessions, account: Account, region: str) -> list[Any]:
    client = sessions.get_ec2_client(account.account_id, region)
    with aws_errors(f"DescribeInstanceTypes of account {account.account_id} in {region}", account):
        pages = paginate(client.describe_instance_types, "InstanceTypes", max_pages=sessions.max_pages, MaxResults=100)
        return list(pages)


def all_prices(lists: Sequence[pd.DataFrame], regions: Sequence[str]) -> pd.DataFrame:
    """The price lists of some regions as one frame: empty if there was nowhere to ask.

    Raises:
        SourceMalformed: AWS was asked and told no price at all.
    """
    on_demand = pd.concat(lists, ignore_index=True) if lists else parse_price_list([], region="", os="Linux")
    if lists and on_demand.empty:
        raise SourceMalformed(
            f"Price list: expected on-demand prices in {', '.join(regions)}, got none.",
            remedy="Check SPOTLAB_PRICING_REGION.",
        )
    return on_demand


def _price_list(sessions: AccountSessions, account: Account, region: str, os: str, *, asked_in: str) -> pd.DataFrame:
    client = sessions.get_pricing_client(account.account_id, asked_in)
    wanted = on_demand_attributes(region, os)
    with aws_errors(f"GetProducts of account {account.account_id} for {os} in {region}", account):
        pages = paginate(
            client.get_products,
            "PriceList",
            max_pages=sessions.max_pages,
            ServiceCode="AmazonEC2",
            FormatVersion="aws_v1",
            MaxResults=100,
            Filters=[{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()],
        )
        return parse_price_list(list(pages), region=region, os=os, currency=CURRENCIES[partition_of(region)])
