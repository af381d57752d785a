"""What an evaluation reads, frozen to the archive before anything is predicted, and its features.

The snapshot holds all that the features and decisions are computed from, so that they can be computed again bit for
bit. The arithmetic is windows.py's and engine.py's; what is fresh enough is the market's to judge.

Two times are told apart. An evaluation's window_start is its key and nothing else: a scheduled one lies up to an
interval before the evaluation begins, and more if that is late. What prices are looked at from is `as_of`, the time of
the newest price scrape that was read: until then every one of them knows its prices, or carries its last one forward.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.accounts.fleet import load_fleet
from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.frames import check_pools
from spotlab_pipelines.features.windows import PriceHistory, pool_codes
from spotlab_pipelines.market.cache import Market, read_catalogue, read_market, stale_sources
from spotlab_pipelines.market.fallback import BY_OS, on_demand_of
from spotlab_pipelines.market.fitting import fitting_types, wanted_market
from spotlab_pipelines.market.frames import ESTIMATED_PRICE, POOL_KEY, family_of, joined
from spotlab_pipelines.market.prices import SOURCE as PRICE_SOURCE

if TYPE_CHECKING:
    import redis as redis_client
    import sqlalchemy as sa

    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

SERVED_SPEC = "v1"
"""The feature spec that evaluations compute."""


@dataclass(frozen=True)
class SnapshotReport:
    """What `freeze_snapshot` froze and computed.

    Attributes:
        estimated_on_demand: pools whose on-demand price is estimated from the Advisor's saving.
        data_age_s: age of the oldest value that was read.
        stale_sources: source -> why there is no newer one, of what was read although a newer scrape failed.
    """

    account_id: str
    window_start: datetime
    snapshot_id: str
    feature_version: str
    instances: int
    pools: int
    features: int
    excluded: dict[str, int]
    estimated_on_demand: int
    data_age_s: float
    stale_sources: dict[str, str]
    timings_ms: dict[str, float]
    preview: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class FeatureInputs:
    """The numbers besides the market that features depend on; kept in the snapshot.

    `as_of` is a function of what was read, not of the evaluation or of the clock: two evaluations that read the same
    have the same snapshot.
    """

    feature_version: str
    as_of: str
    price_window_s: float
    open_bucket_rate: float
    flexibility_factor: float


def freeze_snapshot(
    settings: Settings, engine: sa.Engine, redis: redis_client.Redis, archive: Archive, key: EvaluationKey
) -> SnapshotReport:
    """Read the account's fleet and market, freeze both, and write the tables `instances`, `pools`, `features`,
    `exclusions` and `fits` of the evaluation.

    Prices are those of the newest price scrape that was read (see `priced_at`), however early the window began, so that
    current prices are current and the window before them is whole. Ages are judged by the clock, not by window_start:
    an evaluation that is late neither takes values for fresh that were so when its window began, nor refuses those that
    have been fetched since.

    Raises:
        MarketDataMissing, MarketDataStale: the cache lacks what the fleet wants; nothing was written.
        FeatureOutOfRange: the market says what no market can; the snapshot is kept, no table is written.
        StoreUnavailable: Postgres, Redis or the archive does not answer.
    """
    started = time.perf_counter()
    fleet = load_fleet(engine, key.account_id)
    now = datetime.now(UTC)
    catalogue = read_catalogue(redis, settings, now=now)
    wanted = wanted_market(fleet, catalogue.types, settings.flexibility_factor)
    market = read_market(redis, settings, now=now, wanted=wanted, catalogue=catalogue)
    as_of = priced_at(market.sources, without_prices=key.window_start)
    read = time.perf_counter()

    inputs = FeatureInputs(
        feature_version=SERVED_SPEC,
        as_of=as_of.isoformat(),
        price_window_s=settings.price_window.total_seconds(),
        open_bucket_rate=settings.open_bucket_rate,
        flexibility_factor=settings.flexibility_factor,
    )
    snapshot_id = archive.write_snapshot(_snapshot_frames(fleet, market), {**asdict(inputs), "account": key.account_id})
    frozen = time.perf_counter()

    pools = check_pools(pools_at(market, fleet, as_of=as_of, window=settings.price_window))
    features, exclusions = compute_features(pools, SERVED_SPEC, open_bucket_rate=settings.open_bucket_rate)
    computed = time.perf_counter()

    timings = {
        "market": _ms(read - started),
        "snapshot": _ms(frozen - read),
        "features": _ms(computed - frozen),
    }
    metadata = {"snapshot_id": snapshot_id, "feature_version": SERVED_SPEC}
    fits = fitting_types(market.catalogue, fleet["instance_type"].unique(), settings.flexibility_factor)
    tables = {"instances": fleet, "pools": pools, "exclusions": exclusions, "fits": fits}
    for table, frame in tables.items():
        archive.write_table(table, key, frame, metadata)
    archive.write_table("features", key, features, {**metadata, "timings_ms": timings})
    return SnapshotReport(
        account_id=key.account_id,
        window_start=key.window_start,
        snapshot_id=snapshot_id,
        feature_version=SERVED_SPEC,
        instances=len(fleet),
        pools=len(pools),
        features=len(features),
        excluded={str(reason): int(count) for reason, count in exclusions["reason"].value_counts().items()},
        estimated_on_demand=int((pools["price_source"] == ESTIMATED_PRICE).sum()),
        data_age_s=_oldest(market, now),
        stale_sources=stale_sources(market.sources),
        timings_ms=timings,
        preview=features.head(10),
    )


@dataclass(frozen=True)
class Recomputed:
    """The tables of an evaluation, computed again from its snapshot: what freeze_snapshot wrote of them."""

    feature_version: str
    instances: pd.DataFrame
    pools: pd.DataFrame
    features: pd.DataFrame
    exclusions: pd.DataFrame
    fits: pd.DataFrame


def recompute(archive: Archive, snapshot_id: str) -> Recomputed:
    """Compute the tables of a snapshot again, from the archive alone.

    Raises:
        NotFound: no such snapshot.
        IntegrityError: it is not what its id says.
    """
    frames, inputs = archive.read_snapshot(snapshot_id)
    fleet, market = frames["instances"], _market_of(frames)
    as_of, window = datetime.fromisoformat(inputs["as_of"]), timedelta(seconds=inputs["price_window_s"])
    pools = check_pools(pools_at(market, fleet, as_of=as_of, window=window))
    features, exclusions = compute_features(
        pools, inputs["feature_version"], open_bucket_rate=inputs["open_bucket_rate"]
    )
    return Recomputed(
        feature_version=inputs["feature_version"],
        instances=fleet,
        pools=pools,
        features=features,
        exclusions=exclusions,
        fits=fitting_types(market.catalogue, fleet["instance_type"].unique(), inputs["flexibility_factor"]),
    )


def recompute_features(archive: Archive, snapshot_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features and exclusions of a snapshot, computed again from the archive alone; see `recompute`."""
    recomputed = recompute(archive, snapshot_id)
    return recomputed.features, recomputed.exclusions


