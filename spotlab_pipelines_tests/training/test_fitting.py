"""The one way to fit: reproducible, honest about what it was not fitted on, and better than no model."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.experiments.scorecard import scorecard
from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.boosting import BoostingModel
from spotlab_pipelines.inference.calibration import IDENTITY, ISOTONIC, PLATT, CalibratedModel
from spotlab_pipelines.inference.conformance import require_conforming
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator, LogisticModel
from spotlab_pipelines.inference.rates import BaseRateModel
from spotlab_pipelines.training import families, fitting
from spotlab_pipelines.training.backtest import (
    CONSTANT,
    TRAILING,
    advisor_forecast,
    judge,
    pools_of,
    recalibrated_forecasts,
    trailing_share,
)
from spotlab_pipelines.training.calibrating import choose_curve
from spotlab_pipelines.training.families import (
    FAMILIES,
    Candidate,
    candidates,
    check_family,
    default_spec,
    with_unobserved,
)
from spotlab_pipelines.training.fingerprint import fit_sha256
from spotlab_pipelines.training.fitting import Examples, Fitted, fit_family, predict
from spotlab_pipelines.training.folds import DAY_BLOCKS, DAY_US, HOUR_US, POOL_GROUPS, Places, day_blocks
from spotlab_pipelines.training.recalibrating import by_horizon, recalibrate
from spotlab_pipelines.training.trace_examples import trace_examples
from spotlab_pipelines_tests.training.traces import START, generated_trace

HORIZONS = (1, 6)
SPEC = "v2-history"
CUT_US = (START + pd.Timedelta(days=15)).value // 1000
TRACE = generated_trace()


@lru_cache(maxsize=1)
def frame() -> pd.DataFrame:
    return trace_examples(TRACE, feature_spec=SPEC, horizons_h=HORIZONS, open_bucket_rate=0.3)


@lru_cache(maxsize=1)
def parts() -> tuple[Examples, Examples]:
    everything = Examples.of(frame(), SPEC, HORIZONS)
    before = np.flatnonzero(everything.places.at < CUT_US)
    after = np.flatnonzero(everything.places.at >= CUT_US)
    return everything.take(before).known_by(CUT_US), everything.take(after)


def days(examples: Examples) -> np.ndarray:
    """The blocks of examples that are all of one region."""
    return examples.places.at // DAY_US


@lru_cache(maxsize=4)
def fitted(family: str) -> Fitted:
    return fit_family(family, parts()[0])


@pytest.mark.parametrize("family", ["time-in-state", "logistic"])
def test_a_model_of_history_beats_the_trailing_share_and_is_calibrated(family: str):
    test = parts()[1]
    pools = pools_of(frame().tail(len(test)))
    forecasts = {
        family: predict(fitted(family).model, test),
        CONSTANT: np.full(test.labels.shape, 0.3),
        TRAILING: np.tile(trailing_share(TRACE, test.places, pools)[:, None], 2),
    }
    found = judge(forecasts, test, days(test)).set_index(["horizon_h", "forecaster"])
    at_1h = found.loc[1]
    auc, skill, ece = (dict(at_1h[name]) for name in ("roc_auc", "brier_skill", "ece"))
    assert auc[family] > auc[TRAILING] + 0.02
    assert skill[family] > 0.1
    assert ece[family] < 0.06
    assert auc[CONSTANT] == 0.5
    assert at_1h["skill_over_constant"][CONSTANT] == 0
    assert at_1h["n"].nunique() == 1


def test_what_was_judged_was_not_fitted_on():
    """Out of fold and walking forward a model is never as good as on the rows that it was fitted on."""
    train, model = parts()[0], fitted("logistic")
    known = ~np.isnan(train.labels[:, 0]) & ~np.isnan(model.walked[:, 0])
    outcome = train.labels[known, 0]
    inside = scorecard(outcome, predict(model.model, train)[known, 0])
    blocked, walked = scorecard(outcome, model.blocked[known, 0]), scorecard(outcome, model.walked[known, 0])
    assert 0.6 < blocked.roc_auc < inside.roc_auc
    assert walked.log_loss > inside.log_loss
    # The first days have nothing before them.
    first = train.places.at < train.places.at.min() + DAY_US
    assert np.isnan(model.walked[first]).all()
    assert not np.isnan(model.blocked[first]).any()


def small() -> Examples:
    """Four pools, looked at every hour of ten days, that fail the sooner after a failure."""
    generator, spec, hours = np.random.default_rng(4), get_spec(SPEC), np.arange(240)
    places = Places(np.tile(np.arange(4), len(hours)), np.repeat(hours * HOUR_US, 4))
    matrix = np.zeros((len(places.at), len(spec.names)))
    matrix[:, spec.names.index("log_hours_without_failure")] = since = generator.uniform(0, 4, len(matrix))
    labels = (generator.random((len(matrix), 1)) < np.outer(np.exp(-since), [1.0, 1.3])).astype(float)
    return Examples(spec, HORIZONS, matrix, labels, places)


@pytest.mark.parametrize("side", ["before", "after"])
def test_what_is_said_of_a_held_out_block_does_not_depend_on_rows_within_the_longest_horizon_of_it(side: str):
    examples = small()
    at, block = examples.places.at, day_blocks(examples.places.at)
    held = block == 2
    first, last, embargo = at[held].min(), at[held].max(), max(HORIZONS) * HOUR_US
    near = (at >= first - embargo) & (at < first) if side == "before" else (at > last) & (at <= last + embargo)
    turned = replace(examples, labels=np.where(near[:, None], 1.0, examples.labels))
    # Of a base rate nothing but the rows that it was fitted on can be seen: it is not calibrated.
    mine, theirs = (fit_family("base-rate", each).blocked for each in (examples, turned))
    np.testing.assert_array_equal(mine[held], theirs[held])
    assert (mine[block == 0] != theirs[block == 0]).all(), "these rows are far enough from those that changed"


@pytest.mark.parametrize("family", ["base-rate", "time-in-state", "logistic"])
def test_walking_forward_a_model_knows_no_outcome_before_it_was_known(family: str):
    """Neither the model of the days before, nor its calibration, nor which it is."""
    examples = small()
    at, block = examples.places.at, day_blocks(examples.places.at)
    begins = at[block == 2].min()
    open_then = at[:, None] + np.array(HORIZONS) * HOUR_US > begins
    turned = replace(examples, labels=np.where(open_then, 1.0 - examples.labels, examples.labels))
    mine, theirs = (fit_family(family, each).walked for each in (examples, turned))
    told, later = (block == 1) | (block == 2), block > 2
    assert not np.isnan(mine[told]).any()
    np.testing.assert_array_equal(mine[told], theirs[told])
    assert (mine[later] != theirs[later]).all()


def test_labels_of_another_week_teach_nothing():
    """Were anything of the answer in the features, or of a test in what it is judged by, this would find it."""
    train = parts()[0]
    generator = np.random.default_rng(0)
    # Whole days are dealt out anew within each pool, so that the labels stay as clustered as they are.
    labels = train.labels.copy()
    for pool in np.unique(train.places.pool):
        rows = np.flatnonzero(train.places.pool == pool)
        labels[rows] = np.roll(labels[rows], int(generator.integers(len(rows) // 3, len(rows) // 2)), axis=0)
    shifted = Examples(train.spec, (1,), train.matrix, labels[:, :1], train.places)
    found = fit_family("logistic", shifted)
    known = ~np.isnan(labels[:, 0] + train.labels[:, 0] + found.blocked[:, 0])
    honest = scorecard(train.labels[known, 0], fitted("logistic").blocked[known, 0]).roc_auc
    # Not 0.5: stressed weeks follow each other by chance.
    assert scorecard(labels[known, 0], found.blocked[known, 0]).roc_auc < min(0.62, honest - 0.1)


class _PoolMean(HorizonEstimator):
    """Remembers the share of interruptions at each value of its first column: target encoding."""

    def __init__(self, feature_names: list[str], horizons_h: list[int]) -> None:
        self.feature_names, self.horizons_h = feature_names, horizons_h

    def fit(self, X, y):  # noqa: N803
        self.mean = pd.Series(y[:, 0]).groupby(X[:, 0]).mean()
        self.usual = float(np.nanmean(y))
        return self

    def predict(self, X) -> np.ndarray:  # noqa: N803
        return self.mean.reindex(X[:, 0]).fillna(self.usual).to_numpy()[:, None]


def test_what_a_model_remembers_of_a_day_or_a_pool_earns_nothing_out_of_fold():
    """A mean over all rows would leak; a mean inside the folds knows neither the day nor the pool of its test."""
    train = parts()[0]
    for number in (train.places.pool, train.places.at // (6 * HOUR_US)):
        matrix = train.matrix.copy()
        matrix[:, 0] = number
        named = Examples(train.spec, train.horizons_h, matrix, train.labels, train.places)
        way = Candidate(train.spec.names[:1], lambda: _PoolMean(list(train.spec.names[:1]), [1]))
        told, _ = fitting._out_of_fold(way, named, 1, blocks=DAY_BLOCKS, groups=POOL_GROUPS)
        known = ~np.isnan(train.labels[:, 0])
        inside = way.make().fit(matrix[:, :1], train.labels[:, :1]).predict(matrix[:, :1])[:, 0]
        assert scorecard(train.labels[known, 0], inside[known]).roc_auc > 0.55
        assert scorecard(train.labels[known, 0], told[known]).roc_auc < 0.52


class _Told(HorizonEstimator):
    """Says what its last column says; there is nothing to fit."""

    def __init__(self, feature_names: list[str]) -> None:
        self.feature_names, self.horizons_h = feature_names, [1]

    def fit(self, X, y):  # noqa: N803
        return self

    def predict(self, X) -> np.ndarray:  # noqa: N803
        return X[:, -1:]


def told(names: tuple[str, ...]) -> Candidate:
    return Candidate(names, lambda: _Told(list(names)))


def test_what_is_kept_is_what_says_best_of_other_days_and_pools(monkeypatch: pytest.MonkeyPatch):
    """Not the first of the candidates, nor the one that has learned its rows by heart."""
    names, examples = ("log_hours_without_failure",), small()
    examples = replace(examples, horizons_h=(1,), labels=examples.labels[:, :1])
    ways = [
        Candidate(names, lambda: BaseRateModel(feature_names=list(names), horizons_h=[1]), {"way": "one share"}),
        Candidate(names, lambda: _PoolMean(list(names), [1]), {"way": "by heart"}),
        Candidate(names, lambda: LogisticModel(feature_names=list(names), horizons_h=[1]), {"way": "slope"}),
    ]
    for first in range(3):
        monkeypatch.setattr(fitting, "candidates", lambda *_, first=first: ways[first:] + ways[:first])
        assert fit_family("any", examples).params["way_1h"] == "slope"


@pytest.mark.parametrize(
    ("towards_the_outcome", "columns"),
    [([0.05, -0.06, 0.05, -0.06, 0.05], 1), ([0.01, 0.02, 0.01, 0.02, 0.01], 2)],
    ids=["better by chance", "better on all days"],
)
def test_more_columns_have_to_be_better_by_more_than_a_standard_error(
    towards_the_outcome: list[float], columns: int, monkeypatch: pytest.MonkeyPatch
):
    examples = small()
    outcome, matrix, names = examples.labels[:, 0], examples.matrix.copy(), examples.spec.names
    matrix[:, 0] = outcome.mean()
    nudge = np.array(towards_the_outcome)[day_blocks(examples.places.at)]
    matrix[:, 1] = matrix[:, 0] + nudge * (outcome - matrix[:, 0])
    narrow, wide = (scorecard(outcome, matrix[:, column]).log_loss for column in (0, 1))
    assert wide < narrow, "in all it is better"
    monkeypatch.setattr(fitting, "candidates", lambda *_: [told(names[:1]), told(names[:2])])
    found = fit_family("any", replace(examples, horizons_h=(1,), matrix=matrix, labels=examples.labels[:, :1]))
    assert found.params["features_1h"] == " ".join(names[:columns])


def test_steps_are_learned_from_hours_not_from_how_often_they_were_looked_at(monkeypatch: pytest.MonkeyPatch):
    """Twenty pools, looked at every hour: of six hours only every sixth look tells something new."""
    said, outcome, _, _ = distorted(20 * 240, 1.0)
    spec = get_spec(SPEC)
    matrix = np.zeros((len(said), len(spec.names)))
    matrix[:, 0] = said
    places = Places(np.tile(np.arange(20), 240), np.repeat(np.arange(240) * HOUR_US, 20))
    monkeypatch.setattr(fitting, "candidates", lambda *_: [told(spec.names[:1])])
    found = fit_family("any", Examples(spec, HORIZONS, matrix, np.column_stack([outcome, outcome]), places))
    assert found.params["calibration_1h"] == ISOTONIC
    assert found.params["calibration_6h"] in (IDENTITY, PLATT)


def test_the_same_examples_in_any_order_give_the_same_hash_and_others_another():
    known = frame()[frame()["sampled_at"] < START + pd.Timedelta(days=4)]

    def fit(examples: pd.DataFrame) -> str:
        return fit_sha256(fit_family("logistic", Examples.of(examples, SPEC, (1,))).model)

    assert fit(known) == fit(known.sample(frac=1.0, random_state=3)) != fit(known.tail(len(known) - 1))


def test_the_hash_sees_every_array_of_a_model():
    model = fitted("logistic").model
    before = fit_sha256(model)
    array = model.models[1].coef_  # type: ignore[attr-defined]
    kept = array[0, 0]
    try:
        array[0, 0] = np.nextafter(kept, np.inf)
        assert fit_sha256(model) != before
    finally:
        array[0, 0] = kept
    assert fit_sha256(model.through(model.curves[0] * 2)) != before


def test_too_few_interruptions_are_named():
    train = parts()[0]
    few = Examples(train.spec, train.horizons_h, train.matrix, np.zeros(train.labels.shape), train.places)
    few.labels[:19, 0] = 1.0
    with pytest.raises(NotEnoughData, match="hold 19 interruptions within 1 h; 20 are needed"):
        fit_family("logistic", few)
    with pytest.raises(NotEnoughData, match=r"at least 20 .* 19 interruptions in \d+ rows at 1 h, 0"):
        judge({"any": np.full(few.labels.shape, 0.1)}, few, days(few))


def test_unknown_families_and_specs_that_lack_what_a_family_reads_are_named():
    with pytest.raises(InvalidInput, match="base-rate, advisor-rate, time-in-state, logistic, boosting"):
        candidates("forest", get_spec(SPEC), 1)
    with pytest.raises(InvalidInput, match=r"lacks historic_interrupt_rate\. Take --spec v1 or v2"):
        candidates("advisor-rate", get_spec(SPEC), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_a_spec_by_default_with_prices_if_it_can(family: str):
    spec = default_spec(family, from_trace=False)
    check_family(family, spec)
    assert get_spec(spec).needs_market or family == "time-in-state"
    if family != "advisor-rate":
        check_family(family, default_spec(family, from_trace=True), from_trace=True)


def test_a_pool_that_was_never_observed_is_what_pools_are_on_average():
    """The neutral values that stand in for its history are not taken at their word."""
    spec, train = get_spec(SPEC), parts()[0]
    row = np.array([[feature.neutral if feature.indicator else 0.0 for feature in spec.features]])
    row[0, spec.names.index("history_missing")] = 1.0
    rate = float(np.nanmean(train.labels[:, 0]))
    for family in ("logistic", "time-in-state"):
        model = fitted(family).model
        said = model.predict(row[:, train.columns(model.feature_names)])[0, 0]
        assert said == pytest.approx(rate, abs=0.08)


def test_an_indicator_that_varies_by_itself_is_left_alone():
    spec, train = get_spec(SPEC), parts()[0]
    more, _ = with_unobserved(train.matrix, train.labels, spec)
    assert len(more) == len(train) + -(-len(train) // families.UNOBSERVED_EVERY)
    matrix = train.matrix.copy()
    matrix[3, spec.names.index("history_missing")] = 1.0
    assert with_unobserved(matrix, train.labels, spec)[0] is matrix


def distorted(n: int, weight: float) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(2)
    said = generator.uniform(0.02, 0.98, n)
    outcome = (generator.random(n) < np.where(said > 0.5, 0.9, 0.1)).astype(float)
    return said, outcome, np.full(n, weight), np.arange(n) * 5 // n


def curve_of(said: np.ndarray, outcome: np.ndarray, weight: np.ndarray, block: np.ndarray) -> str:
    """The kind of map that is chosen for examples a minute apart."""
    return choose_curve(said, outcome, weight, block, at=np.arange(len(said)) * 60_000_000, embargo_us=HOUR_US)[0][0]


def test_steps_are_chosen_only_with_plenty_and_nothing_where_nothing_helps():
    assert curve_of(*distorted(20_000, 1.0)) == ISOTONIC
    # As many rows, but of few hours.
    assert curve_of(*distorted(20_000, 0.01)) in (IDENTITY, PLATT)
    generator = np.random.default_rng(3)
    said = generator.uniform(0.02, 0.98, 5000)
    honest = (generator.random(5000) < said).astype(float)
    assert curve_of(said, honest, np.ones(5000), np.arange(5000) // 1000) == IDENTITY


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_map_is_not_tried_on_what_lies_within_the_embargo_of_what_it_was_learned_from(side: str):
    said, outcome, weight, block = distorted(2000, 1.0)
    at, hour = np.arange(len(said)) * 60_000_000, 60
    held = np.flatnonzero(block == 2)
    near = np.arange(held[0] - hour, held[0]) if side == "before" else np.arange(held[-1] + 1, held[-1] + 1 + hour)

    def told(turned: np.ndarray) -> np.ndarray:
        outcomes = outcome.copy()
        outcomes[turned] = 1.0 - outcomes[turned]
        curve, found = choose_curve(said, outcomes, weight, block, at=at, embargo_us=HOUR_US)
        assert curve[0] == ISOTONIC
        return found[held]

    np.testing.assert_array_equal(told(near), told(near[:0]))
    beyond = near - hour if side == "before" else near + hour
    assert (told(beyond) != told(near[:0])).any()


def test_recalibration_on_a_short_prefix_mends_a_model_from_elsewhere():
    test = parts()[1]
    said = predict(fitted("logistic").model, test)
    elsewhere = said / (said + 4.0 * (1.0 - said))
    forecasts = {
        "elsewhere": elsewhere,
        **recalibrated_forecasts("elsewhere", elsewhere, test, since_us=CUT_US, days=1.5),
    }
    found = judge(forecasts, test, days(test)).set_index(["horizon_h", "forecaster"]).loc[1]
    assert list(found.index[1:]) == [
        "elsewhere, recalibrated once", "elsewhere, recalibrated daily",
    ]  # fmt: skip
    assert (found["ece"].iloc[1:] < 0.7 * found["ece"].iloc[0]).all()
    assert (found["brier_skill"].iloc[1:] > found["brier_skill"].iloc[0] + 0.02).all()


def test_what_is_recalibrated_says_what_it_said_and_a_users_own_class_is_left_alone():
    advisor, rates = AdvisorRateModel(), np.array([[0.025], [0.3]])
    np.testing.assert_allclose(by_horizon("advisor-rate/1", advisor).predict(rates), advisor.predict(rates), rtol=1e-14)
    with pytest.raises(InvalidInput, match="mine/1 is a _PoolMean"):
        by_horizon("mine/1", _PoolMean(["history_missing"], [1]))


def test_the_figures_of_a_recalibration_are_of_maps_that_did_not_know_the_day():
    """Turning a day's outcomes around changes what is said of other days, and of that day nothing."""
    test, model = parts()[1], fitted("logistic").model
    day = test.places.at // DAY_US == test.places.at[len(test) // 2] // DAY_US
    turned = Examples(
        test.spec, test.horizons_h, test.matrix, np.where(day[:, None], 1 - test.labels, test.labels), test.places
    )
    mine, theirs = recalibrate(model, test), recalibrate(model, turned)
    np.testing.assert_array_equal(mine.blocked[day], theirs.blocked[day])
    np.testing.assert_array_equal(mine.walked[day], theirs.walked[day])
    assert not np.array_equal(mine.blocked[~day], theirs.blocked[~day])
    assert not np.array_equal(predict(mine.model, test), predict(theirs.model, test))
    first = test.places.at < test.places.at.min() + DAY_US
    assert np.isnan(mine.walked[first]).all()
    nobody = Examples(test.spec, test.horizons_h, test.matrix, test.labels * 0, test.places)
    with pytest.raises(NotEnoughData, match="hold 0 interruptions"):
        recalibrate(model, nobody)


