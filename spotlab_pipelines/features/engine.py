"""The one function that turns pools into features, for serving and for training. Pure and vectorised.

What each feature means is said in specs.py; this module computes it and says why a pool has none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import FeatureOutOfRange, FeatureVersionMismatch
from spotlab_pipelines.features.specs import V1, check_ranges, get_spec
from spotlab_pipelines.features.windows import pool_codes
from spotlab_pipelines.market.frames import POOL_KEY

CARRIED = ["spot_price_usd_per_hour", "on_demand_usd_per_hour", "interrupt_rate_min", "interrupt_rate_max"]
"""Columns that travel with the features because placement weighs them."""

NO_PRICE = "no current price"
NO_ON_DEMAND = "no on-demand price"
NO_ADVISOR = "no Advisor entry"
FLAT_POSITION = 0.5
OPEN_BUCKET_MIN = 0.20


def compute_features(
    pools: pd.DataFrame, spec: str = "v1", *, open_bucket_rate: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the features of every pool that has what they need.

    Args:
        pools: one row a pool, in any order: region, instance_type, family, az_id, product, spot_price_usd_per_hour,
            price_min_usd_per_hour, price_max_usd_per_hour, on_demand_usd_per_hour, interrupt_rate_min,
            interrupt_rate_max. Floats are NaN where unknown, never infinite.
        spec: version of the feature spec.
        open_bucket_rate: monthly rate that stands for the Advisor's open bucket, in (0.20, 1).

    Returns:
        The features (pool key, the spec's columns, `CARRIED`) and the excluded pools (pool key, reason), both sorted by
        pool key, so that the order of `pools` cannot change a bit of the result. A pool that lacks several inputs is
        excluded for the first of: no current price, no on-demand price, no Advisor entry.

    Raises:
        FeatureVersionMismatch: this engine does not compute `spec`.
        FeatureOutOfRange: an input is infinite, not positive or outside its own window; the pools are named.
    """
    if get_spec(spec) is not V1:
        raise FeatureVersionMismatch(f"This engine computes feature spec {V1.version}; got {spec!r}.")
    code, keys = pool_codes(pools)
    if len(keys) != len(pools):
        raise FeatureOutOfRange(f"Expected one row a pool; got {len(pools)} rows of {len(keys)} pools.")
    order = np.argsort(code)
    spot, lowest, highest, on_demand, rate_min, rate_max = (
        pools[column].to_numpy(dtype=float)[order]
        for column in ("spot_price_usd_per_hour", "price_min_usd_per_hour", "price_max_usd_per_hour", *CARRIED[1:])
    )
    _check_inputs(keys, spot=spot, lowest=lowest, highest=highest, on_demand=on_demand, rates=(rate_min, rate_max))
    priced = ~np.isnan(spot)
    position = price_position(spot, lowest, highest)
    stress = family_stress(position, _group_codes(pools, order), priced)
    rate = historic_interrupt_rate(rate_min, rate_max, open_bucket_rate)
    included = priced & ~np.isnan(on_demand) & ~np.isnan(rate)

    matrix = np.column_stack([position, 1.0 - spot / on_demand, stress, rate])[included]
    key_columns = {column: keys[column].array[included] for column in POOL_KEY}
    check_ranges(matrix, V1, name_row=lambda row: tuple(values[row] for values in key_columns.values()))
    features = pd.DataFrame(
        {
            **key_columns,
            **{name: matrix[:, column] for column, name in enumerate(V1.names)},
            "spot_price_usd_per_hour": spot[included],
            "on_demand_usd_per_hour": on_demand[included],
            "interrupt_rate_min": rate_min[included],
            "interrupt_rate_max": rate_max[included],
        }
    )
    reason = np.where(~priced, NO_PRICE, np.where(np.isnan(on_demand), NO_ON_DEMAND, NO_ADVISOR))[~included]
    exclusions = pd.DataFrame(
        {
            **{column: keys[column].array[~included] for column in POOL_KEY},
            "reason": pd.Series(reason.astype(object), dtype="str"),
        }
    )
    return features, exclusions


def price_position(spot: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Where the price stands between the window's extremes, in [0, 1].

    0.5 where the extremes are equal: a price that never moved, or was observed once, is neither high nor low. NaN where
    there is no price. All arrays (n,), USD per hour.
    """
    span = highest - lowest
    position = np.full(len(spot), FLAT_POSITION)
    np.divide(spot - lowest, span, out=position, where=span > 0)
    position[np.isnan(spot)] = np.nan
    return position


def family_stress(position: np.ndarray, group: np.ndarray, priced: np.ndarray) -> np.ndarray:
    """The mean position of the priced pools in each pool's (region, family); all arrays (n,), NaN without any."""
    size = int(group.max(initial=-1)) + 1
    total = np.bincount(group[priced], weights=position[priced], minlength=size)
    count = np.bincount(group[priced], minlength=size)
    with np.errstate(invalid="ignore"):
        # A mean of numbers in [0, 1] may exceed 1 in its last bit.
        return np.minimum(total / count, 1.0)[group]


def historic_interrupt_rate(rate_min: np.ndarray, rate_max: np.ndarray, open_bucket_rate: float) -> np.ndarray:
    """The midpoint of the Advisor's bucket; `open_bucket_rate` for the open last one, [0.20, 1.0]. NaN stays NaN."""
    return np.where(rate_min >= OPEN_BUCKET_MIN, open_bucket_rate, (rate_min + rate_max) / 2)


def _group_codes(pools: pd.DataFrame, order: np.ndarray) -> np.ndarray:
    region, _ = pd.factorize(pools["region"])
    family, families = pd.factorize(pools["family"])
    return (region * max(len(families), 1) + family)[order]


def _check_inputs(
    keys: pd.DataFrame,
    *,
    spot: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    on_demand: np.ndarray,
    rates: tuple[np.ndarray, np.ndarray],
) -> None:
    """Refuse what no market can say; NaN (unknown) passes, since it excludes the pool."""
    rules = {
        "spot_price_usd_per_hour must be finite and above 0": (spot <= 0) | np.isinf(spot),
        "on_demand_usd_per_hour must be finite and above 0": (on_demand <= 0) | np.isinf(on_demand),
        "spot price must lie between price_min and price_max": ~np.isnan(spot)
        & ~((lowest > 0) & (lowest <= spot) & (spot <= highest) & np.isfinite(highest)),
        "interrupt rates must satisfy 0 <= min < max <= 1": ~np.isnan(rates[0])
        & ~((rates[0] >= 0) & (rates[0] < rates[1]) & (rates[1] <= 1)),
    }
    for rule, broken in rules.items():
        if broken.any():
            rows = keys[broken].head(5).itertuples(index=False)
            named = "; ".join(f"{row.region} {row.instance_type}:{row.az_id}:{row.product}" for row in rows)
            raise FeatureOutOfRange(f"Expected: {rule}; {int(broken.sum())} pools break it: {named}.")
