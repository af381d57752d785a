"""The shape of the decisions that this room takes in, checked at the door. No reading and no writing here."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from spotlab_pipelines.database.tables import DECISIONS, MODEL_ROLES, PIPELINE_MODES
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

PROBABILITIES = tuple(f"p_{pool}_{horizon}h" for pool in ("current", "target") for horizon in HORIZONS_H)
"""The wide form of the log's probabilities: p_current_1h … p_target_12h."""

LARGEST_AMOUNT = 1e9
"""Prices, costs and gains beyond this are no market's, and their sums would overflow once they are in the log."""


@lru_cache(maxsize=1)
def decisions_schema() -> DataFrameSchema:
    """Decisions: one row per (instance, version), unknown numbers NaN, none infinite or absurd."""
    import pandera.pandas as pa

    text = pa.Column("str", pa.Check.str_length(min_value=1))
    amount = pa.Column("float64", pa.Check.in_range(-LARGEST_AMOUNT, LARGEST_AMOUNT), nullable=True)
    probability = pa.Column("float64", pa.Check.in_range(0.0, 1.0), nullable=True)
    return pa.DataFrameSchema(
        {
            **dict.fromkeys(("account_id", "instance_id", "region", "model_version", "from_pool", "reason"), text),
            "model_role": pa.Column("str", pa.Check.isin(MODEL_ROLES)),
            "pipeline_mode": pa.Column("str", pa.Check.isin(PIPELINE_MODES)),
            "decision": pa.Column("str", pa.Check.isin(DECISIONS)),
            "acting": pa.Column(bool),
            "shadow": pa.Column(bool),
            # A frame without any target has no strings to take the dtype from.
            "to_pool": pa.Column("str", nullable=True, coerce=True),
            **dict.fromkeys(
                (
                    "from_price_usd_per_hour",
                    "to_price_usd_per_hour",
                    "from_cost_usd_per_hour",
                    "to_cost_usd_per_hour",
                    "gain",
                ),
                amount,
            ),
            "candidates_considered": pa.Column("int64", pa.Check.ge(0)),
            **dict.fromkeys(PROBABILITIES, probability),
            "features": pa.Column(object, nullable=True),
        },
        unique=["instance_id", "model_version"],
    )
