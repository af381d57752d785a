"""Splits: no day, no pool and no label of a test is in what it is judged by."""

from __future__ import annotations

import numpy as np
import pytest

from spotlab_pipelines.training.folds import (
    DAY_US,
    HOUR_US,
    Places,
    at_most_one_a_day,
    blocked_folds,
    independence,
    labels_known_by,
    walk_forward_folds,
)


def places(pools: int = 6, days: int = 10, every_h: int = 1) -> Places:
    hours = np.arange(0, days * 24, every_h)
    return Places(np.tile(np.arange(pools), len(hours)), np.repeat(hours * HOUR_US, pools))


def test_every_row_is_held_out_once():
    everything = places()
    tests = np.concatenate([fold.test for fold in blocked_folds(everything, embargo_h=12)])
    np.testing.assert_array_equal(np.sort(tests), np.arange(len(everything.at)))


def test_neither_a_day_nor_a_pool_nor_the_embargo_is_shared():
    everything = places()
    for fold in blocked_folds(everything, embargo_h=12):
        train, test = everything.take(fold.train), everything.take(fold.test)
        assert not set(train.pool) & set(test.pool)
        assert not set(train.at // DAY_US) & set(test.at // DAY_US)
        distance = np.abs(train.at[:, None] - test.at[None, :]).min() / HOUR_US
        assert distance > 12


def test_one_pool_is_split_by_days_alone_and_one_day_not_at_all():
    assert len(list(blocked_folds(places(pools=1), embargo_h=12))) == 5
    assert list(blocked_folds(places(days=1), embargo_h=12)) == []
    assert list(blocked_folds(places(days=0), embargo_h=12)) == []


def test_walking_forward_looks_back_only():
    everything = places()
    folds = list(walk_forward_folds(everything))
    assert len(folds) == 4
    for fold in folds:
        assert everything.at[fold.train].max() < everything.at[fold.test].min()


def test_what_is_not_known_yet_is_censored_whatever_it_will_be():
    at = np.array([0, 4, 6, 9]) * HOUR_US
    labels = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    found = labels_known_by(labels, at, horizons_h=(1, 6), until_us=10 * HOUR_US)
    np.testing.assert_array_equal(found, [[1, 1], [0, 1], [1, np.nan], [0, np.nan]])


@pytest.mark.parametrize("every_h", [1, 2, 6])
def test_rows_that_share_their_horizon_count_as_one(every_h: int):
    found = independence(places(pools=3, every_h=every_h), horizon_h=6)
    assert found[-1] == pytest.approx(every_h / 6)
    # However far apart two pools are looked at, they do not count for each other.
    assert found[:3].tolist() == [1, 1, 1]


def test_the_order_of_rows_does_not_matter():
    everything = places(pools=3)
    order = np.random.default_rng(0).permutation(len(everything.at))
    np.testing.assert_array_equal(independence(everything.take(order), 6), independence(everything, 6)[order])


def test_a_pools_day_counts_as_one_example_at_most():
    everything = places(pools=2, days=3)
    found = at_most_one_a_day(everything, independence(everything, 1))
    for pool in (0, 1):
        for day in range(3):
            cell = (everything.pool == pool) & (everything.at // DAY_US == day)
            assert found[cell].sum() == pytest.approx(1.0)
    few = everything.take(np.array([0, 1]))
    np.testing.assert_array_equal(at_most_one_a_day(few, np.array([0.2, 0.5])), [0.2, 0.5])
