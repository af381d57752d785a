"""The default market: a seeded generator of a market recording, small enough to make on every start.

`python -m spotlab_pipelines_tests.local_aws.generator --out DIR [--seed N]` writes one; `generate(DIR)` from Python.

The model, hourly, for each pool (region, type, zone, product of one machine type share their stress):

- A hidden *capacity stress* `f`, mean 0 and variance about 1: 0.75 × an AR(1) of the (region, family) with sudden
  shocks that decay over half a day, 0.60 × an AR(1) of the pool, and a daily swing of the region.
- *Reclaims* strike a pool as a Poisson process with hazard `h = BASE_HAZARD · exp(level + 1.2 f)` per hour, where
  `level` is how scarce the type is at all; a reclaim takes each running instance with probability 0.7, within three
  minutes (co-interruptions are not independent events).
- The *Spot price* is a change point process, five to six a day a pool: on-demand price × the type's share × a zone's
  share × exp(0.16 · f of the last hours) × noise. So the position of a price in its window carries part of the
  stress, and the family's mean position more of it; a Windows price adds the licence.
- The *Advisor's bucket* is the long-run share of instances (of DWELL_H mean life) that are reclaimed, per type and
  region: it knows `level` but not `f`, so a model that reads prices differs from it.

Set by hand, so that every decision occurs whatever the hour: GPU types in us-east-1 and the largest memory type are
scarce everywhere (nothing safe to move to), some scarce types have safe neighbours, some types cost about as much as
on demand.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from spotlab_pipelines_tests.local_aws.generator_figures import BUCKET_ENDS, RANGES, metadata, pools_of

DEFAULT_NAME = "generated-2"
"""Name of the default market; the number grows when the generator changes."""
END = datetime(2026, 11, 2, tzinfo=UTC)
DAYS = 42
"""Five weeks of history and up to one of future, which shows as time goes by."""
REQUEST_DAYS = 33
BASE_HAZARD = 0.0014
DWELL_H = 30.0
TAKEN = 0.7
CHANGES_PER_DAY = 5.5


@dataclass(frozen=True)
class _Market:
    """The pools (one row each) and their hourly hidden stress and level."""

    pools: pd.DataFrame
    stress: np.ndarray
    hazard: np.ndarray
    start: datetime
    end: datetime


def generate(
    folder: Path | str,
    *,
    seed: int = 7,
    days: int = DAYS,
    request_days: int = REQUEST_DAYS,
    families: tuple[str, ...] | None = None,
) -> Path:
    """Write a market recording; the same arguments give the same files.

    Args:
        days: length; the last seven are the future at the moment it is served (at most).
        request_days: of them the last ones, in which Spot requests began.
        families: only these instance families (tests); None for all ten.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    market = _market(np.random.default_rng([seed, 1]), days, families)
    prices = _prices(np.random.default_rng([seed, 2]), market)
    requests = _requests(np.random.default_rng([seed, 3]), market, request_days)
    _write_json(folder / "instance-types.json", {"InstanceTypes": _instance_types(market.pools)})
    _write_json(folder / "advisor.json", _advisor(market, prices))
    _on_demand(market.pools).to_csv(folder / "on-demand.csv", index=False)
    prices.to_parquet(folder / "price-history.parquet", index=False)
    requests.to_parquet(folder / "interruptions.parquet", index=False)
    # Last, so that a folder with this file is whole.
    head = {
        "name": f"{DEFAULT_NAME}, seed {seed}",
        "description": "Generated: a hidden stress drives interruptions and part of the price.",
        "start": market.start.isoformat(),
        "end": market.end.isoformat(),
    }
    _write_json(folder / "recording.json", head)
    return folder


