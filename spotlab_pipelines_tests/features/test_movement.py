"""Spec v2: how prices move, by hand, and that neither order, the future nor other pools change a bit of any feature."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.matrix import feature_columns
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.specs import V1, V2, V2_HISTORY
from spotlab_pipelines.features.tables import assemble_pools
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines_tests.features.examples import NOW, WEEK, changes, listed_market
from spotlab_pipelines_tests.features.observed import ZONES, drawn_observations, observations, places

TYPES = ("m5.large", "m5.xlarge", "c5.large")


def v2(prices: pd.DataFrame, seen: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
    """The features of spec v2 of all pools that have a price, as an evaluation at `at` computes them."""
    history = PriceHistory.from_changes(prices)
    advisor, on_demand = listed_market(TYPES)
    pools = assemble_pools(history.window_at(at.to_pydatetime(), WEEK), places(), advisor=advisor, on_demand=on_demand)
    past = Past.of(seen, history, as_of=at.to_pydatetime(), price_window=WEEK)
    features, excluded = compute_features(pools, "v2", open_bucket_rate=0.3, past=past)
    assert excluded.empty
    return features


def of(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    return v2(changes(*rows), observations(), pd.Timestamp(NOW)).set_index(["instance_type", "az_id"])


def test_velocity_is_the_log_ratio_to_the_price_in_force_a_day_before():
    features = of(("m5.large", ZONES[0], 200, 0.10), ("m5.large", ZONES[0], 30, 0.20), ("m5.large", ZONES[0], 2, 0.25))
    row = features.iloc[0]
    assert row["price_velocity_24h"] == pytest.approx(math.log(0.25 / 0.20))
    assert row["price_volatility"] == pytest.approx(math.sqrt((math.log(2) ** 2 + math.log(1.25) ** 2) / 7), abs=1e-8)
    assert row["log_hours_since_price_change"] == pytest.approx(math.log1p(2))
    assert row["price_velocity_24h_missing"] == row["price_volatility_missing"] == 0.0


def test_a_pool_whose_first_price_is_young_says_what_is_missing():
    row = of(("m5.large", ZONES[0], 5, 0.10), ("m5.large", ZONES[0], 2, 0.25)).iloc[0]
    assert (row["price_velocity_24h"], row["price_velocity_24h_missing"]) == (0.0, 1.0)
    assert (row["price_volatility"], row["price_volatility_missing"]) == (0.0, 1.0)
    row = of(("m5.large", ZONES[0], 100, 0.10), ("m5.large", ZONES[0], 2, 0.25)).iloc[0]
    assert (row["price_velocity_24h_missing"], row["price_volatility_missing"]) == (0.0, 1.0)


def test_discount_against_the_family_is_the_distance_from_its_mean():
    features = of(
        ("m5.large", ZONES[0], 1, 0.10),  # 1 - 0.1 / 0.5 = 0.8
        ("m5.xlarge", ZONES[0], 1, 0.40),  # 1 - 0.4 / 1.0 = 0.6
        ("c5.large", ZONES[0], 1, 0.75),  # another family
    )["discount_vs_family"].droplevel("az_id")
    assert features["m5.large"] == pytest.approx(0.1)
    assert features["m5.xlarge"] == pytest.approx(-0.1)
    assert features["c5.large"] == 0.0


def test_v2_begins_with_v1_and_holds_all_of_v2_history():
    assert V2.names[:4] == V1.names
    assert set(V2_HISTORY.names) < set(V2.names)
    assert not V2_HISTORY.needs_market
    assert not V1.needs_past
    by_name = {feature.name: feature for feature in V2.features}
    for feature in V2.features:
        assert feature.required is (feature.indicator == ""), feature.name
        if feature.indicator:
            assert by_name[feature.indicator].maximum == 1.0
            assert feature.minimum <= feature.neutral <= feature.maximum


def test_v2_without_a_price_history_and_a_price_of_the_future_are_refused():
    prices = changes(("m5.large", ZONES[0], 5, 0.10))
    history = PriceHistory.from_changes(prices)
    advisor, on_demand = listed_market(TYPES)
    pools = assemble_pools(history.window_at(NOW, WEEK), places(), advisor=advisor, on_demand=on_demand)
    past = Past.of(observations(), history, as_of=NOW)
    with pytest.raises(FeatureMissing, match="a price history"):
        compute_features(pools, "v2", open_bucket_rate=0.3, past=dataclasses.replace(past, prices=None))
    early = dataclasses.replace(past, as_of=NOW - timedelta(hours=6))
    with pytest.raises(FeatureOutOfRange, match=rf"m5.large:{ZONES[0]}"):
        compute_features(pools, "v2", open_bucket_rate=0.3, past=early)


price_rows = st.lists(
    st.tuples(
        st.sampled_from(TYPES),
        st.sampled_from(ZONES[:2]),
        st.integers(0, 24 * 14 * 2).map(lambda half_hours: half_hours / 2),
        st.sampled_from((0.1, 0.11, 0.2, 0.35)),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25)
@given(rows=price_rows, seen=drawn_observations(), back=st.integers(0, 100), seed=st.integers(0, 99))
def test_neither_order_nor_the_future_nor_older_prices_change_a_bit(
    rows: list[tuple[str, str, float, float]], seen: pd.DataFrame, back: int, seed: int
):
    prices, at = changes(*rows), pd.Timestamp(NOW) - timedelta(hours=back / 2)
    known = prices[prices["changed_at"] <= at]
    expected = v2(known, seen[seen["observed_at"] <= at], at)
    feature_columns(expected, V2)
    future = prices.assign(changed_at=prices["changed_at"] + timedelta(days=30), spot_price_usd_per_hour=9.0)
    mixed = pd.concat([prices, future, prices]).sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(v2(mixed, seen, at), expected, check_exact=True)
    # What the cache keeps: the window, and of each pool the last price before it.
    opened = known["changed_at"] <= at - WEEK
    keys = ["region", "instance_type", "az_id", "product"]
    opening = known[opened].sort_values("changed_at").groupby(keys)["changed_at"].transform("max")
    cached = pd.concat(
        [known[~opened], known[opened][known["changed_at"][opened] == opening.reindex(known[opened].index)]]
    )
    pd.testing.assert_frame_equal(v2(cached, seen, at), expected, check_exact=True)


@settings(max_examples=10)
@given(rows=price_rows, seen=drawn_observations())
def test_many_instants_at_once_are_each_what_it_would_be_alone(
    rows: list[tuple[str, str, float, float]], seen: pd.DataFrame
):
    history, (advisor, on_demand) = PriceHistory.from_changes(changes(*rows)), listed_market(TYPES)
    instants = [pd.Timestamp(NOW) - timedelta(hours=hours) for hours in (0, 3, 24, 100)]
    pools = [
        assemble_pools(
            history.window_at(at.to_pydatetime(), WEEK), places(), advisor=advisor, on_demand=on_demand
        ).assign(sampled_at=at.as_unit("us"))
        for at in instants
    ]
    past = Past.of(seen, history, price_window=WEEK)
    together, _ = compute_features(pd.concat(pools, ignore_index=True), "v2", open_bucket_rate=0.3, past=past)
    for at in instants:
        part = together[together["sampled_at"] == at].drop(columns="sampled_at").reset_index(drop=True)
        alone = v2(changes(*rows), seen, at)
        pd.testing.assert_frame_equal(part, alone, check_exact=True)
