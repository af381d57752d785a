"""LINEAR: for each instance by itself, the cheapest safe pool that fits it. Pure and vectorised.

Instances in the same pool, under the same version, lifecycle and mode get the same answer, so each such case is decided
once. What candidates are is market.py's, the words of a reason are reasons.py's, tables and settings are decide.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.features.tables import MARKET_SPEC
from spotlab_pipelines.market.frames import joined, places
from spotlab_pipelines.placement.market import NONE, BestTwo, MarketArrays, best_two, market_arrays, pool_id
from spotlab_pipelines.placement.reasons import KIND, reasons

GROUP = ("region", "instance_type", "product")
"""Instances that share these have the same candidates and on-demand price."""
DECISION_OF_KIND = ["SWITCH", "STAY", "FALLBACK_ON_DEMAND", "SKIP", "SKIP", "SKIP", "SKIP", "SKIP"]
"""The decision that each kind of reason in reasons.py belongs to."""


@dataclass(frozen=True)
class Rules:
    """What a decision depends on besides the market. Money in USD, horizons in hours, the rest as fractions."""

    horizons_h: tuple[int, ...]
    decision_horizon_h: int
    interruption_cost_usd: float
    minimum_gain: float
    safe_interruption_rate_max: float
    environment: str


@dataclass(frozen=True)
class Scored:
    """One version's part in an evaluation: champion, challenger or none (only for instances assigned to it).

    `spec` is the feature spec that it predicted on; `failed` says why it predicted nothing, "" if it did.
    """

    version: str
    role: str
    spec: str = MARKET_SPEC
    failed: str = ""


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation knows when it comes to deciding.

    Attributes:
        instances: the running fleet.
        pools: every pool of the snapshot; gives on-demand prices by (region, instance_type, product).
        features, exclusions: what the feature engine gave of MARKET_SPEC.
        predictions: pool key, model_version, p_<H>h.
        fits: own_type, instance_type: which type may stand in for which.
        scored: the versions that predicted or failed to, the champion first.
        more_features: the features of the other specs that versions saw, by spec.
    """

    instances: pd.DataFrame
    pools: pd.DataFrame
    features: pd.DataFrame
    exclusions: pd.DataFrame
    predictions: pd.DataFrame
    fits: pd.DataFrame
    scored: list[Scored]
    more_features: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cases:
    """The distinct cases to decide; (n,) arrays. `instance` is one that stands for all of a case, `here` its pool."""

    instance: np.ndarray
    version: np.ndarray
    group: np.ndarray
    here: pd.Index
    pool: np.ndarray
    is_spot: np.ndarray
    linear: np.ndarray
    on_demand: np.ndarray


def decide_linear(evaluated: Evaluated, rules: Rules) -> pd.DataFrame:
    """Decide for every instance and every version that scored it.

    The expected cost of a pool is its Spot price + p_H × interruption cost / H, USD per hour; that of an on-demand
    instance is its on-demand price. Candidates are the pools of the instance's region and product whose type fits, that
    are safe (upper end of the Advisor's bucket at most `safe_interruption_rate_max`), have a prediction and are not the
    pool the instance is in. The best is the cheapest; ties go to the lower Spot price, then to the pool's id.

    With gain = (cost now − cost of the best) / on-demand price of the current type: SWITCH if the gain is at least
    `minimum_gain` and above 0; else STAY if the current pool is safe or the instance on-demand; else
    FALLBACK_ON_DEMAND. SKIP if it cannot be weighed: its version failed, no features or prediction for its pool, or a
    mode but LINEAR.

    Returns:
        One row per (instance, version); experiments/frames.py checks its shape. `gain` is that of the best candidate
        whatever was decided, null without one; to_* are null unless something moves.
    """
    market = market_arrays(
        evaluated.features,
        evaluated.predictions,
        [scored.version for scored in evaluated.scored],
        horizons_h=rules.horizons_h,
        decision_horizon_h=rules.decision_horizon_h,
        interruption_cost_usd=rules.interruption_cost_usd,
        safe_interruption_rate_max=rules.safe_interruption_rate_max,
    )
    instance, version, acting = _rows(evaluated.instances, evaluated.scored)
    cases, case_of_row, groups = _distinct(evaluated, market, instance, version)
    best = best_two(groups, market, evaluated.fits)
    decided = _decide(cases, evaluated, market, best, rules)
    rows = _of_rows(evaluated, rules, instance=instance, version=version, acting=acting)
    return pd.DataFrame(rows | {name: values.take(case_of_row) for name, values in decided.items()})


