"""On the recorded data: the pool's own history predicts, and every spec is the same from the cache as from the archive.

The probes are launch attempts every ten minutes in us-west-2 (2022/23), the prices those of us-east-1 (2021); both are
laid over each other in time where one test wants both.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import redis as redis_py

from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.specs import SPECS, V2_HISTORY
from spotlab_pipelines.features.tables import FeatureInputs, FeatureTables, feature_tables
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.inference.estimators import LogisticModel
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import Catalogue, Market, read_market
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import POOL_KEY, family_of, text
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import HISTORY_DAYS, POOL_OBSERVATIONS, SPOT_PRICES
from spotlab_pipelines.market.observations import publish_observations
from spotlab_pipelines.market.publish import Envelope, publish_advisor
from spotlab_pipelines.market.publish_prices import publish_prices
from spotlab_pipelines.market.values import Reader
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.features.examples import LINUX, listed_market
from spotlab_pipelines_tests.recorded import RECORDED, needs_recorded_data

pytestmark = needs_recorded_data

REGION = "us-east-1"
TEST_FROM = pd.Timestamp("2022-12-13", tz="UTC")
TYPES = ("p2.8xlarge", "p2.xlarge", "p3.16xlarge", "p3.2xlarge")
SCRAPES = [datetime(2021, 4, day, 9, 30, tzinfo=UTC) for day in (3, 5, 7, 9)]
WEEK = timedelta(days=7)


@lru_cache
def probes() -> pd.DataFrame:
    """The launch probes as pool observations, by pool and time, with `run` and `failed`."""
    raw = pd.read_parquet(RECORDED / "traces" / "launch-probes_us-west-2_2022-10-26_2023-01-05.parquet")
    raw = raw.sort_values(["instance_type", "az", "ts"], ignore_index=True)
    count = len(raw)
    return pd.DataFrame(
        {
            "region": raw["region"],
            "instance_type": raw["instance_type"],
            "az_id": text([{"a": "usw2-az1", "b": "usw2-az2"}[name[-1]] for name in raw["az"]]),
            "product": text([LINUX] * count),
            "observed_at": raw["ts"].dt.as_unit("us"),
            "available": raw["available"] == 1,
            "kind": text(["probe"] * count),
            "source": text(["recorded"] * count),
            "run": raw["run"],
        }
    )


def fails_within_the_hour(seen: pd.DataFrame) -> np.ndarray:
    """(n,) whether any of the next six probes of the pool fails; NaN if it failed itself or fewer follow in the run."""
    failed = (~seen["available"]).astype(float)
    following = failed.groupby([seen["instance_type"], seen["az_id"], seen["run"]])
    ahead = np.column_stack([following.shift(-step) for step in range(1, 7)])
    return np.where(failed == 1, np.nan, ahead.max(axis=1))


def test_v2_history_predicts_launch_failures_of_weeks_it_was_not_fitted_on():
    seen = probes()
    label = fails_within_the_hour(seen)
    instants = seen.rename(columns={"observed_at": "sampled_at"})[[*POOL_KEY, "sampled_at"]]
    features, _ = compute_features(instants, "v2-history", open_bucket_rate=0.3, past=Past.of(seen))
    rows = instants.merge(features.reset_index(), on=[*POOL_KEY, "sampled_at"])["index"]
    matrix = features[list(V2_HISTORY.names)].to_numpy()[rows]
    known = ~np.isnan(label)
    train, test = (known & (seen["observed_at"] < TEST_FROM), known & (seen["observed_at"] >= TEST_FROM))
    model = LogisticModel(feature_names=V2_HISTORY.names, horizons_h=[1]).fit(matrix[train], label[train, None])
    predicted, outcome = model.predict(matrix[test])[:, 0], label[test]
    from sklearn.metrics import roc_auc_score

    assert len(outcome) > 15_000
    assert roc_auc_score(outcome, predicted) >= 0.80
    skill = 1 - np.mean((predicted - outcome) ** 2) / np.mean((label[train].mean() - outcome) ** 2)
    assert skill >= 0.25, "against always saying the rate of the weeks that it was fitted on"


@lru_cache
def prices() -> pd.DataFrame:
    """The recorded price changes of these types."""
    raw = pd.read_parquet(RECORDED / "price-history" / "us-east-1_2021-03-02_2021-04-30.parquet")
    raw = raw[raw["instance_type"].isin(TYPES) & (raw["product"] == LINUX)].reset_index(drop=True)
    return pd.DataFrame(
        {
            "region": raw["region"],
            "instance_type": raw["instance_type"],
            "az_id": text([f"use1-az{'abcdef'.index(name[-1]) + 1}" for name in raw["az"]]),
            "product": raw["product"],
            "changed_at": raw["ts"].dt.as_unit("us"),
            "spot_price_usd_per_hour": raw["spot_price"],
        }
    )


def shifted_probes() -> pd.DataFrame:
    """The probes as if of us-east-1, laid over the prices."""
    seen = probes().drop(columns="run")
    shift = pd.Timestamp(SCRAPES[-1]) - pd.Timestamp("2022-12-20T09:30", tz="UTC")
    return seen.assign(
        region=text([REGION] * len(seen)),
        az_id=text([name.replace("usw2", "use1") for name in seen["az_id"]]),
        observed_at=seen["observed_at"] + shift,
    )


def archived(archive: Archive) -> None:
    """What scrapes at SCRAPES have brought: of each only what is new."""
    kinds = {SPOT_PRICES: (prices(), "changed_at"), POOL_OBSERVATIONS: (shifted_probes(), "observed_at")}
    for kind, (frame, time) in kinds.items():
        since = pd.Timestamp("2000-01-01", tz="UTC")
        for number, fetched_at in enumerate(SCRAPES):
            rows = frame[(frame[time] > since) & (frame[time] <= pd.Timestamp(fetched_at))]
            rows = rows.rename(columns={"kind": "observation"}).reset_index(drop=True)
            archive.write_scrape(
                kind=kind, region=REGION, fetched_at=fetched_at, scrape_id=UUID(int=number), frame=rows
            )
            since = pd.Timestamp(fetched_at)


def cached(redis: redis_py.Redis, settings: Settings, at: datetime) -> Market:
    """The market as an evaluation reads it from Redis after scrapes at `at`."""
    advisor, on_demand = listed_market(TYPES)
    known = prices()[prices()["changed_at"] <= pd.Timestamp(at)]
    in_window = known["changed_at"] > pd.Timestamp(at - WEEK)
    opening = known[~in_window].sort_values("changed_at").drop_duplicates(list(POOL_KEY), keep="last")
    families = {str(name): list(of) for name, of in pd.Series(TYPES, dtype="str").groupby(family_of(pd.Series(TYPES)))}

    def envelope(source: str) -> Envelope:
        return Envelope(source, str(UUID(int=9)), at)

    publish_prices(
        redis, pd.concat([known[in_window], opening]), envelope(SPOT_PRICES), ttl_s=600, since=at - WEEK,
        covered={(REGION, name): (types, [LINUX]) for name, types in families.items()},
    )  # fmt: skip
    publish_advisor(redis, advisor, envelope("spot_advisor"), ttl_s=600, regions=[REGION])
    seen = shifted_probes()
    age = pd.Timestamp(at) - seen["observed_at"]
    recent = seen[(age >= pd.Timedelta(0)) & (age < pd.Timedelta(days=HISTORY_DAYS))]
    publish_observations(redis, recent, envelope(POOL_OBSERVATIONS), ttl_s=600, regions=[REGION])
    wanted = Wanted(types={REGION: TYPES}, families={REGION: tuple(families)}, products={REGION: (LINUX,)})
    reader = Reader(at, 600, "instance_catalogue")
    nothing = Catalogue(pd.DataFrame({"instance_type": text([])}), on_demand, reader)
    return read_market(redis, settings, now=at, wanted=wanted, catalogue=nothing, observations=True)


def tables(market: Market, at: datetime) -> FeatureTables:
    catalogue = pd.DataFrame(
        {name: pd.Series(dtype=dtype) for name, dtype in (("instance_type", "str"), ("vcpus", "int64"))}
    ).assign(memory_mib=np.empty(0, dtype="int64"), architecture=text([]), accelerators=text([]))
    fleet = pd.DataFrame({name: text([]) for name in POOL_KEY})
    inputs = FeatureInputs("v1", at.isoformat(), WEEK.total_seconds(), 0.3, 2.0, at.isoformat(), ("v2", "v2-history"))
    return feature_tables(dataclasses.replace(market, catalogue=catalogue), fleet, inputs)


def test_every_spec_is_the_same_from_the_cache_from_the_archive_and_among_many_instants(
    redis: redis_py.Redis, settings: Settings, tmp_path_factory: pytest.TempPathFactory
):
    archive = Archive(str(tmp_path_factory.mktemp("archive")))
    archived(archive)
    history = MarketHistory(archive)
    cover = {(REGION, family): (tuple(n for n in TYPES if n.startswith(family)), (LINUX,)) for family in ("p2", "p3")}
    everything = PriceHistory.from_changes(prices())
    past = Past.of(shifted_probes(), everything, price_window=WEEK)
    for at in SCRAPES:
        market = cached(redis, settings, at)
        served = tables(market, at)
        changes = history.changes(cover, start=at - WEEK, end=at, known_at=at)
        start = at - timedelta(days=HISTORY_DAYS)
        seen = history.observations([REGION], TYPES, start=start, end=at, known_at=at)
        as_of = dataclasses.replace(
            market, prices=changes.frame(), pools=changes.pools, pool_of_change=changes.pool, observations=seen
        )
        replayed = tables(as_of, at)
        assert set(served.by_spec) == set(SPECS)
        for spec, frame in served.by_spec.items():
            pd.testing.assert_frame_equal(replayed.by_spec[spec], frame, check_exact=True)
        assert (served.by_spec["v2"]["history_missing"] == 0).sum() == 8, "the pools that were probed"

        # Of two instants at once, with all that came later at hand, this one's rows are as it alone has them.
        other = SCRAPES[0] - timedelta(hours=7)
        both = [served.pools.assign(sampled_at=pd.Timestamp(moment).as_unit("us")) for moment in (at, other)]
        both[1]["price_changed_at"] = pd.Timestamp(other) - pd.Timedelta(hours=1)
        together, _ = compute_features(pd.concat(both, ignore_index=True), "v2", open_bucket_rate=0.3, past=past)
        mine = together[together["sampled_at"] == at].drop(columns="sampled_at").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, served.by_spec["v2"], check_exact=True)
