"""Examples of a trace: labels by hand, and nothing of the future in a feature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.features.specs import V2_HISTORY
from spotlab_pipelines.training.trace_examples import label_observations, trace_examples
from spotlab_pipelines_tests.training.traces import START, generated_trace

HORIZONS = (1, 6, 12)
NAN = np.nan
KEY = ["sampled_at", "region", "instance_type", "az_id", "product"]


def trace(*seen: tuple[float, int], instance_type: str = "p3.2xlarge") -> pd.DataFrame:
    """Observations of one pool from (hours after START, available)."""
    frame = pd.DataFrame(
        {
            "region": ["us-west-2"] * len(seen),
            "instance_type": [instance_type] * len(seen),
            "az_id": ["usw2-az1"] * len(seen),
            "product": ["Linux/UNIX"] * len(seen),
            "observed_at": pd.DatetimeIndex([START + pd.Timedelta(hours=hours) for hours, _ in seen]).as_unit("us"),
            "available": [bool(available) for _, available in seen],
        }
    )
    return frame.astype(dict.fromkeys(("region", "instance_type", "az_id", "product"), "str"))


def labels_of(observations: pd.DataFrame, horizons: tuple[int, ...] = (1,)) -> dict[float, list[float]]:
    samples, labels = label_observations(observations, horizons)
    hours = (samples["sampled_at"] - START) / pd.Timedelta(hours=1)
    return {round(hour, 3): row.tolist() for hour, row in zip(hours, labels, strict=True)}


def every_half_hour(fails_at: set[float], until: float) -> pd.DataFrame:
    return trace(*[(hour / 2, hour / 2 not in fails_at) for hour in range(int(2 * until) + 1)])


def test_a_label_is_what_comes_after_the_instant_up_to_the_horizon():
    found = labels_of(every_half_hour({2.0, 2.5}, 5.0))
    assert found == {
        0.0: [0], 0.5: [0], 1.0: [1], 1.5: [1], 3.0: [0], 3.5: [0], 4.0: [0], 4.5: pytest.approx([NAN], nan_ok=True),
        5.0: pytest.approx([NAN], nan_ok=True),
    }  # fmt: skip


def test_longer_horizons_see_more_and_are_censored_sooner():
    found = labels_of(every_half_hour({4.0}, 8.0), HORIZONS)
    np.testing.assert_array_equal(found[0.0], [0, 1, NAN])
    np.testing.assert_array_equal(found[3.0], [1, NAN, NAN])
    np.testing.assert_array_equal(found[7.0], [0, NAN, NAN])


def test_where_the_watch_ends_failures_do_not_count_alone_unless_one_ended_it():
    assert labels_of(every_half_hour({4.5}, 5.0), (2,))[4.0] == pytest.approx([NAN], nan_ok=True)
    assert labels_of(every_half_hour({5.0}, 5.0), (2,))[4.0] == [1]


def test_a_pause_ends_a_watch():
    observations = trace((0, 1), (0.5, 1), (1, 1), (1.5, 1), (8, 0), (8.5, 1), (9, 1), (9.5, 1))
    found = labels_of(observations, (1, 12))
    np.testing.assert_array_equal(found[0.5], [0, NAN])
    np.testing.assert_array_equal(found[1.0], [NAN, NAN])


def test_a_probe_that_is_seconds_late_is_the_one_that_was_due():
    second = 1 / 3600
    observations = trace(*[(n * (0.25 + second), n != 4) for n in range(9)])
    assert labels_of(observations)[0.0] == [1]


def test_a_failure_at_the_very_instant_means_that_the_pool_was_not_available():
    observations = pd.concat([every_half_hour(set(), 3.0), trace((1.0, 0))], ignore_index=True)
    found = labels_of(observations)
    assert 1.0 not in found
    assert found[0.5] == [1]


def test_pools_are_watched_each_for_itself():
    both = pd.concat([every_half_hour({2.0}, 5.0), trace((1.5, 1), (2.5, 1), (3.5, 1), instance_type="p2.xlarge")])
    samples, labels = label_observations(both, (1,))
    mine = (samples["instance_type"] == "p2.xlarge").to_numpy()
    np.testing.assert_array_equal(labels[mine, 0], [0, 0, NAN])


@pytest.fixture(scope="module")
def observations() -> pd.DataFrame:
    return generated_trace(pools=4, days=6)


def examples(observations: pd.DataFrame) -> pd.DataFrame:
    return trace_examples(observations, feature_spec="v2-history", horizons_h=HORIZONS, open_bucket_rate=0.3)


def test_what_was_observed_later_changes_no_bit_of_a_feature(observations: pd.DataFrame):
    everything = examples(observations)
    for days in (0.1, 2, 5.3):
        instant = START + pd.Timedelta(days=days)
        known = examples(observations[observations["observed_at"] <= instant])
        mine = everything[everything["sampled_at"] <= instant].reset_index(drop=True)
        names = [*KEY, *V2_HISTORY.names]
        pd.testing.assert_frame_equal(known[names], mine[names], check_exact=True)


def test_the_order_of_the_rows_and_repeats_do_not_matter(observations: pd.DataFrame):
    shuffled = pd.concat([observations, observations.head(50)]).sample(frac=1.0, random_state=1)
    pd.testing.assert_frame_equal(examples(shuffled), examples(observations), check_exact=True)


def test_the_label_of_an_instant_does_not_look_at_it_nor_before_it(observations: pd.DataFrame):
    """Turning what was seen before an instant around changes its features, and not its label."""
    instant = START + pd.Timedelta(days=3)
    before = (observations["observed_at"] < instant) & (observations["observed_at"] > instant - pd.Timedelta(days=1))
    turned = observations.assign(available=observations["available"] ^ before)
    mine, theirs = (
        frame[frame["sampled_at"] >= instant].reset_index(drop=True) for frame in map(examples, (observations, turned))
    )
    labels = [f"interrupted_{horizon}h" for horizon in HORIZONS]
    pd.testing.assert_frame_equal(mine[labels], theirs[labels])
    assert not mine["failure_share_24h"].equals(theirs["failure_share_24h"])


def test_a_trace_has_no_prices_and_says_so(observations: pd.DataFrame):
    with pytest.raises(InvalidInput, match="v2-history"):
        trace_examples(observations, feature_spec="v1", horizons_h=HORIZONS, open_bucket_rate=0.3)
    for nothing in (observations.head(0), observations[~observations["available"]]):
        with pytest.raises(NotEnoughData):
            examples(nothing)