def _market(rng: np.random.Generator, days: int, families: tuple[str, ...] | None) -> _Market:
    pools = pools_of(rng)
    if families is not None:
        pools = pools[pools["family"].isin(families)].reset_index(drop=True)
    hours = days * 24 + 1
    group = pools.groupby(["region", "family"]).ngroup().to_numpy()
    machine = pools.groupby(["region", "instance_type", "zone"]).ngroup().to_numpy()
    family = _ar(rng, group.max() + 1, hours, memory_h=18) + _shocks(rng, group.max() + 1, hours)
    own = _ar(rng, machine.max() + 1, hours, memory_h=8)
    phase = np.where(pools["region"] == "us-east-1", 19.0, 14.0)[:, None]
    swing = np.cos(2 * np.pi * (np.arange(hours)[None, :] - phase) / 24)
    stress = 0.75 * family[group] + 0.60 * own[machine] + 0.20 * swing
    hazard = BASE_HAZARD * np.exp(pools["level"].to_numpy()[:, None] + 1.2 * stress)
    return _Market(pools, stress, np.minimum(hazard, 1.0), END - timedelta(days=days), END)


def _ar(rng: np.random.Generator, count: int, hours: int, *, memory_h: float) -> np.ndarray:
    """Stationary AR(1) of variance 1, shape (count, hours)."""
    keep = np.exp(-1 / memory_h)
    values = rng.standard_normal((count, hours))
    values[:, 1:] *= np.sqrt(1 - keep**2)
    for hour in range(1, hours):
        values[:, hour] += keep * values[:, hour - 1]
    return values


def _shocks(rng: np.random.Generator, count: int, hours: int) -> np.ndarray:
    """About one shock a week a family, of size 1 to 3, decaying over half a day; centred."""
    sizes = np.where(rng.random((count, hours)) < 1 / 168, rng.uniform(1, 3, (count, hours)), 0.0)
    for hour in range(1, hours):
        sizes[:, hour] += np.exp(-1 / 12) * sizes[:, hour - 1]
    return sizes - sizes.mean(axis=1, keepdims=True)


def _prices(rng: np.random.Generator, market: _Market) -> pd.DataFrame:
    pools, hours = market.pools, market.stress.shape[1]
    counts = rng.poisson(CHANGES_PER_DAY * (hours - 1) / 24, len(pools)) + 1
    pool = np.repeat(np.arange(len(pools)), counts)
    at_h = rng.uniform(0, hours - 1, len(pool))
    at_h[np.cumsum(counts) - counts] = 0.0
    order = np.lexsort((at_h, pool))
    pool, at_h = pool[order], at_h[order]
    smooth = market.stress.copy()
    for hour in range(1, hours):
        smooth[:, hour] = 0.3 * smooth[:, hour] + 0.7 * smooth[:, hour - 1]
    moved = np.exp(0.16 * smooth[pool, at_h.astype(int)] + rng.normal(0, 0.012, len(pool)))
    share = pools["share"].to_numpy()[pool]
    # A dear type hardly moves: its price already leans on the on-demand price.
    moved = np.where(share >= 0.8, moved**0.15, moved)
    on_demand = pools["on_demand"].to_numpy()[pool]
    usd = on_demand * np.clip(share * moved, 0.08, np.maximum(1.0, share * 1.02)) + pools["licence"].to_numpy()[pool]
    seconds = np.round(at_h * 3600).astype("int64")
    table = pools.take(pool)
    return pd.DataFrame(
        {
            "Region": table["region"].to_numpy(),
            "AvailabilityZone": table["zone"].to_numpy(),
            "InstanceType": table["instance_type"].to_numpy(),
            "ProductDescription": table["product"].to_numpy(),
            "SpotPrice": np.round(usd, 4),
            "Timestamp": pd.Timestamp(market.start) + pd.to_timedelta(seconds, unit="s"),
        }
    )


