"""What an evaluation reads, frozen to the archive before anything is predicted, and its features.

The snapshot holds all that the features and decisions are computed from, so that they can be computed again bit for
bit. The arithmetic is tables.py's; what is fresh enough is the market's to judge.

Two times are told apart. An evaluation's window_start is its key and nothing else: a scheduled one lies up to an
interval before the evaluation begins, and more if that is late. What prices are looked at from is `as_of`, the time of
the newest price scrape that was read: until then every one of them knows its prices, or carries its last one forward.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import load_fleet
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.features.specs import SPECS
from spotlab_pipelines.features.tables import (
    MARKET_SPEC,
    FeatureInputs,
    FeatureTables,
    feature_table,
    feature_tables,
    needs_observations,
)
from spotlab_pipelines.features.windows import pool_codes
from spotlab_pipelines.market.cache import Market, read_catalogue, read_market, stale_sources
from spotlab_pipelines.market.fitting import wanted_market
from spotlab_pipelines.market.frames import ESTIMATED_PRICE, among
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS, SPOT_PRICES

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings


NEEDED_SPECS = sa.text("""
    select distinct feature_spec from model_registry
    where feature_spec <> :market and (role <> 'none' or version = any(cast(:assigned as text[])))
    order by feature_spec
""")


@dataclass(frozen=True)
class SnapshotReport:
    """What `freeze_snapshot` froze and computed.

    Attributes:
        more_features: rows by spec, of the specs that versions need besides `feature_version`.
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
    more_features: dict[str, int]
    excluded: dict[str, int]
    estimated_on_demand: int
    data_age_s: float
    stale_sources: dict[str, str]
    timings_ms: dict[str, float]
    preview: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class Seen:
    """What one evaluation sees.

    Attributes:
        as_of: the instant from which prices are looked at.
        now: the present, against which the ages of what was read are told.
        more_specs: the specs that versions need besides MARKET_SPEC, see `needed_specs`.
        marks: what else the snapshot and the evaluation shall say of themselves; JSON-able.
    """

    fleet: pd.DataFrame
    market: Market
    as_of: datetime
    now: datetime
    more_specs: tuple[str, ...] = ()
    marks: dict[str, Any] = field(default_factory=dict)


def freeze_snapshot(
    settings: Settings, engine: sa.Engine, redis: redis_client.Redis, archive: Archive, key: EvaluationKey
) -> SnapshotReport:
    """Read the account's fleet and market, freeze both, and write the tables `instances`, `pools`, `features`,
    `exclusions` and `fits` of the evaluation, and one more of features for each further spec that a version needs.

    Prices are those of the newest price scrape that was read (see `priced_at`), however early the window began, so that
    current prices are current and the window before them is whole. Ages are judged by the clock, not by window_start:
    an evaluation that is late neither takes values for fresh that were so when its window began, nor refuses those that
    have been fetched since. Observations of pools are read, and frozen, only if a version looks at them.

    Raises:
        MarketDataMissing, MarketDataStale: the cache lacks what the fleet wants; nothing was written.
        FeatureOutOfRange: the market says what no market can; the snapshot is kept, no table is written.
        StoreUnavailable: Postgres, Redis or the archive does not answer.
    """
    started = time.perf_counter()
    fleet = load_fleet(engine, key.account_id)
    more_specs = needed_specs(engine, fleet["assigned_version"])
    now = datetime.now(UTC)
    catalogue = read_catalogue(redis, settings, now=now)
    wanted = wanted_market(fleet, catalogue.types, settings.flexibility_factor)
    observed = needs_observations(more_specs)
    market = read_market(redis, settings, now=now, wanted=wanted, catalogue=catalogue, observations=observed)
    as_of = priced_at(market.sources, without_prices=key.window_start)
    seen = Seen(fleet, market, as_of=as_of, now=now, more_specs=more_specs)
    return freeze(settings, archive, key, seen, read_ms=_ms(time.perf_counter() - started))


def freeze(settings: Settings, archive: Archive, key: EvaluationKey, seen: Seen, *, read_ms: float) -> SnapshotReport:
    """Freeze what was seen and write the evaluation's tables; see `freeze_snapshot`, also for the errors."""
    read = time.perf_counter()
    inputs = FeatureInputs(
        feature_version=MARKET_SPEC,
        as_of=seen.as_of.isoformat(),
        price_window_s=settings.price_window.total_seconds(),
        open_bucket_rate=settings.open_bucket_rate,
        flexibility_factor=settings.flexibility_factor,
        observed_as_of=_observed_at(seen.market.sources, as_of=seen.as_of).isoformat(),
        more_specs=seen.more_specs,
    )
    snapshot_id = archive.write_snapshot(
        _snapshot_frames(seen.fleet, seen.market), {**inputs.metadata(), "account": key.account_id, **seen.marks}
    )
    frozen = time.perf_counter()
    tables = feature_tables(seen.market, seen.fleet, inputs)
    timings = {"market": read_ms, "snapshot": _ms(frozen - read), "features": _ms(time.perf_counter() - frozen)}
    _write_tables(archive, key, seen, tables, snapshot_id=snapshot_id, timings=timings)
    return SnapshotReport(
        account_id=key.account_id,
        window_start=key.window_start,
        snapshot_id=snapshot_id,
        feature_version=MARKET_SPEC,
        instances=len(seen.fleet),
        pools=len(tables.pools),
        features=len(tables.features),
        more_features={spec: len(tables.by_spec[spec]) for spec in seen.more_specs},
        excluded=dict(Counter(tables.exclusions["reason"]).most_common()),
        estimated_on_demand=int(among(tables.pools["price_source"], [ESTIMATED_PRICE]).sum()),
        data_age_s=_oldest(seen.market, seen.now),
        stale_sources=stale_sources(seen.market.sources),
        timings_ms=timings,
        preview=tables.features.head(10),
    )


