"""What an adapter promises to the pipeline: refused by name, or probabilities that do not fall with the horizon."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange, FeatureVersionMismatch, ModelError
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator
from spotlab_pipelines_tests.inference.models import example, logistic


class Fixed(HorizonEstimator):
    """Predicts what it is told, whatever comes in."""

    feature_names = ("price_position",)
    horizons_h = (1, 6, 12)

    def __init__(self, answer: object = ()) -> None:
        self.answer = answer
        self.asked = 0

    def predict(self, X: object) -> np.ndarray:  # noqa: N803
        self.asked += 1
        return np.asarray(self.answer)


def adapter(estimator: HorizonEstimator | None = None) -> BaseModelAdapter:
    return BaseModelAdapter(version="logistic/1", feature_version="v1", estimator=estimator or logistic())


def values(frame: pd.DataFrame, row: int) -> dict[str, float]:
    """A row by name."""
    return {str(name): float(value) for name, value in frame.iloc[row].items()}


def test_it_declares_what_it_reads():
    model = adapter()
    assert model.get_feature_version() == "v1"
    assert model.get_expected_features()[0] == "price_position"
    assert BaseModelAdapter(
        version="advisor-rate/1", feature_version="v1", estimator=AdvisorRateModel()
    ).get_expected_features() == ["historic_interrupt_rate"]


def test_an_unknown_spec_or_feature_is_refused_when_it_is_built():
    with pytest.raises(FeatureVersionMismatch, match="v9"):
        BaseModelAdapter(version="logistic/1", feature_version="v9", estimator=logistic())
    with pytest.raises(FeatureMissing, match="hour_of_week"):
        adapter(AdvisorRateModel(feature_names=["hour_of_week"]))


def test_one_pool_equals_its_row_of_the_batch_whatever_the_order():
    model, frame = adapter(), example()
    batch = model.predict_batch(frame[frame.columns[::-1]], "v1")
    assert batch.shape == (2, 3)
    features = dict(reversed(values(frame, 1).items()))
    assert list(model.predict(features).values()) == pytest.approx(batch[1].tolist(), rel=1e-15)
    assert model.predict_with_validation(features, "v1") == model.predict(features)
    assert model.preprocess(features).tolist() == [frame.iloc[1].tolist()]


def test_probabilities_do_not_fall_with_the_horizon():
    model = adapter(Fixed([[0.3, 0.2, 0.4], [0.1, 0.1, 0.05]]))
    assert model.predict_batch(example(), "v1").tolist() == [[0.3, 0.3, 0.4], [0.1, 0.1, 0.1]]


def test_a_wrong_feature_version_is_refused_before_anything_is_predicted():
    estimator = Fixed([[0.1, 0.2, 0.3]] * 2)
    model = adapter(estimator)
    with pytest.raises(FeatureVersionMismatch, match=r"logistic/1.*v1.*'v2'"):
        model.predict_batch(example(), "v2")
    with pytest.raises(FeatureVersionMismatch):
        model.predict_with_validation(values(example(), 0), "v2")
    assert estimator.asked == 0


def test_a_missing_feature_is_refused_by_name_before_anything_is_predicted():
    estimator = Fixed([[0.1, 0.2, 0.3]] * 2)
    model = adapter(estimator)
    with pytest.raises(FeatureMissing, match="missing: price_position"):
        model.predict_batch(example().drop(columns="price_position"), "v1")
    with pytest.raises(FeatureMissing, match="missing: price_position"):
        model.predict({"discount_depth": 0.5})
    assert estimator.asked == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.01, -0.01])
def test_a_value_out_of_range_is_refused_with_its_row_before_anything_is_predicted(bad: float):
    estimator = Fixed([[0.1, 0.2, 0.3]] * 2)
    model, frame = adapter(estimator), example()
    frame.loc[1, "price_position"] = bad
    with pytest.raises(FeatureOutOfRange, match=r"price_position.*row 1"):
        model.predict_batch(frame, "v1")
    with pytest.raises(FeatureOutOfRange, match="price_position"):
        model.predict(values(frame, 1))
    assert estimator.asked == 0


@pytest.mark.parametrize("answer", [[[0.1, 0.2, 1.2]] * 2, [[0.1, 0.2, math.nan]] * 2, [[0.1, 0.2]] * 2, [0.1, 0.2]])
def test_a_model_that_gives_no_probabilities_is_an_error(answer: list):
    with pytest.raises(ModelError, match="logistic/1"):
        adapter(Fixed(answer)).predict_batch(example(), "v1")


def test_no_pools_no_probabilities():
    assert adapter().predict_batch(example().iloc[:0], "v1").shape == (0, 3)
