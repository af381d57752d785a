"""The market as LINEAR weighs it: pools as arrays, and the best two candidates of every group of instances. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.market.frames import joined, places

NONE = -1
"""No pool: the index that stands for an unknown pool or for no candidate."""


@dataclass(frozen=True)
class MarketArrays:
    """Every pool with features, as arrays; P pools, V versions, K horizons.

    Attributes:
        features: the feature table, one row a pool.
        ids: (P,) text ids.
        spot: (P,) USD per hour.
        safe: (P,) whether the Advisor's bucket ends at or below the safe rate.
        probability: (V, P, K), NaN without a prediction.
        cost: (V, P) expected USD per hour, NaN without a prediction.
    """

    features: pd.DataFrame
    ids: pd.Index
    spot: np.ndarray
    safe: np.ndarray
    probability: np.ndarray
    cost: np.ndarray


@dataclass(frozen=True)
class BestTwo:
    """Per group of instances and version: the candidates' number and the two cheapest.

    Attributes:
        pool: (G, V, 2) index of the pool, NONE where there is none.
        count: (G, V) candidates that were compared.
        candidate: (G, P) whether a pool is safe and fits the group; a prediction is needed besides.
    """

    pool: np.ndarray
    count: np.ndarray
    candidate: np.ndarray


def pool_id(frame: pd.DataFrame) -> pd.Index:
    """The text ids `type:zone:product` of the rows; zone ids are unique over the regions."""
    return joined(frame, ("instance_type", "az_id", "product"), by=":")


def market_arrays(
    features: pd.DataFrame,
    predictions: pd.DataFrame,
    versions: list[str],
    *,
    horizons_h: tuple[int, ...],
    decision_horizon_h: int,
    interruption_cost_usd: float,
    safe_interruption_rate_max: float,
) -> MarketArrays:
    """Lay features and predictions side by side."""
    ids = pool_id(features)
    probability = np.full((len(versions), len(features), len(horizons_h)), np.nan)
    version = places(pd.Index(predictions["model_version"]), pd.Index(versions, dtype="str"))
    pool = places(pool_id(predictions), ids)
    known = (version != NONE) & (pool != NONE)
    columns = [predictions[f"p_{horizon}h"].to_numpy(dtype=float) for horizon in horizons_h]
    probability[version[known], pool[known]] = np.column_stack(columns)[known]
    spot = features["spot_price_usd_per_hour"].to_numpy(dtype=float)
    p_decision = probability[:, :, horizons_h.index(decision_horizon_h)]
    return MarketArrays(
        features=features,
        ids=ids,
        spot=spot,
        safe=features["interrupt_rate_max"].to_numpy(dtype=float) <= safe_interruption_rate_max,
        probability=probability,
        cost=spot + p_decision * interruption_cost_usd / decision_horizon_h,
    )


def best_two(groups: pd.DataFrame, market: MarketArrays, fits: pd.DataFrame) -> BestTwo:
    """The candidates of each group (region, instance_type, product): safe, fitting, in its region, with a prediction.

    The cheapest first; ties go to the lower Spot price, then to the pool's id. Two are enough: an instance that is in
    the first of them takes the second.
    """
    candidate = _fitting(groups, market.features, fits) & market.safe
    versions, pools = market.cost.shape
    pool = np.full((len(groups), versions, 2), NONE)
    count = np.zeros((len(groups), versions), dtype=np.int64)
    rank_of_id = np.argsort(np.argsort(market.ids.to_numpy(dtype=object), kind="stable"))
    for version in range(versions):
        order = np.lexsort((rank_of_id, market.spot, market.cost[version]))
        compared = candidate[:, order] & ~np.isnan(market.cost[version])[order]
        count[:, version] = compared.sum(axis=1)
        for place in range(min(2, pools)):
            found = compared.argmax(axis=1)
            there = compared[np.arange(len(groups)), found]
            pool[there, version, place] = order[found[there]]
            compared[np.arange(len(groups)), found] = False
    return BestTwo(pool=pool, count=count, candidate=candidate)


def _fitting(groups: pd.DataFrame, features: pd.DataFrame, fits: pd.DataFrame) -> np.ndarray:
    """(G, P): whether pool P is in group G's region and product and of a type that fits G's."""
    own, own_types = pd.factorize(groups["instance_type"])
    kind, kinds = pd.factorize(features["instance_type"])
    fit = np.zeros((len(own_types), len(kinds)), dtype=bool)
    row, column = places(pd.Index(fits["own_type"]), own_types), places(pd.Index(fits["instance_type"]), kinds)
    named = (row != NONE) & (column != NONE)
    fit[row[named], column[named]] = True
    market, markets = pd.factorize(joined(features, ("region", "product")))
    same_market = places(joined(groups, ("region", "product")), markets)[:, None] == market
    return fit[own][:, kind] & same_market
