"""The one function that turns pools into features, for serving and for training. Pure and vectorised.

What each feature means is said in specs.py; this module computes it and says why a pool has none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange
from spotlab_pipelines.features.feature import FeatureSpec
from spotlab_pipelines.features.matrix import check_columns
from spotlab_pipelines.features.past import Past, with_indicators
from spotlab_pipelines.features.rows import KeyedRows
from spotlab_pipelines.features.specs import get_spec

CARRIED = ["spot_price_usd_per_hour", "on_demand_usd_per_hour", "interrupt_rate_min", "interrupt_rate_max"]
"""Columns that travel with the features because placement weighs them."""

REASONS = ("no current price", "no on-demand price", "no Advisor entry")
"""Why a pool has no features; the first that holds is named."""
INCLUDED = -1
FLAT_POSITION = 0.5
OPEN_BUCKET_MIN = 0.20


def compute_features(
    pools: pd.DataFrame, spec: str = "v1", *, open_bucket_rate: float, past: Past | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the features of every pool that has what they need.

    Args:
        pools: one row a pool, in any order: region, instance_type, family, az_id, product, spot_price_usd_per_hour,
            price_min_usd_per_hour, price_max_usd_per_hour, on_demand_usd_per_hour, interrupt_rate_min,
            interrupt_rate_max, and for v2 price_changed_at. Floats are NaN where unknown, never infinite. With a column
            sampled_at, one row a pool and instant. A spec that needs no market needs the pool key alone.
        spec: version of the feature spec.
        open_bucket_rate: monthly rate that stands for the Advisor's open bucket, in (0.20, 1).
        past: what lies behind the instant; v1 needs none.

    Returns:
        The features (pool key, the spec's columns, and `CARRIED` if the spec needs the market) and the excluded pools
        (pool key, reason), both sorted by instant and pool key, so that the order of `pools` cannot change a bit of the
        result. A pool that lacks several inputs is excluded for the first of: no current price, no on-demand price, no
        Advisor entry. What was never observed of a pool does not exclude it.

    Raises:
        FeatureVersionMismatch: there is no such spec.
        FeatureMissing: the spec looks back, and `past` lacks what it looks at.
        FeatureOutOfRange: an input is infinite, not positive or outside its own window, or a feature is out of its
            range; the pools are named.
    """
    wanted = get_spec(spec)
    keyed = KeyedRows.of(pools)
    columns: dict[str, np.ndarray] = {}
    carried: dict[str, np.ndarray] = {}
    reason = np.full(len(pools), INCLUDED, dtype=np.int8)
    if wanted.needs_market:
        columns, carried, reason = _market(pools, keyed, wanted, open_bucket_rate)
    included = reason == INCLUDED
    if wanted.needs_past:
        if past is None:
            raise FeatureMissing(f"Feature spec {spec} looks at the past of the pools; none was given.")
        looked_at = pd.DataFrame(keyed.keys(keyed.order))
        if wanted.needs_market:
            looked_at["price_changed_at"] = pools["price_changed_at"].array.take(keyed.order)
        columns |= with_indicators(past.columns(wanted, looked_at), wanted)

    key = keyed.keys(keyed.order[included])
    values = {name: columns[name][included] for name in wanted.names}
    check_columns(values, wanted, name_row=lambda row: tuple(of[row] for of in key.values()))
    features = pd.DataFrame({**key, **values, **{name: of[included] for name, of in carried.items()}}, copy=False)
    exclusions = pd.DataFrame(
        {
            **keyed.keys(keyed.order[~included]),
            "reason": pd.array(REASONS, dtype="str").take(reason[~included]),
        }
    )
    return features, exclusions


def _market(
    pools: pd.DataFrame, keyed: KeyedRows, spec: FeatureSpec, open_bucket_rate: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """The columns that come from prices and the Advisor, what travels with them, and why a row is left out."""
    spot, lowest, highest, on_demand, rate_min, rate_max = (
        pools[column].to_numpy(dtype=float).take(keyed.order)
        for column in ("spot_price_usd_per_hour", "price_min_usd_per_hour", "price_max_usd_per_hour", *CARRIED[1:])
    )
    rates = (rate_min, rate_max)
    _check_inputs(pools, keyed.order, spot=spot, lowest=lowest, highest=highest, on_demand=on_demand, rates=rates)
    priced, group = ~np.isnan(spot), keyed.families(pools["family"])
    position = price_position(spot, lowest, highest)
    discount = 1.0 - spot / on_demand
    rate = historic_interrupt_rate(rate_min, rate_max, open_bucket_rate)
    columns = {
        "price_position": position,
        "discount_depth": discount,
        "family_stress_index": family_stress(position, group, priced),
        "historic_interrupt_rate": rate,
    }
    if "discount_vs_family" in spec.names:
        columns["discount_vs_family"] = discount - group_mean(discount, group, ~np.isnan(discount))
    reason = np.full(len(spot), INCLUDED, dtype=np.int8)
    # The first reason wins, so it is written last.
    for code, missing in ((2, np.isnan(rate)), (1, np.isnan(on_demand)), (0, ~priced)):
        reason[missing] = code
    return columns, dict(zip(CARRIED, (spot, on_demand, rate_min, rate_max), strict=True)), reason


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
    # A mean of numbers in [0, 1] may exceed 1 in its last bit.
    return np.minimum(group_mean(position, group, priced), 1.0)


def group_mean(values: np.ndarray, group: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The mean of the known values in each row's group; all arrays (n,), NaN in a group without any."""
    size = int(group.max(initial=-1)) + 1
    total = np.bincount(group[known], weights=values[known], minlength=size)
    count = np.bincount(group[known], minlength=size)
    with np.errstate(invalid="ignore"):
        return (total / count)[group]


def historic_interrupt_rate(rate_min: np.ndarray, rate_max: np.ndarray, open_bucket_rate: float) -> np.ndarray:
    """The midpoint of the Advisor's bucket; `open_bucket_rate` for the open last one, [0.20, 1.0]. NaN stays NaN."""
    return np.where(rate_min >= OPEN_BUCKET_MIN, open_bucket_rate, (rate_min + rate_max) / 2)


def _check_inputs(
    pools: pd.DataFrame,
    order: np.ndarray,
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
            rows = pools.take(order[broken][:5]).itertuples(index=False)
            named = "; ".join(f"{row.region} {row.instance_type}:{row.az_id}:{row.product}" for row in rows)
            raise FeatureOutOfRange(f"Expected: {rule}; {int(broken.sum())} pools break it: {named}.")