def _rows(instances: pd.DataFrame, scored: list[Scored]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (instance, version) pairs that get a decision, and whether the version acts for the instance."""
    versions = pd.Index([one.version for one in scored])
    assigned = instances["assigned_version"]
    own = np.where(assigned.isna(), 0, versions.get_indexer(pd.Index(assigned)))
    is_own = own[:, None] == np.arange(len(scored))
    has_role = np.array([one.role != "none" for one in scored])
    instance, version = np.nonzero(is_own | has_role)
    return instance, version, is_own[instance, version]


def _distinct(
    evaluated: Evaluated, market: MarketArrays, instance: np.ndarray, version: np.ndarray
) -> tuple[_Cases, np.ndarray, pd.DataFrame]:
    """The distinct cases, the case of each row, and the groups (region, instance_type, product) of the cases."""
    fleet = evaluated.instances
    ids = pool_id(fleet)
    is_spot = (fleet["lifecycle"] == "spot").to_numpy(dtype=bool)
    linear = (fleet["pipeline_mode"] == "LINEAR").to_numpy(dtype=bool)
    place, _ = pd.factorize(ids)
    mode, modes = pd.factorize(fleet["pipeline_mode"])
    alike = (place * 2 + is_spot) * max(len(modes), 1) + mode
    _, first, case_of_row = np.unique(
        alike[instance] * len(evaluated.scored) + version, return_index=True, return_inverse=True
    )
    group, names, groups = _keys(fleet)
    shown = instance[first]
    cases = _Cases(
        instance=shown,
        version=version[first],
        group=group[shown],
        here=ids.take(shown),
        pool=np.where(is_spot, places(ids, market.ids), NONE)[shown],
        is_spot=is_spot[shown],
        linear=linear[shown],
        on_demand=_on_demand(names, evaluated.pools)[group[shown]],
    )
    return cases, case_of_row, groups


def _decide(cases: _Cases, evaluated: Evaluated, market: MarketArrays, best: BestTwo, rules: Rules) -> dict[str, Any]:
    """The columns of the decisions that a case determines, (n,) each."""
    version, pool, spot = cases.version, cases.pool, cases.is_spot
    cost = np.where(spot, _at(market.cost, version, pool), cases.on_demand)
    price = np.where(spot, _at(market.spot, pool), cases.on_demand)
    first, second = best.pool[cases.group, version, 0], best.pool[cases.group, version, 1]
    target = np.where((pool != NONE) & (first == pool), second, first)
    own_is_compared = (pool != NONE) & best.candidate[cases.group, pool] & ~np.isnan(cost) if len(market.ids) else False
    count = best.count[cases.group, version] - own_is_compared
    target_cost = _at(market.cost, version, target)
    gain = (cost - target_cost) / cases.on_demand
    safe = ~spot | (_at(market.safe.astype(float), pool) == 1)
    switch = (gain >= rules.minimum_gain) & (gain > 0)
    failed = np.array([one.failed for one in evaluated.scored], dtype=object)[version]
    kind = np.select(
        [
            failed != "",
            ~cases.linear,
            np.isnan(cases.on_demand) & ~spot,
            spot & (pool == NONE),
            np.isnan(cost),
            switch,
            safe,
        ],
        [
            *(KIND[name] for name in ("failed", "cluster", "unpriced", "excluded", "unpredicted", "switch", "stay")),
        ],
        KIND["fallback"],
    )
    decision = pd.array(DECISION_OF_KIND, dtype="str").take(kind)
    stays, moves, falls = (kind == KIND[name] for name in ("stay", "switch", "fallback"))
    skipped = ~(stays | moves | falls)
    count, gain = np.where(skipped, 0, count), np.where(skipped, np.nan, gain)
    names = np.append(market.ids.to_numpy(dtype=object), "")
    columns = {
        "here": cases.here.to_numpy(dtype=object),
        "mode": evaluated.instances["pipeline_mode"].to_numpy(dtype=object)[cases.instance],
        "why": _why(evaluated.exclusions, cases.here),
        "failed": failed,
        "best": names[target],
        "candidates": count,
        "gain": gain,
        "cost": cost,
        "best_cost": target_cost,
        "on_demand": cases.on_demand,
        "rate_max": _at(market.features["interrupt_rate_max"].to_numpy(dtype=float), pool),
    }
    said = reasons(kind, columns, minimum_gain=rules.minimum_gain, safe_rate=rules.safe_interruption_rate_max)
    p_current = _at(market.probability, version, pool)
    p_target = _at(market.probability, version, np.where(moves, target, NONE))
    to_price = np.where(moves, _at(market.spot, target), np.where(falls, cases.on_demand, np.nan))
    return {
        "from_pool": cases.here.array,
        "to_pool": market.ids.array.take(np.where(moves, target, NONE), allow_fill=True),
        "from_price_usd_per_hour": price,
        "to_price_usd_per_hour": to_price,
        "from_cost_usd_per_hour": cost,
        "to_cost_usd_per_hour": np.where(moves, target_cost, to_price),
        "gain": gain,
        "candidates_considered": count.astype(np.int64),
        "decision": decision,
        "reason": pd.array(said, dtype="str"),
        **{f"p_current_{h}h": p_current[:, i] for i, h in enumerate(rules.horizons_h)},
        **{f"p_target_{h}h": p_target[:, i] for i, h in enumerate(rules.horizons_h)},
        "features": _features_seen(evaluated, market, version, pool),
    }


def _of_rows(
    evaluated: Evaluated, rules: Rules, *, instance: np.ndarray, version: np.ndarray, acting: np.ndarray
) -> dict[str, Any]:
    """The columns of the decisions that belong to each (instance, version) itself."""
    fleet, scored = evaluated.instances, evaluated.scored
    who = {column: fleet[column].array.take(instance) for column in ("account_id", "instance_id", "region")}
    shadow = ~acting | fleet["shadow"].to_numpy(dtype=bool)[instance] | (rules.environment == "PROD")
    return {
        **who,
        "model_version": pd.array([one.version for one in scored], dtype="str").take(version),
        "model_role": pd.array([one.role for one in scored], dtype="str").take(version),
        "acting": acting,
        "shadow": shadow,
        "pipeline_mode": fleet["pipeline_mode"].array.take(instance),
    }


def _at(values: np.ndarray, *index: np.ndarray) -> np.ndarray:
    """`values` at the index; NaN where the last index is NONE."""
    *before, last = index
    if values.shape[len(before)] == 0:
        return np.full((len(last), *values.shape[len(index) :]), np.nan)
    found = values[tuple(index)].astype(float)
    found[last == NONE] = np.nan
    return found


def _keys(fleet: pd.DataFrame) -> tuple[np.ndarray, pd.Index, pd.DataFrame]:
    """The group of each instance, and the groups: distinct (region, instance_type, product), joined and by column."""
    code, names = pd.factorize(joined(fleet, GROUP))
    _, first = np.unique(code, return_index=True)
    return code, names, pd.DataFrame({name: fleet[name].array.take(first) for name in GROUP})


def _on_demand(groups: pd.Index, pools: pd.DataFrame) -> np.ndarray:
    """(G,) on-demand price of each group's region, type and product; NaN if unknown."""
    price, group = pools["on_demand_usd_per_hour"].to_numpy(dtype=float), places(joined(pools, GROUP), groups)
    # The first price of a group holds, so it is written last.
    priced = np.flatnonzero((group != NONE) & ~np.isnan(price))[::-1]
    found = np.full(len(groups), np.nan)
    found[group[priced]] = price[priced]
    return found


def _why(exclusions: pd.DataFrame, here: pd.Index) -> np.ndarray:
    """Why each pool id was excluded, "not in the snapshot" if it was never there."""
    reason = np.append(exclusions["reason"].to_numpy(dtype=object), "not in the snapshot")
    return reason[places(here, pool_id(exclusions))]


def _features_seen(evaluated: Evaluated, market: MarketArrays, version: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """(n,) the feature values that each case's version saw of its pool, by name; None where it has none."""
    # A version that failed may have failed for want of its features.
    seen = ["" if one.failed else one.spec for one in evaluated.scored]
    specs = np.array(seen, dtype=object)[version]
    result = np.empty(len(pool), dtype=object)
    for spec in set(seen) - {""}:
        rows = np.flatnonzero(specs == spec)
        if spec == MARKET_SPEC:
            result[rows] = _feature_dicts(evaluated.features, get_spec(spec).names, pool[rows])
        else:
            features = evaluated.more_features[spec]
            place = np.append(places(market.ids, pool_id(features)), NONE)
            result[rows] = _feature_dicts(features, get_spec(spec).names, place[pool[rows]])
    return result


def _feature_dicts(features: pd.DataFrame, names: tuple[str, ...], row: np.ndarray) -> np.ndarray:
    """(n,) the named values of each row of `features`, None where it is NONE."""
    used, place = np.unique(row, return_inverse=True)
    known = used[used != NONE]
    values = np.column_stack([features[name].to_numpy(dtype=float) for name in names])[known]
    result = np.empty(len(used), dtype=object)
    result[used != NONE] = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    return result[place]
