"""The two families by hand, and against scikit-learn itself."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.inference.estimators import AdvisorRateModel, LogisticModel


def test_advisor_rate_is_a_constant_hazard():
    found = AdvisorRateModel().fit().predict(np.array([[0.0], [0.025], [0.3], [1.0]]))
    assert found.shape == (4, 3)
    assert found[0].tolist() == [0, 0, 0]
    assert found[1, 1] == pytest.approx(1 - 0.975 ** (6 / 730.5))
    assert found[2].tolist() == pytest.approx([1 - 0.7 ** (hours / 730.5) for hours in (1, 6, 12)])
    assert found[3].tolist() == [1, 1, 1]
    # Over the whole month the rate itself comes back.
    month = AdvisorRateModel(horizons_h=[730.5]).predict(np.array([[0.175]]))  # type: ignore[list-item]
    assert month[0, 0] == pytest.approx(0.175)


def labelled(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(n, 2)) * [1.0, 50.0] + [0.0, 200.0]
    chance = 1 / (1 + np.exp(-(matrix[:, :1] + [[-2.0, -1.0, 0.0]])))
    labels = (generator.random((n, 3)) < chance).astype(float)
    labels[: n // 10, 2] = np.nan
    return matrix, labels


def test_logistic_is_scikit_learns_standardised_regression_per_horizon():
    matrix, labels = labelled()
    model = LogisticModel(feature_names=["a", "b"]).fit(matrix, labels)
    found = model.predict(matrix)
    for column in range(3):
        known = ~np.isnan(labels[:, column])
        scaler = StandardScaler().fit(matrix)
        regression = LogisticRegression(max_iter=1000).fit(scaler.transform(matrix[known]), labels[known, column])
        expected = make_pipeline(scaler, regression).predict_proba(matrix)[:, 1]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-12)


def test_censored_rows_teach_nothing():
    matrix, labels = labelled()
    wrong = labels.copy()
    wrong[np.isnan(labels)] = 1.0
    honest = LogisticModel(feature_names=["a", "b"]).fit(matrix, labels)
    fooled = LogisticModel(feature_names=["a", "b"]).fit(matrix, wrong)
    assert not np.allclose(honest.coef_[2], fooled.coef_[2])
    np.testing.assert_array_equal(honest.coef_[:2], fooled.coef_[:2])


def test_a_horizon_without_both_outcomes_cannot_be_fitted():
    matrix, labels = labelled()
    labels[:, 1] = 0.0
    with pytest.raises(NotEnoughData, match="at 6 h"):
        LogisticModel(feature_names=["a", "b"]).fit(matrix, labels)


def test_estimators_are_cloneable():
    assert cast("LogisticModel", clone(LogisticModel(feature_names=["a"], C=2.0))).get_params()["C"] == 2.0
    assert cast("AdvisorRateModel", clone(AdvisorRateModel())).get_params()["horizons_h"] == (1, 6, 12)
