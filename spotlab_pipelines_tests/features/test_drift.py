"""Drift against a version's training features, with numbers computed by hand and by brute force."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spotlab_pipelines.features.drift import can_tell, drift_of, effective_rows, has_drifted, ks, psi, reference_of

KS_2SAMP: Any = stats.ks_2samp


def frame(values: list[float] | np.ndarray, missing: list[float] | None = None) -> pd.DataFrame:
    columns = {"x": np.asarray(values, dtype=float)}
    return pd.DataFrame(columns if missing is None else columns | {"x_missing": missing})


def test_a_hundred_rows_are_cut_at_their_deciles() -> None:
    reference = reference_of(frame(np.arange(1.0, 101.0)), ["x"])
    assert reference["x"]["edges"] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert reference["x"]["counts"] == [10] * 10
    assert json.loads(json.dumps(reference)) == reference


def test_the_same_rows_have_not_drifted() -> None:
    training = frame(np.arange(1.0, 101.0))
    found = drift_of(reference_of(training, ["x"]), training)["x"]
    assert (found["psi"], found["ks"]) == (0.0, 0.0)
    assert found["psi_by_chance"] == pytest.approx(9 * 2 * 100 / 105**2)
    assert found["ks_by_chance"] == pytest.approx(stats.kstwobign.ppf(0.99) * math.sqrt(0.02), abs=1e-3)
    assert found["rows_effective"] == 100


def test_psi_and_ks_by_hand() -> None:
    # Of 4 and 4 rows in two bins: shares (3 + ½)/5 and (1 + ½)/5 against the reverse.
    before, now = np.array([3.0, 1.0]), np.array([1.0, 3.0])
    assert psi(before, now) == pytest.approx(2 * 0.4 * math.log(0.7 / 0.3))
    assert ks(before, now) == 0.5


def test_an_empty_bin_gives_a_large_number_and_not_an_infinite_one() -> None:
    # (0 + ½)/11 and (10 + ½)/11 against the reverse.
    assert psi(np.array([10.0, 0.0]), np.array([0.0, 10.0])) == pytest.approx(2 * (10 / 11) * math.log(21))
    assert ks(np.array([10.0, 0.0]), np.array([0.0, 10.0])) == 1.0
    assert psi(np.array([5.0, 0.0, 5.0]), np.array([5.0, 0.0, 5.0])) == 0.0


def test_a_value_that_holds_many_rows_has_a_bin_for_itself() -> None:
    reference = reference_of(frame([0.5] * 100), ["x"])
    assert reference["x"]["counts"] == [0, 100, 0]
    for moved in (0.2, 0.8):
        assert drift_of(reference, frame([moved] * 100))["x"]["ks"] == 1.0
    rates = reference_of(frame([0.025] * 60 + [0.3] * 40), ["x"])
    assert rates["x"]["counts"] == [0, 60, 0, 40, 0]
    assert drift_of(rates, frame([0.125] * 100))["x"]["ks"] == pytest.approx(0.6)


def test_missing_rows_are_a_bin_of_their_own_whatever_stands_in_for_their_value() -> None:
    training = frame([1.0, 2.0, 3.0, 4.0, 0.0, 0.0], [0, 0, 0, 0, 1, 1])
    reference = reference_of(training, ["x"], {"x": "x_missing"})
    assert reference["x"]["counts"][-1] == 2
    assert min(reference["x"]["edges"]) > 0.9, "the stand-in is no value"
    gone = drift_of(reference, frame([2.0] * 6, [1.0] * 6))["x"]
    assert gone["ks"] == pytest.approx(4 / 6)
    never = reference_of(frame([7.0, 7.0], [1, 1]), ["x"], {"x": "x_missing"})
    assert never["x"] == {"edges": [], "indicator": "x_missing", "counts": [0, 2]}
    assert drift_of(never, frame([7.0, 7.0], [0.0, 0.0]))["x"]["ks"] == 1.0


def test_without_rows_nothing_was_compared() -> None:
    assert drift_of(reference_of(frame([1.0, 2.0]), ["x"]), frame([])) == {}


def test_rows_that_go_together_count_as_one_where_they_are_alike_and_each_where_they_are_not() -> None:
    group = np.repeat(np.arange(5), 4)
    assert effective_rows(np.repeat([3.0, 1.0, 4.0, 1.0, 5.0], 4), group) == pytest.approx(5.0)
    assert effective_rows(np.tile([0.0, 1.0, 2.0, 3.0], 5), group) == 20.0
    assert effective_rows(np.ones(20), group) == pytest.approx(5.0), "all alike"
    assert effective_rows(np.arange(20.0), np.arange(20)) == 20.0
    assert effective_rows(np.arange(20.0), np.zeros(20, dtype=int)) == 1.0, "nothing tells how they go together"
    unequal = np.repeat([0, 1], [1, 9])
    assert effective_rows(np.repeat([0.0, 1.0], [1, 9]), unequal) == pytest.approx(100 / 82), "hardly more than one"
    assert effective_rows(np.ones(10), unequal) == pytest.approx(100 / 82)
    assert effective_rows(np.array([4.5, *range(1, 9), 4.5]), unequal) == 10.0
    # By hand: means 1 and 4, between 9 / 1, within (2 + 2) / 2 = 2, of 2 rows each: (9 − 2) / (9 + 2) = 7/11.
    assert effective_rows(np.array([0.0, 2.0, 3.0, 5.0]), np.array([0, 0, 1, 1])) == pytest.approx(4 / (1 + 7 / 11))


def test_values_of_a_few_families_do_not_drift_by_chance_though_many_pools_share_them() -> None:
    """As a feature of the family is the same for all of its pools: ten of them are ten observations, not 200."""
    generator = np.random.default_rng(5)
    reference = reference_of(frame(generator.random(5000)), ["x"])
    families = np.repeat(np.arange(10), 20)
    told = {True: 0, False: 0}
    for _ in range(200):
        features = frame(np.repeat(generator.random(10), 20))
        for known in told:
            found = drift_of(reference, features, families if known else None)["x"]
            told[known] += has_drifted(found, psi_warn=0.2)
    assert told[False] > 100, "as if each pool were an observation of its own"
    assert told[True] <= 4, "one in a hundred is chance"
    moved = frame(np.repeat(0.95 + 0.05 * generator.random(10), 20))
    assert has_drifted(drift_of(reference, moved, families)["x"], psi_warn=0.2), "what really moved still shows"


@pytest.mark.parametrize("rows", [1, 4, 10, 30])
def test_psi_by_chance_is_its_mean_without_drift_of_few_rows_too(rows: int) -> None:
    generator = np.random.default_rng(6)
    reference = reference_of(frame(generator.random(5000)), ["x"])
    found = [drift_of(reference, frame(generator.random(rows)))["x"] for _ in range(500)]
    assert found[0]["psi_by_chance"] == pytest.approx(np.mean([each["psi"] for each in found]), abs=0.1)


def test_of_a_few_families_a_feature_has_drifted_or_is_said_to_be_too_little_to_tell() -> None:
    generator = np.random.default_rng(7)
    reference = reference_of(frame(generator.random(5000)), ["x"])
    for families in range(1, 9):
        found = drift_of(reference, frame(np.full(20 * families, 9.0)), np.repeat(np.arange(families), 20))["x"]
        assert (found["psi"], found["ks"]) == pytest.approx((found["psi_most"], found["ks_most"])), "farther is nothing"
        assert has_drifted(found, psi_warn=0.2) == can_tell(found, psi_warn=0.2) == (families > 3)
    found = drift_of(reference, frame(generator.random(300)), np.zeros(300, dtype=int))["x"]
    assert found["ks_by_chance"] > 1, "which KS cannot exceed"
    assert not can_tell(found, psi_warn=0.2)


def test_no_rows_are_farther_than_the_most_that_is_told() -> None:
    generator = np.random.default_rng(8)
    reference = reference_of(frame(np.round(generator.exponential(1, 500), 1)), ["x"])
    for _ in range(200):
        found = drift_of(reference, frame(generator.normal(generator.uniform(-1, 5), 1, 6)))["x"]
        assert found["psi"] <= found["psi_most"] + 1e-12
        assert found["ks"] <= found["ks_most"] + 1e-12


def test_they_are_what_brute_force_says() -> None:
    generator = np.random.default_rng(4)
    for _ in range(100):
        sizes, moved = generator.integers(1, 80, 2), generator.uniform(-1, 1)
        before, now = np.round(generator.normal(0, 1, sizes[0]), 1), np.round(generator.normal(moved, 1, sizes[1]), 1)
        reference = reference_of(frame(before), ["x"])
        found = drift_of(reference, frame(now))["x"]
        bounds = [-math.inf, *reference["x"]["edges"], math.inf]
        bins = [
            [sum(low < value <= high for value in values) for low, high in itertools.pairwise(bounds)]
            for values in (before, now)
        ]
        assert bins[0] == reference["x"]["counts"]
        p, q = ([count + 0.5 for count in counts] for counts in bins)
        assert found["psi"] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-12)
        binned = [np.repeat(np.arange(len(counts)), counts) for counts in bins]
        assert found["ks"] == pytest.approx(KS_2SAMP(*binned, method="asymp").statistic, abs=1e-12)
        true = KS_2SAMP(before, now, method="asymp").statistic
        widest = max(max(counts) / sum(counts) for counts in bins)
        assert found["ks"] - 1e-12 <= true <= found["ks"] + widest + 1e-12