def test_recalibration_knows_no_outcome_before_it_was_known():
    """What was not known within 6 h when a day began changes nothing of what is said of that day and those before."""
    test = parts()[1]
    said = predict(fitted("logistic").model, test)
    later = CUT_US + 3 * DAY_US
    labels = np.where((test.places.at + 6 * HOUR_US > later)[:, None], 1.0 - test.labels, test.labels)
    turned = Examples(test.spec, test.horizons_h, test.matrix, labels, test.places)
    mine, theirs = (recalibrated_forecasts("any", said, each, since_us=CUT_US, days=1) for each in (test, turned))
    # All of the day that begins then is told by what was known when it began.
    same = test.places.at < later + DAY_US
    for name in mine:
        np.testing.assert_array_equal(mine[name][same, 1], theirs[name][same, 1])
    daily = list(mine)[1]
    assert not np.array_equal(mine[daily], theirs[daily], equal_nan=True)


def test_the_trailing_share_by_hand():
    pool = TRACE[TRACE["instance_type"] == "p0.large"]
    at = frame()[frame()["instance_type"] == "p0.large"].tail(5)
    places = Examples.of(at, SPEC, HORIZONS).places
    for instant, found in zip(at["sampled_at"], trailing_share(TRACE, places, pools_of(at)), strict=True):
        window = (pool["observed_at"] <= instant) & (pool["observed_at"] > instant - pd.Timedelta(hours=24))
        assert found == pytest.approx(1 - pool["available"][window].mean())


