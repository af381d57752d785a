"""The feature specs, as data: what a model may expect, in which unit and range. How they are computed is engine.py's.

A spec never changes once a model was fitted on it; a new idea is a new spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange, FeatureVersionMismatch

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 5
"""How many offending rows an error names."""


@dataclass(frozen=True)
class Feature:
    """One number that a model sees of a pool. It is always finite and within [minimum, maximum]."""

    name: str
    formula: str
    minimum: float
    maximum: float
    unit: str
    source: str
    required: bool = True


@dataclass(frozen=True)
class FeatureSpec:
    """A named, ordered list of features; the order is the order of a model's columns."""

    version: str
    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of a model's columns."""
        return tuple(feature.name for feature in self.features)

    def subset(self, names: tuple[str, ...]) -> FeatureSpec:
        """The same spec with only `names`, in their order.

        Raises:
            FeatureMissing: the spec has no feature of that name.
        """
        by_name = {feature.name: feature for feature in self.features}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise FeatureMissing(f"Feature spec {self.version} has {', '.join(self.names)}; it has no {unknown}.")
        return FeatureSpec(self.version, tuple(by_name[name] for name in names))


V1 = FeatureSpec(
    "v1",
    (
        Feature(
            name="price_position",
            formula=(
                "(current price − lowest) / (highest − lowest) over the price window (7 days), the price that was in"
                " force when the window opened included; 0.5 if the price never moved, since it is neither high nor low"
            ),
            minimum=0.0,
            maximum=1.0,
            unit="fraction",
            source="DescribeSpotPriceHistory",
        ),
        Feature(
            name="discount_depth",
            formula="1 − spot price / on-demand price of the type; negative where Spot costs more than on-demand",
            minimum=-math.inf,
            maximum=1.0,
            unit="fraction of the on-demand price",
            source="DescribeSpotPriceHistory, Pricing",
        ),
        Feature(
            name="family_stress_index",
            formula=(
                "mean price_position over all pools of the instance family in the region that have a current price,"
                " every product and the pool itself included"
            ),
            minimum=0.0,
            maximum=1.0,
            unit="fraction",
            source="DescribeSpotPriceHistory",
        ),
        Feature(
            name="historic_interrupt_rate",
            formula=(
                "midpoint of the Advisor's bucket of the trailing month (2.5, 7.5, 12.5, 17.5 %); the open last bucket"
                " [20 %, 100 %] counts as the setting open_bucket_rate"
            ),
            minimum=0.0,
            maximum=1.0,
            unit="interruptions per instance and month",
            source="Spot Advisor",
        ),
    ),
)

SPECS = {spec.version: spec for spec in (V1,)}


def get_spec(version: str) -> FeatureSpec:
    """The spec of that version.

    Raises:
        FeatureVersionMismatch: there is none.
    """
    if version not in SPECS:
        raise FeatureVersionMismatch(f"Expected one of the feature specs {sorted(SPECS)}; got {version!r}.")
    return SPECS[version]


def feature_matrix(frame: pd.DataFrame, spec: FeatureSpec) -> np.ndarray:
    """The spec's columns of `frame` as an (n, k) float64 array, each value finite and within its range.

    Raises:
        FeatureMissing: a column is not there.
        FeatureOutOfRange: a value is NaN, infinite or out of range; the first rows are named by their index labels.
    """
    missing = [name for name in spec.names if name not in frame.columns]
    if missing:
        raise FeatureMissing(
            f"Feature spec {spec.version} needs the columns {', '.join(spec.names)}; missing: {', '.join(missing)}."
        )
    matrix = np.empty((len(frame), len(spec.names)))
    for column, name in enumerate(spec.names):
        matrix[:, column] = frame[name].to_numpy(dtype=float, na_value=np.nan)
    check_ranges(matrix, spec, name_row=lambda row: frame.index[row])
    return matrix


def check_ranges(matrix: np.ndarray, spec: FeatureSpec, *, name_row: Callable[[int], object] = int) -> None:
    """Refuse an (n, k) matrix with a value that is NaN, infinite or outside the range of its feature.

    Raises:
        FeatureOutOfRange: names the feature, the values and the rows, as `name_row` calls them.
    """
    lowest = np.array([feature.minimum for feature in spec.features])
    highest = np.array([feature.maximum for feature in spec.features])
    valid = np.isfinite(matrix) & (matrix >= lowest) & (matrix <= highest)
    if valid.all():
        return
    problems = []
    for column in np.flatnonzero(~valid.all(axis=0)):
        rows = np.flatnonzero(~valid[:, column])
        named = ", ".join(f"{name_row(row)} = {matrix[row, column]:g}" for row in rows[:SHOWN_ROWS])
        more = f" and {len(rows) - SHOWN_ROWS} more rows" if len(rows) > SHOWN_ROWS else ""
        feature = spec.features[column]
        problems.append(f"{feature.name} in [{feature.minimum:g}, {feature.maximum:g}], got row {named}{more}")
    raise FeatureOutOfRange(f"Expected finite values with {'; '.join(problems)}.")
