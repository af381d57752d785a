"""From a frame of features to the matrix that a model takes: nothing missing, nothing out of its range. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.features.specs import FeatureSpec

SHOWN_ROWS = 5
"""How many offending rows an error names."""
LARGEST = float(np.finfo(np.float64).max)


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
    check_columns({name: matrix[:, column] for column, name in enumerate(spec.names)}, spec, name_row=name_row)


def check_columns(
    columns: Mapping[str, np.ndarray], spec: FeatureSpec, *, name_row: Callable[[int], object] = int
) -> None:
    """The same of the spec's columns by name, each (n,)."""
    problems = []
    for feature in spec.features:
        values = columns[feature.name]
        # NaN makes both extremes NaN, so that neither comparison holds.
        lowest, highest = values.min(initial=np.inf), values.max(initial=-np.inf)
        if not len(values) or (max(feature.minimum, -LARGEST) <= lowest and highest <= min(feature.maximum, LARGEST)):
            continue
        rows = np.flatnonzero(~(np.isfinite(values) & (values >= feature.minimum) & (values <= feature.maximum)))
        named = ", ".join(f"{name_row(row)} = {values[row]:g}" for row in rows[:SHOWN_ROWS])
        more = f" and {len(rows) - SHOWN_ROWS} more rows" if len(rows) > SHOWN_ROWS else ""
        problems.append(f"{feature.name} in [{feature.minimum:g}, {feature.maximum:g}], got row {named}{more}")
    if problems:
        raise FeatureOutOfRange(f"Expected finite values with {'; '.join(problems)}.")
