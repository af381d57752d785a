"""Verdicts on comparisons whose truth is known, and the boundaries that keep many looks honest."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.experiments.boundaries import level_at, spent_by
from spotlab_pipelines.experiments.verdict import (
    VerdictRules,
    block_interval,
    judge,
    persistence_inflation,
    ratio_error,
    skill_interval,
)
from spotlab_pipelines_tests.experiments.clustered import Comparison, comparison, looks

EXPERIMENTS = 200
FALSE_PROMOTIONS_MAX = EXPERIMENTS * 64 // 1000


def judged(rows: Comparison, **options: object):
    return judge(rows.outcome, rows.champion, rows.challenger, rows.block, **options)  # type: ignore[arg-type]


def rows(seed: int, champion: float = 0.8, challenger: float = 0.8, events: float = 500) -> Comparison:
    generator = np.random.default_rng(seed)
    return comparison(generator, champion_blur=champion, challenger_blur=challenger, events=events)


def apart(blocks: int) -> np.ndarray:
    """Blocks of which none is the day after another's."""
    return np.arange(blocks) * 1000


def test_boundaries_are_the_published_ones() -> None:
    # Lan-DeMets' O'Brien-Fleming boundaries for five looks at two-sided 0.05, as in Reboussin et al. (2000).
    found = [stats.norm.isf(level_at(range(1, look + 1), 5, 0.025)) for look in range(1, 6)]
    assert found == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.002)


def test_all_looks_together_err_as_often_as_promised() -> None:
    looks_max, alpha = 10, 0.05
    levels = [level_at(range(1, look + 1), looks_max, alpha) for look in range(1, looks_max + 1)]
    steps = np.random.default_rng(0).normal(size=(200_000, looks_max)).cumsum(axis=1)
    scores = steps / np.sqrt(np.arange(1, looks_max + 1))
    assert (scores > stats.norm.isf(levels)).any(axis=1).mean() == pytest.approx(alpha, abs=0.002)
    assert spent_by(looks_max, looks_max, alpha) == pytest.approx(alpha)


def test_a_look_that_adds_nothing_shows_nothing_and_spends_nothing() -> None:
    assert level_at([1.0, 1.0], 5, 0.05) == 0
    assert level_at([1.0, 0.5], 5, 0.05) == 0
    assert level_at([1.0, 1.0, 3.0], 5, 0.05) > level_at([1.0, 2.0, 3.0], 5, 0.05)


@pytest.mark.parametrize("information", [[], [1.0, 2.0, 3.0], [0.0], [float("nan")], [1.0, -1.0], [float("inf")]])
def test_looks_that_cannot_be_are_refused(information: list[float]) -> None:
    with pytest.raises(InvalidInput, match="information of 1 to 2 looks"):
        level_at(information, 2, 0.05)


def test_equal_versions_are_seldom_promoted_however_often_one_looks() -> None:
    ends = Counter(list(looks(rows(seed, events=300)))[-1].verdict for seed in range(EXPERIMENTS))
    assert ends["promote"] <= FALSE_PROMOTIONS_MAX
    assert ends["reject"] <= FALSE_PROMOTIONS_MAX


