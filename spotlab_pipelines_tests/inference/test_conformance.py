"""The suite that any adapter must pass finds each fault by name, and ours have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import ModelNotConforming
from spotlab_pipelines.features.specs import SPECS, V1
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.boosting import BoostingModel
from spotlab_pipelines.inference.conformance import CHECKS, findings, probe, require_conforming
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator
from spotlab_pipelines_tests.inference.models import calibrated, logistic, of_spec


class Faulty(HorizonEstimator):
    """A model over v1 with one fault."""

    horizons_h = (1, 6, 12)
    feature_names = V1.names

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        self.calls += 1
        p = np.abs(X[:, :1]) / 4 * np.array([0.5, 0.75, 1.0])
        match self.fault:
            case "random":
                p = p + self.calls / 1e6
            case "ranks":
                p = p + np.linspace(0, 0.1, len(X))[:, None]
            case "means":
                p = p + X[:, 2:3].mean() / 10
            case "negative":
                p = p - 0.2
            case "above":
                p = p + 0.9
            case "NaN":
                p = np.where(p > 0.2, np.nan, p)
            case "writes":
                X[:, 0] = 0.0
            case "raises" if len(X) == 0:
                raise ValueError("no rows")
        return p


class Trusting(BaseModelAdapter):
    """Overrides what checks its input, each in a way of its own."""

    fault = ""

    def predict_batch(self, frame: pd.DataFrame, feature_version: str) -> np.ndarray:
        names = list(frame.columns[:4]) if self.fault == "order" else self.get_expected_features()
        if self.fault == "missing":
            frame = frame.reindex(columns=names, fill_value=0.5)
        if self.fault == "NaN":
            frame = frame.fillna(0.5)
        if self.fault == "clips":
            frame = frame.where(~np.isfinite(frame), frame.clip(-7, 1))
        if self.fault == "infinity":
            frame = frame.replace([np.inf, -np.inf], 0.5)
        if self.fault == "spec":
            feature_version = "v1"
        if self.fault == "falls":
            return super().predict_batch(frame, feature_version)[:, ::-1]
        if self.fault == "changes":
            frame["price_position"] = 0.5
        if self.fault == "order":
            frame = frame[names].set_axis(list(V1.names), axis=1)
        return super().predict_batch(frame, feature_version)

    def predict(self, features: Mapping[str, float]) -> dict[int, float]:
        found = super().predict(features)
        return {horizon: p / 2 for horizon, p in found.items()} if self.fault == "single" else found


def broken(model: BaseModelAdapter) -> set[str]:
    return {each.name for each in findings(model) if not each.passed}


def adapter(estimator: HorizonEstimator, spec: str = "v1") -> BaseModelAdapter:
    return BaseModelAdapter(version="some/1", feature_version=spec, estimator=estimator)


def test_ours_conform():
    models = [
        adapter(AdvisorRateModel()),
        adapter(logistic()),
        adapter(calibrated("v1")),
        adapter(calibrated("v1", BoostingModel, max_iter=5)),
        *(adapter(of_spec(spec)[0], spec) for spec in ("v2", "v2-history")),
    ]
    for model in models:
        require_conforming(model)
        assert [each.name for each in findings(model)] == list(CHECKS)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("random", {"deterministic"}),
        ("ranks", {"any order of rows", "batch equals single"}),
        ("means", {"batch equals single"}),
        ("negative", {"probabilities in [0, 1]"}),
        ("above", {"probabilities in [0, 1]"}),
        ("NaN", {"probabilities in [0, 1]"}),
        ("writes", {"input unchanged"}),
        ("raises", {"probabilities in [0, 1]"}),
    ],
)
def test_a_faulty_model_is_found_out_by_name(fault: str, named: set[str]):
    assert named <= broken(adapter(Faulty(fault)))
    with pytest.raises(ModelNotConforming, match=next(iter(named)).replace("[", r"\[")):
        require_conforming(adapter(Faulty(fault)))
    assert broken(adapter(Faulty(""))) == set()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("order", "any order of columns"),
        ("missing", "missing feature refused"),
        ("NaN", "NaN refused"),
        ("infinity", "infinity refused"),
        ("clips", "out of range refused"),
        ("spec", "other spec refused"),
        ("falls", "not falling with the horizon"),
        ("changes", "input unchanged"),
        ("single", "batch equals single"),
    ],
)
def test_a_faulty_adapter_is_found_out_by_name(fault: str, named: str):
    model = Trusting(version="some/1", feature_version="v1", estimator=Faulty(""))
    assert broken(model) == set()
    model.fault = fault
    assert named in broken(model)


def test_what_it_declares_is_held_against_its_spec_and_the_log():
    assert broken(adapter(AdvisorRateModel(horizons_h=(1, 6)))) == {"features declared"}
    assert "features declared" in broken(adapter(AdvisorRateModel(["historic_interrupt_rate"] * 2)))


@pytest.mark.parametrize("spec", sorted(SPECS))
def test_what_is_asked_is_valid_and_reaches_the_bounds(spec: str):
    asked = probe(spec)
    for feature in SPECS[spec].features:
        values = asked[feature.name]
        assert values.between(feature.minimum, feature.maximum).all()
        assert (values.min() == feature.minimum) or not np.isfinite(feature.minimum)
        assert (values.max() == feature.maximum) or not np.isfinite(feature.maximum)
