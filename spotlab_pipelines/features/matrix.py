"""From a frame of features to the matrices that a model takes: nothing missing, nothing out of its range. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.features.specs import FeatureSpec

SHOWN_ROWS = 5
"""How many offending rows an error names."""
BLOCK_VALUES = 2**18
"""Values of a block: 2 MB."""
LARGEST = float(np.finfo(np.float64).max)


def feature_columns(frame: pd.DataFrame, spec: FeatureSpec) -> list[np.ndarray]:
    """The spec's columns of `frame`, each (n,) float64, finite and within its range.

    Raises:
        FeatureMissing: a column is not there.
        FeatureOutOfRange: a value is NaN, infinite or out of range; the first rows are named by their index labels.
    """
    missing = [name for name in spec.names if name not in frame.columns]
    if missing:
        raise FeatureMissing(
            f"Feature spec {spec.version} needs the columns {', '.join(spec.names)}; missing: {', '.join(missing)}."
        )
    columns = {name: frame[name].to_numpy(dtype=float, na_value=np.nan) for name in spec.names}
    check_columns(columns, spec, name_row=lambda row: frame.index[row])
    return list(columns.values())


def row_blocks(columns: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
    """Matrices of some rows at a time, (≤ n, k) and not to be written to, as small as a processor's cache.

    One block even of no rows. Whoever predicts in blocks gets, for a row, the bits that the same blocks gave before.
    """
    rows, step = len(columns[0]), max(BLOCK_VALUES // len(columns), 1)
    for start in range(0, max(rows, 1), step):
        block = np.empty((min(step, rows - start), len(columns)))
        for place, column in enumerate(columns):
            block[:, place] = column[start : start + step]
        block.flags.writeable = False
        yield slice(start, start + len(block)), block


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
