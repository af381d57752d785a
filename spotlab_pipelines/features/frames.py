"""The frames that enter and leave the features room, as pandera schemas. Ranges of single features are in specs.py."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from spotlab_pipelines.accounts.frames import TIME, check_frame
from spotlab_pipelines.market.fallback import NO_PRICE_SOURCE
from spotlab_pipelines.market.frames import POOL_KEY, PRICE_SOURCES

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa


def check_pools(frame: pd.DataFrame) -> pd.DataFrame:
    """Check a frame of pools; see `check_frame` for the error."""
    return check_frame(pools_schema(), frame, "Pools")


def check_features(frame: pd.DataFrame) -> pd.DataFrame:
    """Check a frame of features; see `check_frame` for the error."""
    return check_frame(features_schema(), frame, "Pool features")


@lru_cache
def pools_schema() -> pa.DataFrameSchema:
    """One row a pool: what is known of its price and its Advisor entry; NaN where unknown."""
    import pandera.pandas as pa

    usd = pa.Check.greater_than(0)
    return pa.DataFrameSchema(
        {
            **pool_key_columns(),
            "family": pa.Column(str),
            "spot_price_usd_per_hour": pa.Column(float, usd, nullable=True),
            "price_min_usd_per_hour": pa.Column(float, usd, nullable=True),
            "price_max_usd_per_hour": pa.Column(float, usd, nullable=True),
            "price_changes": pa.Column("int64", pa.Check.ge(0)),
            "price_changed_at": pa.Column(TIME, nullable=True),
            "on_demand_usd_per_hour": pa.Column(float, usd, nullable=True),
            "price_source": pa.Column(str, pa.Check.isin([*PRICE_SOURCES, NO_PRICE_SOURCE])),
            "interrupt_rate_min": pa.Column(float, pa.Check.in_range(0, 1), nullable=True),
            "interrupt_rate_max": pa.Column(float, pa.Check.in_range(0, 1), nullable=True),
        },
        strict=True,
    )


@lru_cache
def features_schema() -> pa.DataFrameSchema:
    """The features of spec v1 with what placement weighs; nothing is unknown here."""
    import pandera.pandas as pa

    fraction, usd = pa.Check.in_range(0, 1), pa.Check.greater_than(0)
    return pa.DataFrameSchema(
        {
            **pool_key_columns(),
            "price_position": pa.Column(float, fraction),
            "discount_depth": pa.Column(float, pa.Check.le(1)),
            "family_stress_index": pa.Column(float, fraction),
            "historic_interrupt_rate": pa.Column(float, fraction),
            "spot_price_usd_per_hour": pa.Column(float, usd),
            "on_demand_usd_per_hour": pa.Column(float, usd),
            "interrupt_rate_min": pa.Column(float, fraction),
            "interrupt_rate_max": pa.Column(float, fraction),
        },
        strict=True,
    )


def pool_key_columns() -> dict[str, pa.Column]:
    """The columns that name a pool."""
    import pandera.pandas as pa

    return {name: pa.Column(str) for name in POOL_KEY}