def needed_specs(engine: sa.Engine, assigned: pd.Series) -> tuple[str, ...]:
    """The feature specs, besides MARKET_SPEC, of the versions that an evaluation scores: those with a role, and those
    that an instance is assigned to. A version whose spec this code does not know fails by itself, when it is scored."""
    values = {"market": MARKET_SPEC, "assigned": assigned.dropna().unique().tolist()}
    with database_errors(), engine.connect() as connection:
        return tuple(spec for spec in connection.scalars(NEEDED_SPECS, values) if spec in SPECS)


def _write_tables(
    archive: Archive,
    key: EvaluationKey,
    seen: Seen,
    tables: FeatureTables,
    *,
    snapshot_id: str,
    timings: dict[str, float],
) -> None:
    metadata = {"snapshot_id": snapshot_id, "feature_version": MARKET_SPEC}
    plain = {"instances": seen.fleet, "pools": tables.pools, "exclusions": tables.exclusions, "fits": tables.fits}
    for table, frame in plain.items():
        archive.write_table(table, key, frame, metadata)
    for spec in seen.more_specs:
        archive.write_table(feature_table(spec), key, tables.by_spec[spec], metadata | {"feature_version": spec})
    # The last one: who finds it finds all the others.
    archive.write_table(
        feature_table(MARKET_SPEC), key, tables.features, {**metadata, **seen.marks, "timings_ms": timings}
    )


@dataclass(frozen=True)
class Recomputed:
    """The tables of an evaluation, computed again from its snapshot: what freeze_snapshot wrote of them."""

    feature_version: str
    instances: pd.DataFrame
    tables: FeatureTables


def recompute(archive: Archive, snapshot_id: str) -> Recomputed:
    """Compute the tables of a snapshot again, from the archive alone.

    Raises:
        NotFound: no such snapshot.
        IntegrityError: it is not what its id says.
    """
    frames, metadata = archive.read_snapshot(snapshot_id)
    inputs = FeatureInputs.from_metadata(metadata)
    tables = feature_tables(_market_of(frames), frames["instances"], inputs)
    return Recomputed(feature_version=inputs.feature_version, instances=frames["instances"], tables=tables)


def recompute_features(archive: Archive, snapshot_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features and exclusions of a snapshot, computed again from the archive alone; see `recompute`."""
    recomputed = recompute(archive, snapshot_id)
    return recomputed.tables.features, recomputed.tables.exclusions


def priced_at(sources: pd.DataFrame, *, without_prices: datetime) -> datetime:
    """When the newest of the price scrapes among `sources` was fetched: the instant from which prices are looked at.

    Of an older scrape among them the last prices are carried forward; its window is whole, since it begins earlier.

    Args:
        sources: source, scrape_id, fetched_at, keys: what a market was read from.
        without_prices: the answer where no price was wanted and none was read, as with an empty fleet.
    """
    return max(_fetched(sources, SPOT_PRICES), default=without_prices)


def _observed_at(sources: pd.DataFrame, *, as_of: datetime) -> datetime:
    """The newest scrape of observations that was read, or `as_of` if that is later: where specs beyond v1 look from."""
    return max([as_of, *_fetched(sources, POOL_OBSERVATIONS)])


def _fetched(sources: pd.DataFrame, source: str) -> list[datetime]:
    """When the scrapes of a source were fetched."""
    times = zip(sources["source"], sources["fetched_at"], strict=True)
    return [fetched_at.to_pydatetime() for name, fetched_at in times if name == source]


def _snapshot_frames(fleet: pd.DataFrame, market: Market) -> dict[str, pd.DataFrame]:
    observed = {} if market.observations is None else {"observations": market.observations}
    return {
        **observed,
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
    observed = frames.get("observations")
    return Market(pools=pools, pool_of_change=code, observations=observed, **{name: frames[name] for name in names})


def _oldest(market: Market, now: datetime) -> float:
    if market.sources.empty:
        return 0.0
    return float((pd.Timestamp(now) - market.sources["fetched_at"].min()).total_seconds())


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
