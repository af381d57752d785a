"""Models that need no training, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.features.specs import V1, get_spec
from spotlab_pipelines.inference.calibration import CalibratedModel, fit_isotonic
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator, LogisticModel
from spotlab_pipelines.inference.fitted_on import NO_DATA
from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion
from spotlab_pipelines.settings import HORIZONS_H


def example() -> pd.DataFrame:
    """Two rows of features of spec v1."""
    return pd.DataFrame(
        {
            "price_position": [0.2, 0.9],
            "discount_depth": [0.6, -0.1],
            "family_stress_index": [0.3, 0.7],
            "historic_interrupt_rate": [0.025, 0.3],
        }
    )


def invented(seed: int = 0) -> pd.DataFrame:
    """Training features of spec v1: 300 invented rows."""
    return pd.DataFrame(np.random.default_rng(seed).random((300, 4)), columns=list(V1.names))


def logistic(seed: int = 0) -> LogisticModel:
    """A logistic over all of v1, fitted on invented rows."""
    matrix, generator = invented(seed).to_numpy(), np.random.default_rng(seed + 1)
    labels = (generator.random((300, 3)) < matrix[:, 2:3] * [0.2, 0.5, 0.8]).astype(float)
    return LogisticModel(feature_names=list(V1.names)).fit(matrix, labels)


def of_spec(version: str, seed: int = 0) -> tuple[LogisticModel, pd.DataFrame]:
    """A logistic over all of a spec, fitted on invented rows that are in range, and some of these rows."""
    generator, names = np.random.default_rng(seed), list(get_spec(version).names)
    matrix = generator.random((300, len(names)))
    labels = (generator.random((300, 3)) < matrix[:, :1] * [0.2, 0.5, 0.8]).astype(float)
    return LogisticModel(feature_names=names).fit(matrix, labels), pd.DataFrame(matrix[:2], columns=names)


def calibrated(spec: str, kind: type[Any] = LogisticModel, seed: int = 0, **parameters: Any) -> CalibratedModel:
    """A model of that kind for each horizon, each with an isotonic map, fitted on invented rows."""
    generator, names = np.random.default_rng(seed), list(get_spec(spec).names)
    matrix = generator.random((300, len(names)))
    labels = (generator.random((300, 3)) < matrix[:, :1] * [0.2, 0.5, 0.8]).astype(float)
    models = [
        kind(feature_names=names, horizons_h=[horizon], **parameters).fit(matrix, labels[:, [column]])
        for column, horizon in enumerate(HORIZONS_H)
    ]
    curve = fit_isotonic(generator.random(200), (generator.random(200) < 0.3).astype(float), np.ones(200))
    return CalibratedModel(models, [[curve] for _ in models], names, list(HORIZONS_H))


def register(registry: ModelRegistry, family: str, estimator: HorizonEstimator, **changed: Any) -> ServingVersion:
    """Register a candidate."""
    base = {"feature_spec": "v1", "params": {"C": 1.0}, "metrics": {"auc_6h": 0.7}, "registered_by": "a test"}
    return registry.register(estimator, family=family, **{"example": example(), **base, **changed})


def register_of_spec(registry: ModelRegistry, version: str, role: str = "challenger") -> str:
    """A logistic of that spec, approved; its family is named by the spec."""
    model, rows = of_spec(version)
    registered = register(registry, f"logistic-{version}", model, feature_spec=version, example=rows).version
    return registry.approve(registered, role=role).version


def register_both(registry: ModelRegistry) -> tuple[str, str]:
    """advisor-rate/1 as champion and logistic/1 as challenger; returns their versions."""
    champion = register(registry, "advisor-rate", AdvisorRateModel(), params={"source": NO_DATA}).version
    registry.approve(champion)
    registry.promote(champion)
    challenger = register(registry, "logistic", logistic(), training=invented()).version
    registry.approve(challenger, role="challenger")
    return champion, challenger
