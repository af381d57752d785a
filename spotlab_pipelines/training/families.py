"""What each family can be fitted as: the candidates among which blocked validation chooses. Pure.

The candidates are few and plain: with days of clustered events, more of them would be chosen by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.features.feature import CLOCK
from spotlab_pipelines.features.specs import SPECS, V1, V2_HISTORY, get_spec
from spotlab_pipelines.settings import HORIZONS_H
from spotlab_pipelines.training.trace_examples import check_spec

if TYPE_CHECKING:
    from spotlab_pipelines.features.specs import FeatureSpec
    from spotlab_pipelines.inference.estimators import HorizonEstimator

FAMILIES = ("base-rate", "advisor-rate", "time-in-state", "logistic", "boosting")
UNOBSERVED_EVERY = 50


@dataclass(frozen=True)
class Candidate:
    """One way to fit a family: its columns, and what makes an unfitted estimator of them."""

    names: tuple[str, ...]
    make: Callable[[], HorizonEstimator]
    params: dict[str, Any] = field(default_factory=dict)


def default_spec(family: str, *, from_trace: bool) -> str:
    """The feature spec of a family where none is named: with prices, unless there are none or it reads none."""
    return V2_HISTORY.version if from_trace or family == "time-in-state" else V1.version


def check_family(family: str, spec: str, *, from_trace: bool = False) -> None:
    """Refuse a family or feature spec that does not exist, or that do not fit together or with a trace.

    Raises:
        InvalidInput: as in `candidates`; or it needs prices, which a trace does not have.
        FeatureVersionMismatch: there is no such spec.
    """
    wanted = get_spec(spec)
    if from_trace and family in FAMILIES:
        if not any(_fits(family, each) for each in SPECS.values() if not each.needs_market):
            raise InvalidInput(
                f"{family} reads what the market says, and a trace tells only what happened to pools.",
                remedy="Leave out --trace: it learns from the accounts' Spot requests.",
            )
        check_spec(spec)
    candidates(family, wanted, HORIZONS_H[0])


def _fits(family: str, spec: FeatureSpec) -> bool:
    try:
        return bool(candidates(family, spec, HORIZONS_H[0]))
    except InvalidInput:
        return False


def candidates(family: str, spec: FeatureSpec, horizon_h: int) -> list[Candidate]:
    """The ways to fit a family on a feature spec at one horizon, those of the fewest columns first.

    Raises:
        InvalidInput: there is no such family, or the spec lacks what it reads.
    """
    from spotlab_pipelines.inference.boosting import BoostingModel
    from spotlab_pipelines.inference.estimators import AdvisorRateModel, LogisticModel
    from spotlab_pipelines.inference.rates import TIME_FEATURES, BaseRateModel, HazardModel

    def all_of(make: Callable[..., HorizonEstimator], names: tuple[str, ...], *grid: dict[str, Any]) -> list[Candidate]:
        lacking = [name for name in names if name not in spec.names]
        if lacking:
            fitting = [each.version for each in SPECS.values() if {*names} <= {*each.names}]
            raise InvalidInput(
                f"{family} reads {', '.join(names)}; feature spec {spec.version} lacks {', '.join(lacking)}.",
                remedy=f"Take --spec {' or '.join(fitting)}.",
            )
        base = {"feature_names": list(names), "horizons_h": [horizon_h]}
        return [Candidate(names, lambda params=params: make(**base, **params), params) for params in grid]

    # The hour of the week of a few weeks says as much of these weeks as of the hour: it has to earn its place.
    timeless = tuple(feature.name for feature in spec.features if feature.source != CLOCK)
    column_sets = sorted({timeless, spec.names} - {()}, key=len)
    match family:
        case "base-rate":
            return all_of(BaseRateModel, spec.names[:1], {})
        case "advisor-rate":
            return all_of(AdvisorRateModel, ("historic_interrupt_rate",), {})
        case "time-in-state":
            return all_of(HazardModel, TIME_FEATURES, {"smoothing": 20.0}, {"smoothing": 100.0})
        case "logistic":
            grid = [{"C": C} for C in (0.001, 0.01, 0.1, 1.0)]
            return [each for names in column_sets for each in all_of(LogisticModel, names, *grid)]
        case "boosting":
            grid = [{"max_leaf_nodes": leaves, "max_iter": 50, "learning_rate": 0.1} for leaves in (4, 8)]
            return [each for names in column_sets[:1] for each in all_of(BoostingModel, names, *grid)]
        case _:
            raise InvalidInput(f"Expected one of the families {', '.join(FAMILIES)}; got {family!r}.")


def with_unobserved(matrix: np.ndarray, labels: np.ndarray, spec: FeatureSpec) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on, and among them some as if nothing had been observed of their pool.

    Where examples come from what was observed, no row lacks it; a model would be asked in service about pools that were
    never seen, and take the neutral values that stand in for a history at their word. Every fiftieth row comes a second
    time with them, so that an unknown pool is what pools are on average. An indicator that varies by itself stays.

    Args:
        matrix: (n, k) of all of the spec's columns, in a fixed order. labels: (n, n_horizons).
    """
    column = {name: place for place, name in enumerate(spec.names)}
    unseen = {feature.indicator for feature in spec.features if feature.indicator}
    unseen = {name for name in unseen if not matrix[:, column[name]].any()}
    if not unseen:
        return matrix, labels
    copies = matrix[::UNOBSERVED_EVERY].copy()
    for feature in spec.features:
        if feature.indicator in unseen:
            copies[:, column[feature.name]] = feature.neutral
    for name in unseen:
        copies[:, column[name]] = 1.0
    return np.concatenate([matrix, copies]), np.concatenate([labels, labels[::UNOBSERVED_EVERY]])
