"""A small market and fleet by hand, and the slow, obvious way to decide on it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from spotlab_pipelines.placement.linear import Evaluated, Rules, Scored
from spotlab_pipelines_tests.features.examples import LINUX

HORIZONS = (1, 6, 12)
CHAMPION, CHALLENGER = "advisor-rate/1", "logistic/1"


def rules(**changed: Any) -> Rules:
    base: dict[str, Any] = {
        "horizons_h": HORIZONS,
        "decision_horizon_h": 6,
        "interruption_cost_usd": 1.2,
        "minimum_gain": 0.05,
        "safe_interruption_rate_max": 0.20,
        "environment": "LAB",
    }
    return Rules(**{**base, **changed})


def pool(instance_type: str, az_id: str = "use1-az1", **changed: Any) -> dict[str, Any]:
    """A safe pool at 0.04 USD/h of a type that costs 0.10 on demand; p is the probability at 6 h by version."""
    base = {
        "region": "us-east-1",
        "instance_type": instance_type,
        "az_id": az_id,
        "product": LINUX,
        "price_position": 0.5,
        "discount_depth": 0.6,
        "family_stress_index": 0.5,
        "historic_interrupt_rate": 0.075,
        "spot_price_usd_per_hour": 0.04,
        "on_demand_usd_per_hour": 0.10,
        "interrupt_rate_min": 0.05,
        "interrupt_rate_max": 0.10,
        "p": {CHAMPION: 0.01},
    }
    return {**base, **changed}


def instance(
    instance_id: str, instance_type: str = "m5.large", az_id: str = "use1-az1", **changed: Any
) -> dict[str, Any]:
    base = {
        "account_id": "111111111111",
        "instance_id": instance_id,
        "region": "us-east-1",
        "az_id": az_id,
        "instance_type": instance_type,
        "product": LINUX,
        "lifecycle": "spot",
        "assigned_version": None,
        "pipeline_mode": "LINEAR",
        "shadow": False,
    }
    return {**base, **changed}


def evaluated(
    instances: list[dict],
    pools: list[dict],
    *,
    fits: list[tuple[str, str]] | None = None,
    scored: list[Scored] | None = None,
    excluded: list[dict] | None = None,
) -> Evaluated:
    """Everything `decide_linear` needs; without `fits` every type fits every other."""
    keys = ["region", "instance_type", "az_id", "product"]
    market = pd.DataFrame(pools or [pool("none")]).iloc[: len(pools)]
    features = text_columns(market.drop(columns="p"), keys)
    rows = [
        {
            **{key: row[key] for key in keys},
            "model_version": version,
            "p_1h": p / 4,
            "p_6h": p,
            "p_12h": min(1.5 * p, 1),
        }
        for row in pools
        for version, p in row["p"].items()
    ]
    columns = [*keys, "model_version", "p_1h", "p_6h", "p_12h"]
    out = excluded or []
    everything = [{**row, "reason": ""} for row in pools] + out
    types = {row["instance_type"] for row in [*pools, *instances]}
    pairs = [(own, other) for own in types for other in types] if fits is None else fits
    return Evaluated(
        instances=text_columns(pd.DataFrame(instances), [c for c in instances[0] if c != "shadow"]),
        pools=text_columns(pd.DataFrame(everything, columns=[*keys, "on_demand_usd_per_hour"]), keys),
        features=features,
        exclusions=text_columns(pd.DataFrame(out, columns=[*keys, "reason"]), [*keys, "reason"]),
        predictions=text_columns(pd.DataFrame(rows, columns=columns), [*keys, "model_version"]),
        fits=text_columns(pd.DataFrame(pairs, columns=["own_type", "instance_type"]), ["own_type", "instance_type"]),
        scored=scored or [Scored(CHAMPION, "champion")],
    )


def text_columns(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return frame.astype(dict.fromkeys(columns, "str"))


def records(frame: pd.DataFrame) -> Any:
    """The rows as named tuples whose fields may be anything, for a reader who writes the obvious."""
    return frame.itertuples()


def decide_slowly(market: Evaluated, rules: Rules) -> dict[tuple[str, str], dict[str, Any]]:
    """One instance, one version and one pool at a time."""
    fits = set(market.fits.itertuples(index=False, name=None))
    price_of = {
        (row.region, row.instance_type, row.product): row.on_demand_usd_per_hour for row in records(market.pools)
    }
    p_of = {
        (row.model_version, row.az_id, row.instance_type, row.product): row.p_6h for row in records(market.predictions)
    }
    decided = {}
    for one in records(market.instances):
        own_version = market.scored[0].version if pd.isna(one.assigned_version) else one.assigned_version
        for version in market.scored:
            if version.role == "none" and version.version != own_version:
                continue
            here = (one.az_id, one.instance_type, one.product)
            on_demand = price_of.get((one.region, one.instance_type, one.product))
            options, current = [], None
            for candidate in records(market.features):
                there = (candidate.az_id, candidate.instance_type, candidate.product)
                p = p_of.get((version.version, *there))
                if p is None:
                    continue
                spot = candidate.spot_price_usd_per_hour
                cost = spot + p * rules.interruption_cost_usd / rules.decision_horizon_h
                safe = candidate.interrupt_rate_max <= rules.safe_interruption_rate_max
                name = f"{there[1]}:{there[0]}:{there[2]}"
                if one.lifecycle == "spot" and there == here:
                    current = (cost, safe)
                elif (
                    safe
                    and candidate.region == one.region
                    and candidate.product == one.product
                    and (one.instance_type, candidate.instance_type) in fits
                ):
                    options.append((cost, spot, name))
            if one.lifecycle != "spot":
                current = None if on_demand is None else (on_demand, True)
            key = (one.instance_id, version.version)
            if one.pipeline_mode != "LINEAR" or current is None:
                decided[key] = {"decision": "SKIP", "to_pool": None, "candidates_considered": 0}
                continue
            best = min(options) if options else None
            gain = (current[0] - best[0]) / on_demand if best else float("nan")
            if best and gain >= rules.minimum_gain and gain > 0:
                decision = "SWITCH"
            else:
                decision = "STAY" if current[1] else "FALLBACK_ON_DEMAND"
            decided[key] = {
                "decision": decision,
                "to_pool": best[2] if best and decision == "SWITCH" else None,
                "candidates_considered": len(options),
            }
    return decided
