"""The frame that leaves the inference room: one row per pool and version, as a pandera schema."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from spotlab_pipelines.accounts.frames import check_frame
from spotlab_pipelines.features.frames import pool_key_columns

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa


def check_predictions(frame: pd.DataFrame, horizons_h: tuple[int, ...]) -> pd.DataFrame:
    """Check a frame of predictions: p_<H>h in [0, 1] for each horizon; see `check_frame` for the error."""
    return check_frame(predictions_schema(horizons_h), frame, "Predictions")


@lru_cache
def predictions_schema(horizons_h: tuple[int, ...]) -> pa.DataFrameSchema:
    """Pool key, model_version and a probability per horizon."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            **pool_key_columns(),
            "model_version": pa.Column(str),
            **{f"p_{horizon}h": pa.Column(float, pa.Check.in_range(0, 1)) for horizon in horizons_h},
        },
        strict=True,
    )