def _requests(rng: np.random.Generator, market: _Market, request_days: int) -> pd.DataFrame:
    """Past Spot requests: about 120 a day, each ended by its user or by a reclaim of its pool."""
    pools, hours = market.pools, market.stress.shape[1]
    span_h = min(request_days * 24, hours - 1)
    count = 5 * span_h
    pool = rng.integers(0, len(pools), count)
    started = rng.uniform(hours - 1 - span_h, hours - 1, count)
    planned = started + np.clip(rng.lognormal(np.log(DWELL_H) - 0.72, 1.2, count), 0.2, 240)
    at, of_pool = _reclaims(rng, market)
    # Reclaims of all pools on one axis, so that each request finds the first one after its start in one search.
    axis = of_pool * 10.0 * hours + at
    first = np.searchsorted(axis, pool * 10.0 * hours + started)
    hit = first + rng.geometric(TAKEN, count) - 1
    inside = hit < len(axis)
    hit = np.minimum(hit, len(axis) - 1)
    taken_at = np.where(inside & (of_pool[hit] == pool), at[hit] + rng.uniform(0, 0.05, count), np.inf)
    ended = np.minimum(planned, taken_at)
    code = np.where(
        taken_at < planned,
        np.where(rng.random(count) < 0.9, "instance-terminated-no-capacity", "instance-terminated-by-price"),
        "instance-terminated-by-user",
    )
    running = ended >= hours - 1
    zero = pd.Timestamp(market.start)
    table = pools.take(pool)
    frame = pd.DataFrame(
        {
            "Region": table["region"].to_numpy(),
            "AvailabilityZone": table["zone"].to_numpy(),
            "InstanceType": table["instance_type"].to_numpy(),
            "ProductDescription": table["product"].to_numpy(),
            "StartedAt": zero + pd.to_timedelta(np.round(started * 3600), unit="s"),
            "EndedAt": (zero + pd.to_timedelta(np.round(np.minimum(ended, 1e5) * 3600), unit="s")),
            "StatusCode": np.where(running, "fulfilled", code),
        }
    )
    frame["EndedAt"] = frame["EndedAt"].where(~running)
    return frame.sort_values("StartedAt", kind="stable", ignore_index=True)


def _reclaims(rng: np.random.Generator, market: _Market) -> tuple[np.ndarray, np.ndarray]:
    """Times in hours and pools of all reclaims, ordered by pool, then time."""
    struck = rng.random(market.hazard.shape) < market.hazard / TAKEN
    of_pool, hour = np.nonzero(struck)
    at = hour + rng.random(len(hour))
    return at, of_pool


def _advisor(market: _Market, prices: pd.DataFrame) -> dict[str, Any]:
    pools = market.pools.assign(hazard=market.hazard.mean(axis=1))
    mean_price = prices.groupby(["Region", "InstanceType", "ProductDescription"])["SpotPrice"].mean().to_dict()
    feed: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for key, part in pools.groupby(["region", "instance_type", "product"]):
        region, name, product = map(str, cast("tuple[str, str, str]", key))
        lost = part["hazard"].mean() * DWELL_H
        bucket = int(np.searchsorted(BUCKET_ENDS, lost / (1 + lost), side="right"))
        on_demand = part["on_demand"].iloc[0] + part["licence"].iloc[0]
        saving = round(100 * (1 - mean_price[region, name, product] / on_demand))
        system = "Windows" if product == "Windows" else "Linux"
        feed.setdefault(region, {}).setdefault(system, {})[name] = {"s": saving, "r": bucket}
    figures = metadata()
    return {
        "global_rate": "<10%",
        "instance_types": {
            name: {
                "cores": figures[name]["VCpuInfo"]["DefaultVCpus"],
                "emr": True,
                "ram_gb": figures[name]["MemoryInfo"]["SizeInMiB"] / 1024,
            }
            for name in sorted(pools["instance_type"].unique())
        },
        "ranges": [{"index": index, "label": label, "dots": index, "max": top} for label, top, index in RANGES],
        "spot_advisor": feed,
    }


def _on_demand(pools: pd.DataFrame) -> pd.DataFrame:
    table = pools.assign(
        operating_system=pools["product"].map({"Linux/UNIX": "Linux", "Windows": "Windows"}),
        usd_per_hour=(pools["on_demand"] + pools["licence"]).round(4),
    )
    columns = ["region", "instance_type", "operating_system", "usd_per_hour"]
    return table[columns].drop_duplicates().sort_values(columns, ignore_index=True)


def _instance_types(pools: pd.DataFrame) -> list[dict[str, Any]]:
    figures = metadata()
    return [figures[name] for name in sorted(pools["instance_type"].unique())]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Write a generated recording."""
    parser = argparse.ArgumentParser(description="Generate a market recording.")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    print(generate(options.out, seed=options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
