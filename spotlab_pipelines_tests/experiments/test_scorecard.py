"""What predictions were worth, against scikit-learn's figures and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.experiments.scorecard import reliability_bins, scorecard, threshold_table


def drawn(seed: int, rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    predicted = generator.beta(1, 8, size=rows)
    return (generator.random(rows) < predicted).astype(float), predicted


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_scikit_learns(seed: int) -> None:
    outcome, predicted = drawn(seed)
    card = scorecard(outcome, predicted)
    assert card.roc_auc == pytest.approx(metrics.roc_auc_score(outcome, predicted), abs=1e-12)
    assert card.pr_auc == pytest.approx(metrics.average_precision_score(outcome, predicted), abs=1e-12)
    assert card.log_loss == pytest.approx(metrics.log_loss(outcome, predicted), abs=1e-12)
    assert card.brier == pytest.approx(metrics.brier_score_loss(outcome, predicted), abs=1e-12)
    reference = metrics.brier_score_loss(outcome, np.full(len(outcome), outcome.mean()))
    assert card.brier_skill == pytest.approx(1 - card.brier / reference, abs=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 200), st.booleans())
def test_the_decomposition_is_murphys_with_what_varies_within_bins_in_its_resolution(
    seed: int, rows: int, rounded: bool
) -> None:
    outcome, predicted = drawn(seed, rows)
    predicted = np.round(predicted, 1) if rounded else predicted
    card = scorecard(outcome, predicted)
    # Equal predictions share the bin of the first of them, in fifteenths of the rows in their order.
    rank = {value: number for number, value in reversed(list(enumerate(sorted(predicted))))}
    bins: dict[int, list[int]] = {}
    for row, value in enumerate(predicted):
        bins.setdefault(15 * rank[value] // rows, []).append(row)
    rate = outcome.sum() / rows
    reliability = between = variance = covariance = 0.0
    for members in bins.values():
        said, came = predicted[members], outcome[members]
        reliability += len(members) / rows * (said.mean() - came.mean()) ** 2
        between += len(members) / rows * (came.mean() - rate) ** 2
        variance += ((said - said.mean()) ** 2).sum() / rows
        covariance += ((said - said.mean()) * (came - came.mean())).sum() / rows
    assert card.reliability == pytest.approx(reliability, abs=1e-12)
    assert card.uncertainty == pytest.approx(outcome.var(), abs=1e-12)
    assert card.resolution == pytest.approx(between - variance + 2 * covariance, abs=1e-12)
    assert card.brier == pytest.approx(reliability - (between - variance + 2 * covariance) + outcome.var(), abs=1e-12)
    assert 0 <= card.ece <= 1


def test_calibration_by_hand() -> None:
    predicted = np.repeat([0.1, 0.5], 10)
    outcome = np.r_[np.repeat([1.0, 0.0], [2, 8]), np.repeat([1.0, 0.0], [4, 6])]
    card = scorecard(outcome, predicted)
    assert card.bins[["n", "events"]].to_numpy().tolist() == [[10, 2], [10, 4]]
    assert card.ece == pytest.approx(0.1)
    assert card.reliability == pytest.approx(0.01)
    assert card.uncertainty == pytest.approx(0.3 * 0.7)
    assert card.resolution == pytest.approx(0.01)


@given(st.integers(0, 10_000))
def test_the_order_of_rows_changes_nothing_and_equal_predictions_share_a_bin(seed: int) -> None:
    outcome, predicted = drawn(seed, 200)
    predicted = np.round(predicted, 1)
    order = np.random.default_rng(seed).permutation(200)
    one, other = reliability_bins(outcome, predicted), reliability_bins(outcome[order], predicted[order])
    assert one[["n", "events"]].equals(other[["n", "events"]])
    assert one["mean_predicted"].is_monotonic_increasing
    assert len(one) <= len(np.unique(predicted))


def test_fifteen_bins_hold_equal_mass() -> None:
    outcome, predicted = drawn(0)
    assert reliability_bins(outcome, predicted)["n"].tolist() == [200] * 15


def test_a_constant_forecast_has_one_bin_and_no_discrimination() -> None:
    outcome, _ = drawn(1)
    card = scorecard(outcome, np.full(len(outcome), outcome.mean()))
    assert len(card.bins) == 1
    assert card.roc_auc == 0.5
    assert card.brier_skill == pytest.approx(0, abs=1e-12)
    assert card.ece == pytest.approx(0, abs=1e-12)


def test_thresholds_by_hand() -> None:
    table = threshold_table(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.6, 0.2, 0.1]), (0.5, 0.95))
    assert table["flagged"].tolist() == [0.5, 0.0]
    assert table["recall"].tolist() == [0.5, 0.0]
    assert table["precision"][0] == 0.5
    assert np.isnan(table["precision"][1])
    assert table["false_positive_rate"].tolist() == [0.5, 0.0]


def test_what_does_not_exist_is_no_number() -> None:
    card = scorecard(np.zeros(5), np.full(5, 0.1))
    assert np.isnan([card.roc_auc, card.pr_auc, card.brier_skill]).all()
    assert {"roc_auc", "pr_auc", "brier_skill"}.isdisjoint(card.metrics())
    assert card.metrics()["brier"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("outcome", "predicted", "said"),
    [
        ([1.0, 0.5], [0.1, 0.2], "outcomes of 0 or 1, got 0.5 in row 1"),
        ([1.0, np.nan], [0.1, 0.2], "Leave censored rows out"),
        ([1.0, 0.0], [0.1, 1.2], r"probabilities in \[0, 1\], got 1.2 in row 1"),
        ([1.0, 0.0], [0.1, np.nan], "got nan in row 1"),
        ([1.0, 0.0], [0.1], "one prediction an outcome"),
    ],
)
def test_what_cannot_be_judged_is_refused(outcome: list[float], predicted: list[float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        scorecard(np.array(outcome), np.array(predicted))


def test_nothing_cannot_be_judged() -> None:
    with pytest.raises(NotEnoughData):
        scorecard(np.empty(0), np.empty(0))
