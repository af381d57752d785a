"""Scoring a million pools with five versions against the bare estimators on ready matrices, the same calls in a loop.

The product opens nothing here (models are in memory, as in a running process); it assembles and checks the matrices,
predicts, checks the probabilities and makes the frame that is written and decided on.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spotlab_pipelines_tests.bench.measure import Figure, best_of

if TYPE_CHECKING:
    from spotlab_pipelines.inference.estimators import HorizonEstimator

ROUNDS = 3
ROWS = 1_000_000


def figures() -> list[Figure]:
    """Five versions of the quick kinds, where what is around the models weighs most; then with boosted trees."""
    from spotlab_pipelines.inference.boosting import BoostingModel
    from spotlab_pipelines.inference.estimators import AdvisorRateModel
    from spotlab_pipelines_tests.inference.models import calibrated, logistic, of_spec

    specs = {name: frame(name) for name in ("v1", "v2", "v2-history")}
    quick: list[tuple[str, HorizonEstimator]] = [
        ("v1", AdvisorRateModel()),
        ("v1", logistic(0)),
        ("v1", calibrated("v1")),
        ("v2", calibrated("v2")),
        ("v2-history", of_spec("v2-history")[0]),
    ]
    slow = [*quick[:2], ("v1", calibrated("v1", BoostingModel)), *quick[3:]]
    return [
        _figure("advisor-rate, logistics of three specs, two of them calibrated", quick, specs, rounds=ROUNDS),
        _figure("with boosted trees, 100 a horizon, calibrated", slow, specs, rounds=1),
    ]


def _figure(
    what: str, estimators: list[tuple[str, HorizonEstimator]], specs: dict[str, pd.DataFrame], *, rounds: int
) -> Figure:
    from spotlab_pipelines.inference.adapter import BaseModelAdapter
    from spotlab_pipelines.inference.batch import predict

    opened = {
        f"family{number}/1": BaseModelAdapter(version=f"family{number}/1", feature_version=spec, estimator=estimator)
        for number, (spec, estimator) in enumerate(estimators)
    }
    registry: Any = SimpleNamespace(open=lambda row: opened[row.version])
    rows: Any = [SimpleNamespace(version=version, role="champion") for version in opened]
    ready = [(estimator, specs[spec][list(estimator.feature_names)].to_numpy()) for spec, estimator in estimators]
    measured, floor = best_of(
        rounds,
        lambda: predict(registry, rows, specs),
        lambda: [estimator.predict(matrix) for estimator, matrix in ready],
    )
    name = f"{ROWS:,} pools × {len(estimators)} versions"
    return Figure(name, measured, "bare predict of each on its matrix", floor, 1.3, what)


def frame(spec: str) -> pd.DataFrame:
    """Features of a million pools, in range."""
    from spotlab_pipelines.features.specs import get_spec

    generator = np.random.default_rng(8)
    pool = np.arange(ROWS)
    texts = {
        "region": pd.array([f"region-{number}" for number in range(25)], dtype="str").take(pool % 25),
        "instance_type": pd.array([f"m{number}.xlarge" for number in range(400)], dtype="str").take(pool // 25 % 400),
        "az_id": pd.array([f"az{number}" for number in range(25)], dtype="str").take(pool // 10_000 % 25),
        "product": pd.array(["Linux/UNIX", "Windows", "SUSE Linux", "Red Hat"], dtype="str").take(pool // 250_000),
    }
    return pd.DataFrame({**texts, **{name: generator.random(ROWS) for name in get_spec(spec).names}})
