"""The families that count and those that grow trees, and calibration: by hand, against scikit-learn, and kept whole."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.inference.artifacts import TRUSTED_TYPES
from spotlab_pipelines.inference.boosting import BoostingModel
from spotlab_pipelines.inference.calibration import (
    ISOTONIC,
    NO_CURVE,
    PLATT,
    CalibratedModel,
    apply_curve,
    fit_isotonic,
    fit_platt,
    log_odds,
)
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator, LogisticModel
from spotlab_pipelines.inference.rates import KNOTS_LOG_H, BaseRateModel, HazardModel

NAMES = ["log_hours_without_failure", "log_hours_failing", "history_missing"]


def labelled(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Pools that fail less the longer they have not; the last horizon is censored in a tenth of the rows."""
    generator = np.random.default_rng(7)
    matrix = np.column_stack([generator.uniform(0, 6, n), np.zeros(n), np.zeros(n)])
    chance = 1 / (1 + np.exp(matrix[:, :1] - [[1.0, 2.0, 3.0]]))
    labels = (generator.random((n, 3)) < chance).astype(float)
    labels[: n // 10, 2] = np.nan
    return matrix, labels


def families() -> list[HorizonEstimator]:
    return [
        BaseRateModel(),
        HazardModel(),
        LogisticModel(feature_names=NAMES),
        BoostingModel(feature_names=NAMES, max_iter=10),
    ]


@pytest.mark.parametrize("estimator", families(), ids=lambda each: type(each).__name__)
def test_every_family_fits_again_alike_and_comes_back_from_its_file(estimator: HorizonEstimator):
    matrix, labels = labelled()
    rows = matrix[:, [NAMES.index(name) for name in estimator.feature_names]]
    models = [clone(estimator).set_params(horizons_h=[hours]) for hours in (1, 6)]  # type: ignore[union-attr]
    models = [model.fit(rows, labels[:, [column]]) for column, model in enumerate(models)]
    raw = models[0].predict(rows)[:, 0]
    curves = [[fit_platt(raw, labels[:, 0], np.ones(len(labels)))], [NO_CURVE]]
    calibrated = CalibratedModel(models, curves, NAMES, [1, 6])
    found = calibrated.predict(matrix)
    assert found.shape == (3000, 2)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found[:, 0], apply_curve(curves[0][0], raw))
    np.testing.assert_array_equal(found[:, 1], models[1].predict(rows)[:, 0])
    again = clone(models[0]).fit(rows, labels[:, :1])  # type: ignore[union-attr]
    np.testing.assert_array_equal(again.predict(rows)[:, 0], raw)
    opened = skops.io.loads(skops.io.dumps(calibrated), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(opened.predict(matrix), found)
    assert (opened.feature_names, opened.horizons_h) == (NAMES, [1, 6])


def test_the_order_of_the_columns_is_that_of_the_names():
    matrix, labels = labelled(500)
    model = LogisticModel(feature_names=NAMES[:1], horizons_h=[1]).fit(matrix[:, :1], labels[:, :1])
    straight = CalibratedModel([model], [[]], NAMES, [1]).predict(matrix)
    turned = CalibratedModel([model], [[]], NAMES[::-1], [1]).predict(matrix[:, ::-1])
    np.testing.assert_array_equal(straight, turned)


@pytest.mark.parametrize("estimator", families(), ids=lambda each: type(each).__name__)
def test_no_family_is_fitted_on_one_outcome_and_censored_rows_teach_nothing(estimator: HorizonEstimator):
    matrix, labels = labelled()
    columns = [NAMES.index(name) for name in estimator.feature_names]
    matrix = matrix[:, columns]
    known = ~np.isnan(labels[:, 2])
    whole, part = clone(estimator).fit(matrix, labels), clone(estimator).fit(matrix[known], labels[known])  # type: ignore[union-attr]
    if isinstance(estimator, LogisticModel):
        # Its standardisation is learned from all rows.
        np.testing.assert_allclose(whole.predict(matrix)[:, 2], part.predict(matrix)[:, 2], atol=1e-3)
    else:
        np.testing.assert_array_equal(whole.predict(matrix)[:, 2], part.predict(matrix)[:, 2])
    with pytest.raises(NotEnoughData, match="at 12 h"):
        clone(estimator).fit(matrix, np.column_stack([labels[:, :2], np.zeros(len(labels))]))  # type: ignore[union-attr]


def test_the_base_rate_is_the_share_of_what_is_known():
    labels = np.array([[1.0, 1.0, np.nan], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = BaseRateModel().fit(np.zeros((4, 1)), labels).predict(np.zeros((2, 1)))
    np.testing.assert_allclose(found, [[1 / 4, 1 / 2, 1 / 3]] * 2)


def test_the_hazard_table_by_hand():
    """Ten pools seen available at the knot of one hour, four of which failed; twenty at that of eight, two failed."""
    one, eight = np.log1p(1.0), np.log1p(8.0)
    matrix = np.array([[one, 0.0, 0.0]] * 10 + [[eight, 0.0, 0.0]] * 20)
    outcome = np.array([1.0] * 4 + [0.0] * 6 + [1.0] * 2 + [0.0] * 18)
    model = HazardModel(smoothing=5.0).fit(matrix, np.tile(outcome[:, None], 3))
    rate = (6 + 5 * 6 / 30) / (30 + 5)
    at_one, at_eight, at_two = (4 + 5 * rate) / 15, (2 + 5 * rate) / 25, rate
    ask = np.array([[one, 0, 0], [eight, 0, 0], [np.log1p(2.0), 0, 0], [(one + np.log1p(2.0)) / 2, 0, 0]])
    found = model.predict(ask)[:, 0]
    np.testing.assert_allclose(found, [at_one, at_eight, at_two, (at_one + at_two) / 2])
    # Never seen failing, never seen unobserved: what is usual of all.
    np.testing.assert_allclose(model.predict(np.array([[0.0, 3.0, 0.0], [3.2, 0.0, 1.0]]))[:, 0], [0.2, 0.2])
    assert len(KNOTS_LOG_H) == model.table_.shape[2]


def test_boosting_says_what_scikit_learn_says():
    matrix, labels = labelled()
    model = BoostingModel(feature_names=NAMES, max_iter=15, min_samples_leaf=40).fit(matrix, labels)
    for column in range(3):
        known = ~np.isnan(labels[:, column])
        theirs = HistGradientBoostingClassifier(
            max_iter=15,
            learning_rate=0.05,
            max_leaf_nodes=4,
            min_samples_leaf=40,
            early_stopping=False,  # type: ignore[arg-type]
            random_state=0,
        ).fit(matrix[known], labels[known, column])
        np.testing.assert_allclose(
            model.predict(matrix)[:, column], theirs.predict_proba(matrix)[:, 1], rtol=0, atol=1e-14
        )


def test_many_rows_and_one_row_are_predicted_alike():
    matrix, labels = labelled(500)
    for estimator in families():
        rows = matrix[:, [NAMES.index(name) for name in estimator.feature_names]]
        model = estimator.fit(rows, labels)
        single = np.concatenate([model.predict(rows[row : row + 1]) for row in range(40)])
        np.testing.assert_allclose(single, model.predict(rows)[:40], rtol=1e-13)


def test_platt_finds_the_distortion_when_there_is_plenty():
    generator = np.random.default_rng(1)
    said = generator.uniform(0.05, 0.95, 60_000)
    true = 1 / (1 + np.exp(-(0.5 * log_odds(said) - 1.0)))
    outcome = (generator.random(60_000) < true).astype(float)
    method, map_, _ = fit_platt(said, outcome, np.ones(60_000))
    assert method == PLATT
    np.testing.assert_allclose(map_, [0.5, -1.0], atol=0.03)


def test_platt_leans_on_the_model_when_there_is_little():
    """Five rows that all failed do not make a model say that everything fails."""
    said = np.full(5, 0.2)
    curve = fit_platt(said, np.ones(5), np.ones(5))
    assert 0.2 < apply_curve(curve, np.array([0.2]))[0] < 0.55
    # What counts is how many independent rows there are, not how often they were looked at.
    alike = fit_platt(np.repeat(said, 100), np.ones(500), np.full(500, 0.01))
    np.testing.assert_allclose(alike[1], curve[1], rtol=1e-4)


def test_no_map_turns_the_order_around():
    said = np.linspace(0.01, 0.99, 2000)
    upside_down = (np.random.default_rng(0).random(2000) > said).astype(float)
    for fit in (fit_platt, fit_isotonic):
        after = apply_curve(fit(said, upside_down, np.ones(2000)), said)
        assert (np.diff(after) >= 0).all()


def test_isotonic_is_never_certain():
    method, before, after = fit_isotonic(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))
    assert method == ISOTONIC
    found = apply_curve((method, before, after), np.array([0.0, 0.15, 0.85, 1.0]))
    np.testing.assert_allclose(found, [1 / 6] * 2 + [5 / 6] * 2)


def test_nothing_is_calibrated_with_nothing():
    for fit in (fit_platt, fit_isotonic):
        with pytest.raises(NotEnoughData):
            fit(np.zeros(0), np.zeros(0), np.zeros(0))


def test_maps_are_applied_one_after_the_other():
    halved, raised = (PLATT, np.array([0.5, 0.0]), np.zeros(0)), (PLATT, np.array([1.0, 2.0]), np.zeros(0))
    base = AdvisorRateModel(horizons_h=[6])
    model = CalibratedModel([base], [[halved]], base.feature_names, [6]).through([raised])
    raw = base.predict(np.array([[0.1]]))
    np.testing.assert_allclose(log_odds(model.predict(np.array([[0.1]]))), 0.5 * log_odds(raw) + 2.0)