def priced_at(sources: pd.DataFrame, *, without_prices: datetime) -> datetime:
    """When the newest of the price scrapes among `sources` was fetched: the instant from which prices are looked at.

    Of an older scrape among them the last prices are carried forward; its window is whole, since it begins earlier.

    Args:
        sources: source, scrape_id, fetched_at, keys: what a market was read from.
        without_prices: the answer where no price was wanted and none was read, as with an empty fleet.
    """
    fetched_at = sources["fetched_at"][sources["source"] == PRICE_SOURCE]
    return without_prices if fetched_at.empty else fetched_at.max().to_pydatetime()


def pools_at(market: Market, fleet: pd.DataFrame, *, as_of: datetime, window: timedelta) -> pd.DataFrame:
    """The pools frame of a market as read from the cache."""
    history = PriceHistory.from_coded(market.pools, market.pool_of_change, market.prices)
    return assemble_pools(history.window_at(as_of, window), fleet, advisor=market.advisor, on_demand=market.on_demand)


def assemble_pools(
    windows: pd.DataFrame, fleet: pd.DataFrame, *, advisor: pd.DataFrame, on_demand: pd.DataFrame
) -> pd.DataFrame:
    """Join price windows, Advisor and on-demand prices to one row a pool; pure.

    Pools are those with a price and those that the fleet is in, so that an instance whose pool has no price is
    excluded by name. What is unknown is NaN.

    Args:
        windows: what `price_windows` gives.
        fleet: pool key columns; may be empty.
        advisor: Advisor rows. on_demand: on-demand rows.
    """
    ids, fleet_ids = joined(windows, POOL_KEY), joined(fleet, POOL_KEY)
    unpriced = (ids.get_indexer(fleet_ids) < 0) & ~fleet_ids.duplicated()
    pools = pd.concat([windows, fleet.loc[unpriced, list(POOL_KEY)]], ignore_index=True) if unpriced.any() else windows
    price, price_source = on_demand_of(pools, on_demand=on_demand, advisor=advisor)
    product, products = pd.factorize(pools["product"])
    advised_os = pd.Series(["Windows" if name == "Windows" else "Linux" for name in products], dtype="str").array.take(
        product
    )
    advisor_row = joined(advisor, BY_OS).get_indexer(joined(pools.assign(os=advised_os), BY_OS))
    return pd.DataFrame(
        {
            "region": pools["region"],
            "instance_type": pools["instance_type"],
            "family": family_of(pools["instance_type"]),
            "az_id": pools["az_id"],
            "product": pools["product"],
            "spot_price_usd_per_hour": pools["spot_price_usd_per_hour"],
            "price_min_usd_per_hour": pools["price_min_usd_per_hour"],
            "price_max_usd_per_hour": pools["price_max_usd_per_hour"],
            "price_changes": pools["price_changes"].fillna(0).astype("int64"),
            "price_changed_at": pools["price_changed_at"],
            "on_demand_usd_per_hour": price,
            "price_source": price_source,
            "interrupt_rate_min": _taken(advisor, "interrupt_rate_min", advisor_row),
            "interrupt_rate_max": _taken(advisor, "interrupt_rate_max", advisor_row),
        }
    )


def _snapshot_frames(fleet: pd.DataFrame, market: Market) -> dict[str, pd.DataFrame]:
    return {
        "instances": fleet,
        "prices": market.prices,
        "advisor": market.advisor,
        "catalogue": market.catalogue,
        "on_demand": market.on_demand,
        "sources": market.sources,
    }


def _market_of(frames: dict[str, pd.DataFrame]) -> Market:
    """The market that a snapshot froze."""
    code, pools = pool_codes(frames["prices"])
    names = ("prices", "advisor", "catalogue", "on_demand", "sources")
    return Market(pools=pools, pool_of_change=code, **{name: frames[name] for name in names})


def _taken(frame: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    return np.append(frame[column].to_numpy(dtype=float), np.nan)[rows]


def _oldest(market: Market, now: datetime) -> float:
    if market.sources.empty:
        return 0.0
    return float((pd.Timestamp(now) - market.sources["fetched_at"].min()).total_seconds())


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
