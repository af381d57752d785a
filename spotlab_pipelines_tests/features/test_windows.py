"""What was known of a price at an instant: by hand, and never from the future."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.features.ranges import range_extremes
from spotlab_pipelines.features.windows import PriceHistory, price_windows
from spotlab_pipelines_tests.features.examples import NOW, WEEK, changes

HOURS_OF_WEEK = 7 * 24


def window_of(*rows: tuple[float, float]) -> pd.Series:
    """The window of a single pool from (hours before NOW, price)."""
    frame = price_windows(changes(*[("m5.large", "use1-az1", *row) for row in rows]), NOW, WEEK)
    assert len(frame) == 1
    return frame.iloc[0]


def prices(row: pd.Series) -> tuple[float, float, float, int]:
    return (
        row["spot_price_usd_per_hour"],
        row["price_min_usd_per_hour"],
        row["price_max_usd_per_hour"],
        row["price_changes"],
    )


def test_current_price_is_the_last_change_and_extremes_are_the_windows():
    row = window_of((30, 0.03), (20, 0.06), (10, 0.05))
    assert prices(row) == (0.05, 0.03, 0.06, 3)
    assert row["price_changed_at"] == pd.Timestamp(NOW) - pd.Timedelta(hours=10)


def test_opening_price_counts_for_the_extremes_but_not_as_a_change():
    row = window_of((HOURS_OF_WEEK + 40, 0.09), (HOURS_OF_WEEK + 5, 0.02), (10, 0.05))
    assert prices(row) == (0.05, 0.02, 0.05, 1)


def test_a_price_set_exactly_at_the_windows_start_is_the_opening_price():
    row = window_of((HOURS_OF_WEEK + 1, 0.09), (HOURS_OF_WEEK, 0.02), (10, 0.05))
    assert prices(row) == (0.05, 0.02, 0.05, 1)


def test_a_price_that_did_not_change_in_the_window_still_holds():
    row = window_of((HOURS_OF_WEEK + 100, 0.07))
    assert prices(row) == (0.07, 0.07, 0.07, 0)
    assert row["price_changed_at"] == pd.Timestamp(NOW) - pd.Timedelta(hours=HOURS_OF_WEEK + 100)


def test_a_change_exactly_at_the_instant_is_known():
    assert prices(window_of((10, 0.05), (0, 0.08))) == (0.08, 0.05, 0.08, 2)


def test_repeated_rows_change_prices_nothing_and_of_two_prices_at_one_instant_the_higher_holds():
    assert prices(window_of((10, 0.05), (10, 0.05)))[:3] == (0.05, 0.05, 0.05)
    assert prices(window_of((10, 0.06), (10, 0.05)))[0] == 0.06


def test_a_pool_that_is_known_only_later_has_no_row():
    frame = price_windows(changes(("m5.large", "use1-az1", -1, 0.05)), NOW, WEEK)
    assert len(frame) == 0
    assert list(frame.columns[:4]) == ["region", "instance_type", "az_id", "product"]
    assert price_windows(changes(), NOW, WEEK).empty


def test_an_instant_needs_a_time_zone():
    with pytest.raises(InvalidInput, match="time zone"):
        price_windows(changes(("m5.large", "use1-az1", 1, 0.05)), datetime(2026, 3, 10), WEEK)  # noqa: DTZ001


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["m5.large", "m5.xlarge", "c5.large"]),
        st.sampled_from(["use1-az1", "use1-az2"]),
        st.integers(-50, 400).map(float),
        st.integers(1, 50).map(lambda cents: cents / 100),
    ),
    min_size=1,
    max_size=40,
)


@given(rows=ROWS, seed=st.integers(0, 1000))
def test_neither_order_nor_the_future_changes_a_bit(rows: list, seed: int):
    frame = changes(*rows)
    expected = price_windows(frame, NOW, WEEK)
    shuffled = frame.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(price_windows(shuffled, NOW, WEEK), expected)
    past = frame[frame["changed_at"] <= pd.Timestamp(NOW)]
    pd.testing.assert_frame_equal(price_windows(past, NOW, WEEK), expected)


@given(rows=ROWS)
def test_agrees_with_the_obvious_way(rows: list):
    frame = changes(*rows)
    found = price_windows(frame, NOW, WEEK).set_index(["instance_type", "az_id"])
    start = pd.Timestamp(NOW - WEEK)
    for key, pool in frame[frame["changed_at"] <= pd.Timestamp(NOW)].groupby(["instance_type", "az_id"]):
        pool = pool.sort_values(["changed_at", "spot_price_usd_per_hour"])
        before, inside = pool[pool["changed_at"] <= start], pool[pool["changed_at"] > start]
        seen = [*before["spot_price_usd_per_hour"].tolist()[-1:], *inside["spot_price_usd_per_hour"].tolist()]
        assert prices(found.loc[[key]].iloc[0]) == (seen[-1], min(seen), max(seen), len(inside))
    assert len(found) == frame[frame["changed_at"] <= pd.Timestamp(NOW)].groupby(["instance_type", "az_id"]).ngroups


def test_one_history_serves_many_instants():
    frame = changes(*[("m5.large", "use1-az1", hours, 0.01 + hours / 1000) for hours in range(0, 400, 7)])
    history = PriceHistory.from_changes(frame)
    for hours in (0, 33, 200):
        instant = NOW - timedelta(hours=hours)
        pd.testing.assert_frame_equal(history.window_at(instant, WEEK), price_windows(frame, instant, WEEK))
    assert np.isfinite(history.price).all()


@given(rows=ROWS, hours=st.lists(st.integers(-60, 400), max_size=6), days=st.integers(0, 9))
def test_many_instants_at_once_are_each_what_it_would_be_alone(rows: list, hours: list, days: int):
    """Row for row and bit for bit, whatever the order of the instants and however often one comes."""
    history, window = PriceHistory.from_changes(changes(*rows)), timedelta(days=days)
    instants = [NOW - timedelta(hours=hour) for hour in hours]
    alone = [
        history.window_at(instant, window).assign(sampled_at=pd.Timestamp(instant).as_unit("us"))
        for instant in instants
    ]
    found = history.windows_at(instants, window)
    if not alone:
        assert found.empty
        return
    expected = pd.concat(alone, ignore_index=True)[found.columns]
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_no_instants_or_no_changes_give_no_rows_but_all_columns():
    history = PriceHistory.from_changes(changes(("m5.large", "use1-az1", 1, 0.05)))
    columns = ["sampled_at", *history.window_at(NOW, WEEK).columns]
    assert list(history.windows_at([], WEEK).columns) == columns
    nothing = PriceHistory.from_changes(changes()).windows_at([NOW], WEEK)
    assert (len(nothing), list(nothing.columns)) == (0, columns)
    with pytest.raises(InvalidInput, match="time zone"):
        history.windows_at([datetime(2026, 3, 10)], WEEK)  # noqa: DTZ001


@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=40), data=st.data())
def test_extremes_of_ranges_are_those_of_the_slices(values: list, data: st.DataObject):
    ranges = data.draw(st.lists(st.tuples(*[st.integers(0, len(values) - 1)] * 2).map(sorted), max_size=20))
    first, last = np.array(ranges, dtype=np.intp).reshape(-1, 2).T
    lowest, highest = range_extremes(np.array(values), first, last)
    assert lowest.tolist() == [min(values[low : high + 1]) for low, high in ranges]
    assert highest.tolist() == [max(values[low : high + 1]) for low, high in ranges]