def test_equal_versions_are_seldom_promoted_where_shortages_last_for_days() -> None:
    generators = map(np.random.default_rng, range(EXPERIMENTS // 2))
    equal = {"champion_blur": 0.8, "challenger_blur": 0.8, "events": 300.0, "rows": 2000, "lasting": 6}
    ends = Counter(list(looks(comparison(each, **equal)))[-1].verdict for each in generators)  # type: ignore[arg-type]
    assert ends["promote"] <= FALSE_PROMOTIONS_MAX // 2
    assert ends["reject"] <= FALSE_PROMOTIONS_MAX // 2


def test_the_interval_is_as_much_wider_as_days_go_together() -> None:
    """The mean of an autoregression of correlation c has (1 + c) / (1 - c) times the variance, over many days."""
    generator, days, regions = np.random.default_rng(11), 400, 5
    for correlation in (0.0, 0.5, 0.7):
        noise = generator.normal(size=(regions, days))
        for day in range(1, days):
            noise[:, day] = correlation * noise[:, day - 1] + np.sqrt(1 - correlation**2) * noise[:, day]
        block = np.concatenate([region * 1000 + np.arange(days) for region in range(regions)])
        found = persistence_inflation(noise.ravel() - noise.mean(), block)
        assert found == pytest.approx((1 + correlation) / (1 - correlation), rel=0.15)
    # Of other regions a day says nothing, nor do neighbours in the list that lie days apart.
    assert persistence_inflation(noise.ravel() - noise.mean(), apart(days * regions)) == 1
    assert persistence_inflation(-noise.ravel() * (-1.0) ** np.arange(days * regions), block) == 1


def test_an_interruption_that_many_windows_foresaw_counts_once() -> None:
    data = rows(1, champion=5.0, challenger=0.1, events=900)
    once = VerdictRules(looks_max=1)
    assert judged(data, rules=once).verdict == "promote"
    few = judged(data, rules=once, interruption=np.arange(len(data.outcome)) % 49)
    assert (few.verdict, few.events) == ("insufficient data", 49)


def test_a_better_version_is_promoted_and_a_worse_one_rejected() -> None:
    better = list(looks(rows(1, champion=5.0, challenger=0.1, events=900)))[-1]
    assert better.verdict == "promote"
    assert "The challenger is better: Brier score lower by" in better.why
    worse = list(looks(rows(1, champion=0.1, challenger=5.0, events=900)))[-1]
    assert worse.verdict == "reject"
    assert f"Look {worse.look} of 30." in worse.why


def test_clustered_rows_give_a_wider_interval_than_rows_taken_as_independent() -> None:
    data = rows(3)
    gains = (data.champion - data.outcome) ** 2 - (data.challenger - data.outcome) ** 2
    days, number = np.unique(data.block, return_inverse=True)
    clustered = ratio_error(np.bincount(number, weights=gains), np.bincount(number).astype(float), days)
    assert clustered > 1.2 * ratio_error(gains, np.ones(len(gains)), apart(len(gains)))


def test_the_bootstrap_is_scipys_where_nothing_clusters() -> None:
    gains = np.random.default_rng(4).normal(0.1, 1.0, size=400)
    ours = block_interval(gains, np.ones(400), 0.025, apart(400))
    scipys = stats.bootstrap((gains,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(5))
    width = scipys.confidence_interval.high - scipys.confidence_interval.low
    assert ours.mean == pytest.approx(gains.mean(), abs=1e-12)
    assert ours.low == pytest.approx(scipys.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(scipys.confidence_interval.high, abs=0.03 * width)


def test_too_little_is_said_to_be_so_and_is_no_look() -> None:
    verdict = judged(rows(5, events=20))
    assert verdict.verdict == "insufficient data"
    assert verdict.look == 0
    assert "50 of the rarer outcome in 20 region-days are asked for; there are" in verdict.why
    assert np.isnan(verdict.information)
    empty = np.empty(0)
    nothing = judge(empty, empty, empty, empty)
    assert nothing.verdict == "insufficient data"
    assert nothing.why == (
        "No prediction of both has an outcome yet; 50 of the rarer outcome in 20 region-days are asked for."
    )


def test_after_the_last_look_nothing_is_decided_any_more() -> None:
    verdict = judged(rows(1, champion=5.0, challenger=0.1), earlier=[1.0] * 30)
    assert (verdict.verdict, verdict.look) == ("hold", 30)
    assert "used up" in verdict.why


def test_an_early_look_cannot_promote() -> None:
    verdict = judged(rows(1, champion=5.0, challenger=0.1))
    assert verdict.verdict == "hold"
    assert verdict.brier is not None
    assert np.isinf(verdict.brier.low)


def test_versions_that_say_the_same_are_held() -> None:
    data = rows(6)
    verdict = judge(data.outcome, data.champion, data.champion, data.block)
    assert (verdict.verdict, verdict.why) == ("hold", "The two versions say the same.")


def test_a_better_brier_score_with_a_worse_log_loss_is_held() -> None:
    data = rows(7, champion=5.0, challenger=0.1, events=900)
    # Certain and wrong in every fifth interruption: cheap in the Brier score, ruinous in the log loss.
    certain = (data.outcome == 1) & (np.arange(len(data.outcome)) % 5 == 0)
    challenger = np.where(certain, 0.0, np.clip(0.15 * data.challenger + 0.85 * data.outcome, 0, 1))
    verdict = judge(data.outcome, data.champion, challenger, data.block, rules=VerdictRules(looks_max=1), earlier=[])
    assert verdict.verdict == "hold"
    assert "worse in log loss" in verdict.why


def test_a_verdict_repeats_bit_for_bit() -> None:
    data = rows(8)
    assert judged(data) == judged(data)


def test_of_one_interruption_that_many_windows_foresaw_a_skill_has_no_interval() -> None:
    outcome = np.repeat([1.0, 0.0], [24, 400])
    block, predicted = np.arange(424) % 20 * 1000, np.where(outcome == 1, 0.5, 0.05)
    each = np.where(outcome == 1, np.arange(424), -1)
    for interruption, known in ((each, True), (np.where(outcome == 1, np.arange(424) % 2, -1), False)):
        found = skill_interval(outcome, predicted, block, interruption)
        assert found is not None
        assert np.isfinite(found.low) == known


def test_a_skill_is_at_most_one_and_of_few_events_nothing_is_known() -> None:
    outcome = np.zeros(200)
    outcome[:9] = 1
    block = np.arange(200) % 20 * 1000
    few = skill_interval(outcome, np.where(outcome == 1, 0.9, 0.01), block)
    assert few is not None
    assert (np.isinf(few.low), np.isinf(few.high)) == (True, True)
    assert 0 < few.mean < 1
    outcome[9:12] = 1
    enough = skill_interval(outcome, np.where(outcome == 1, 1.0, 0.01), block)
    assert enough is not None
    assert enough.mean < enough.high <= 1