def test_the_advisor_says_nothing_where_it_does_not_list_a_type():
    pools = pools_of(frame()).drop_duplicates().reset_index(drop=True)
    advisor = pd.DataFrame(
        {
            "region": "us-west-2", "os": "Linux", "instance_type": pools["instance_type"].unique(),
            "interrupt_rate_min": 0.05, "interrupt_rate_max": 0.10,
        }
    ).astype({"region": "str", "os": "str"})  # fmt: skip
    found = advisor_forecast(advisor, pools, horizons_h=HORIZONS, open_bucket_rate=0.3)
    assert found is not None
    np.testing.assert_allclose(found[0], [1 - 0.925 ** (h / 730.5) for h in HORIZONS])
    assert advisor_forecast(advisor.tail(2), pools, horizons_h=HORIZONS, open_bucket_rate=0.3) is None


@pytest.mark.parametrize("family", ["base-rate", "time-in-state", "logistic"])
def test_every_family_conforms_to_what_is_asked_of_a_served_model(family: str):
    short = fitted(family).model
    twelve = CalibratedModel(
        [*short.models, short.models[-1]], [*short.curves, short.curves[-1]], short.feature_names, [1, 6, 12]
    )
    require_conforming(BaseModelAdapter(version=f"{family}/1", feature_version=SPEC, estimator=twelve))


def test_boosted_trees_conform_too():
    train = parts()[0]
    model = BoostingModel(feature_names=list(train.spec.names), horizons_h=[1], max_iter=5)
    model.fit(train.matrix, train.labels[:, :1])
    trees = CalibratedModel([model] * 3, [[]] * 3, model.feature_names, [1, 6, 12])
    require_conforming(BaseModelAdapter(version="boosting/1", feature_version=SPEC, estimator=trees))
