"""The features of spec v1, computed by hand for every edge, and what is refused or excluded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange, FeatureVersionMismatch
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.frames import features_schema, pools_schema
from spotlab_pipelines.features.matrix import check_ranges, feature_columns, row_blocks
from spotlab_pipelines.features.specs import V1, get_spec
from spotlab_pipelines.features.windows import price_windows
from spotlab_pipelines_tests.features.examples import NOW, WEEK, changes, pools

OPEN_RATE = 0.3


def one(**row: object) -> pd.Series:
    """The features of a single pool."""
    features, exclusions = compute_features(pools(row), open_bucket_rate=OPEN_RATE)
    assert exclusions.empty
    return features.iloc[0]


def test_price_position_is_where_the_price_stands_in_its_window():
    assert one(spot_price_usd_per_hour=0.035)["price_position"] == pytest.approx(0.25)
    assert one(spot_price_usd_per_hour=0.03)["price_position"] == 0.0
    assert one(spot_price_usd_per_hour=0.05)["price_position"] == 1.0


def test_a_flat_price_is_neither_high_nor_low():
    flat = {f"{name}_usd_per_hour": 0.04 for name in ("spot_price", "price_min", "price_max")}
    assert one(**flat)["price_position"] == 0.5


def test_one_observation_is_a_flat_price():
    window = price_windows(changes(("m5.large", "use1-az1", 3, 0.04)), NOW, WEEK).iloc[0].to_dict()
    assert one(**{str(name): value for name, value in window.items()})["price_position"] == 0.5


def test_discount_depth_is_negative_where_spot_is_dearer():
    assert one()["discount_depth"] == pytest.approx(0.6)
    dearer = one(spot_price_usd_per_hour=0.12, price_max_usd_per_hour=0.12)
    assert dearer["discount_depth"] == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("low", "high", "rate"),
    [(0.0, 0.05, 0.025), (0.05, 0.10, 0.075), (0.10, 0.15, 0.125), (0.15, 0.20, 0.175), (0.20, 1.0, OPEN_RATE)],
)
def test_historic_interrupt_rate_is_the_buckets_midpoint_and_keeps_the_range(low: float, high: float, rate: float):
    features = one(interrupt_rate_min=low, interrupt_rate_max=high)
    assert features["historic_interrupt_rate"] == pytest.approx(rate)
    assert (features["interrupt_rate_min"], features["interrupt_rate_max"]) == (low, high)


def test_family_stress_is_the_mean_position_of_the_family_in_the_region():
    features, _ = compute_features(
        pools(
            {"az_id": "use1-az1", "spot_price_usd_per_hour": 0.03},  # position 0
            {"az_id": "use1-az2", "spot_price_usd_per_hour": 0.05},  # position 1
            {"instance_type": "m5.xlarge", "product": "Windows", "spot_price_usd_per_hour": 0.04},  # 0.5
            {"instance_type": "c5.large", "spot_price_usd_per_hour": 0.05},  # another family
            {"region": "eu-west-1", "az_id": "euw1-az1", "spot_price_usd_per_hour": 0.05},  # another region
        ),
        open_bucket_rate=OPEN_RATE,
    )
    stress = features.set_index(["instance_type", "az_id", "product"])["family_stress_index"]
    assert stress["m5.large", "use1-az1", "Linux/UNIX"] == pytest.approx(0.5)
    assert stress["m5.xlarge", "use1-az1", "Windows"] == pytest.approx(0.5)
    assert stress["c5.large", "use1-az1", "Linux/UNIX"] == 1.0
    assert stress["m5.large", "euw1-az1", "Linux/UNIX"] == 1.0


def test_a_priced_pool_counts_for_its_family_even_if_it_is_excluded_itself():
    features, exclusions = compute_features(
        pools(
            {"az_id": "use1-az1", "spot_price_usd_per_hour": 0.03},
            {
                "az_id": "use1-az2",
                "spot_price_usd_per_hour": 0.05,
                "interrupt_rate_min": np.nan,
                "interrupt_rate_max": np.nan,
            },
        ),
        open_bucket_rate=OPEN_RATE,
    )
    assert features["family_stress_index"].tolist() == [0.5]
    assert exclusions["reason"].tolist() == ["no Advisor entry"]


def test_pools_that_lack_an_input_are_excluded_by_reason_and_the_first_reason_wins():
    unpriced = {f"{name}_usd_per_hour": np.nan for name in ("spot_price", "price_min", "price_max")}
    features, exclusions = compute_features(
        pools(
            {"az_id": "use1-az1"},
            {"az_id": "use1-az2", **unpriced},
            {"az_id": "use1-az3", "on_demand_usd_per_hour": np.nan},
            {"az_id": "use1-az4", "interrupt_rate_min": np.nan, "interrupt_rate_max": np.nan},
            {"az_id": "use1-az5", **unpriced, "on_demand_usd_per_hour": np.nan},
        ),
        open_bucket_rate=OPEN_RATE,
    )
    assert features["az_id"].tolist() == ["use1-az1"]
    assert exclusions.set_index("az_id")["reason"].to_dict() == {
        "use1-az2": "no current price",
        "use1-az3": "no on-demand price",
        "use1-az4": "no Advisor entry",
        "use1-az5": "no current price",
    }


@pytest.mark.parametrize(
    "broken",
    [
        {"spot_price_usd_per_hour": np.inf, "price_max_usd_per_hour": np.inf},
        {"spot_price_usd_per_hour": 0.0, "price_min_usd_per_hour": 0.0},
        {"spot_price_usd_per_hour": -0.01, "price_min_usd_per_hour": -0.01},
        {"spot_price_usd_per_hour": 0.06},
        {"price_min_usd_per_hour": np.nan},
        {"on_demand_usd_per_hour": 0.0},
        {"on_demand_usd_per_hour": np.inf},
        {"interrupt_rate_min": 0.3, "interrupt_rate_max": 0.2},
        {"interrupt_rate_max": np.nan},
    ],
)
def test_what_no_market_can_say_is_refused_with_the_pool_named(broken: dict):
    with pytest.raises(FeatureOutOfRange, match="use1-az7"):
        compute_features(pools({"az_id": "use1-az1"}, {"az_id": "use1-az7", **broken}), open_bucket_rate=OPEN_RATE)


def test_a_pool_twice_is_refused():
    with pytest.raises(FeatureOutOfRange, match="one row a pool"):
        compute_features(pools({}, {}), open_bucket_rate=OPEN_RATE)


def test_an_unknown_spec_is_refused_by_name():
    with pytest.raises(FeatureVersionMismatch, match=r"v1.*'v9'"):
        compute_features(pools({}), "v9", open_bucket_rate=OPEN_RATE)
    with pytest.raises(FeatureMissing, match="no_such_feature"):
        get_spec("v1").subset(("no_such_feature",))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -0.1])
def test_a_matrix_with_a_bad_value_names_feature_and_row(bad: float):
    matrix = np.full((4, 4), 0.5)
    matrix[2, 0] = bad
    with pytest.raises(FeatureOutOfRange, match=r"price_position.*row pool-c"):
        check_ranges(matrix, V1, name_row=["pool-a", "pool-b", "pool-c", "pool-d"].__getitem__)


def test_a_missing_column_is_named():
    features, _ = compute_features(pools({}), open_bucket_rate=OPEN_RATE)
    assert len(feature_columns(features, V1)) == 4
    with pytest.raises(FeatureMissing, match="missing: discount_depth"):
        feature_columns(features.drop(columns="discount_depth"), V1)


@pytest.mark.parametrize(("rows", "blocks"), [(0, 1), (1, 1), (5, 1), (6, 2), (11, 3)])
def test_blocks_are_the_rows_in_order_and_cannot_be_written_to(rows: int, blocks: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spotlab_pipelines.features.matrix.BLOCK_VALUES", 10)
    columns = [np.arange(rows, dtype=float), -np.arange(rows, dtype=float)]
    found = list(row_blocks(columns))
    assert len(found) == blocks
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), np.column_stack(columns))
    for place, block in found:
        np.testing.assert_array_equal(columns[0][place], block[:, 0])
        with pytest.raises(ValueError, match="read-only"):
            block[:, 0] = 1.0


def test_the_empty_frame_has_the_same_shape():
    empty = pools({}).iloc[:0]
    features, exclusions = compute_features(empty, open_bucket_rate=OPEN_RATE)
    assert len(features) == len(exclusions) == 0
    features_schema().validate(features)


def test_each_feature_is_documented():
    for feature in V1.features:
        assert feature.formula
        assert feature.unit
        assert feature.source
        assert feature.minimum < feature.maximum


@st.composite
def pool_frames(draw: st.DrawFn) -> pd.DataFrame:
    price = st.floats(1e-4, 1e3)
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(["m5.large", "m5.xlarge", "c5.large"]), st.integers(1, 9)),
            unique=True,
            min_size=1,
            max_size=12,
        )
    )
    rows = []
    for instance_type, zone in keys:
        low, spot, high = sorted(draw(st.tuples(price, price, price)))
        bucket = draw(st.integers(0, 4))
        rows.append(
            {
                "instance_type": instance_type,
                "az_id": f"use1-az{zone}",
                "spot_price_usd_per_hour": spot,
                "price_min_usd_per_hour": low,
                "price_max_usd_per_hour": high,
                "on_demand_usd_per_hour": draw(st.one_of(price, st.just(np.nan))),
                "interrupt_rate_min": bucket * 0.05,
                "interrupt_rate_max": 1.0 if bucket == 4 else bucket * 0.05 + 0.05,
            }
        )
    return pools(*rows)


@given(frame=pool_frames(), seed=st.integers(0, 1000))
def test_order_changes_no_bit_and_every_value_is_in_its_range(frame: pd.DataFrame, seed: int):
    features, exclusions = compute_features(frame, open_bucket_rate=OPEN_RATE)
    shuffled = compute_features(frame.sample(frac=1, random_state=seed), open_bucket_rate=OPEN_RATE)
    pd.testing.assert_frame_equal(shuffled[0], features, check_exact=True)
    pd.testing.assert_frame_equal(shuffled[1], exclusions)
    assert len(features) + len(exclusions) == len(frame)
    feature_columns(features, V1)
    pools_schema().validate(frame)
    features_schema().validate(features)
