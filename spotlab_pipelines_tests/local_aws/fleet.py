"""The demo's accounts: three LAB accounts and one PROD account, whose instances are chosen from the data at hand.

For any recording, pools are chosen so that each decision is likely: cheap and safe ones (STAY), dear or unsafe ones
with a safe, much cheaper neighbour (SWITCH), unsafe ones without (FALLBACK_ON_DEMAND). The choice looks at prices,
Advisor buckets and sizes only, keeps well clear of the thresholds, and is the same for the same recording and hour.
It decides nothing itself: what SpotLab then decides is SpotLab's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.recording import Recording

UNSAFE_BUCKET = 4
LARGEST_VCPUS = 16
STAY_GAIN, SWITCH_GAIN, FALLBACK_GAIN = 0.02, 0.12, 0.01
"""Shares of the on-demand price: at most this to gain (STAY, FALLBACK), at least this (SWITCH); the default
threshold of SpotLab, 0.05, lies between."""
_TEAMS = ("search", "billing", "render", "reports", "ingest", "web", "batch", "cache")


@dataclass(frozen=True)
class DemoAccount:
    """One account of the demo and its fleet."""

    account_id: str
    environment: Literal["LAB", "PROD"]
    regions: tuple[str, ...]
    fleet: tuple[FleetInstance, ...]


# account id, environment, index of its regions, (stay, switch, fallback, on demand, Windows)
_PLANS: tuple[tuple[str, Literal["LAB", "PROD"], tuple[int, ...], tuple[int, ...]], ...] = (
    ("111111111111", "LAB", (0,), (3, 2, 1, 1, 1)),
    ("222222222222", "LAB", (1,), (2, 3, 1, 0, 0)),
    ("333333333333", "LAB", (0, 1), (3, 3, 2, 1, 0)),
    ("444444444444", "PROD", (0,), (3, 3, 1, 0, 0)),
)
OLDEST_H = 200.0


def demo_fleet(recording: Recording, now: datetime | None = None) -> list[DemoAccount]:
    """The four accounts of the demo, 6 to 10 instances each; the same within an hour."""
    hour = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    pools = judged_pools(recording, hour)
    regions = pools["region"].value_counts().index.sort_values(ascending=False).tolist()
    accounts = []
    for account_id, environment, wanted, counts in _PLANS:
        own = tuple(dict.fromkeys(regions[min(index, len(regions) - 1)] for index in wanted))
        fleet = _fleet(pools[pools["region"].isin(own)], counts, seed=int(account_id))
        accounts.append(DemoAccount(account_id, environment, own, fleet))
    return accounts


def judged_pools(recording: Recording, now: datetime) -> pd.DataFrame:
    """The pools of a recording with on-demand price, bucket and what the best safe pool that fits would gain.

    Returns:
        region, instance_type, az_id, product, price, on_demand, bucket, safe, gain (share of on-demand; 0 if it is
        itself the best, NaN if nothing safe fits), and `likely`: "stay", "switch", "fallback" or "".
    """
    pools = recording.current_prices(now).rename(columns={"spot_price_usd_per_hour": "price"})
    pools["system"] = np.where(pools["product"] == "Windows", "Windows", "Linux")
    pools = pools.merge(_sizes(recording), on="instance_type")
    pools = pools.merge(_buckets(recording), on=["region", "system", "instance_type"])
    on_demand = recording.on_demand.rename(columns={"usd_per_hour": "on_demand", "operating_system": "system"})
    pools = pools.merge(on_demand, on=["region", "system", "instance_type"])
    pools = pools[pools["product"].isin(["Linux/UNIX", "Windows"])].reset_index(drop=True)
    pools["safe"] = pools["bucket"] < UNSAFE_BUCKET
    pools["gain"] = _gains(pools)
    certain = [
        pools["safe"] & (pools["gain"] <= STAY_GAIN),
        pools["gain"] >= SWITCH_GAIN,
        ~pools["safe"] & ~(pools["gain"] > FALLBACK_GAIN),
    ]
    pools["likely"] = np.select(certain, ["stay", "switch", "fallback"], default="")
    return pools


def _gains(pools: pd.DataFrame) -> np.ndarray:
    """What moving to the cheapest safe pool that fits would gain, per pool; its own pool counts if it is safe."""
    gains = np.full(len(pools), np.nan)
    for _, part in pools.groupby(["region", "product"]):
        best = part[part["safe"]].groupby("instance_type")["price"].min()
        types = part.drop_duplicates("instance_type").set_index("instance_type")
        price = np.where(_fits(types), best.reindex(types.index).to_numpy(dtype=float)[None, :], np.inf)
        cheapest = pd.Series(np.fmin.reduce(price, axis=1), index=types.index)
        gain = (part["price"] - part["instance_type"].map(cheapest)) / part["on_demand"]
        gains[part.index] = gain.replace(-np.inf, np.nan).to_numpy()
    return gains


def _fits(types: pd.DataFrame) -> np.ndarray:
    """(own, candidate): at least the own vCPUs and memory, at most twice, same architecture, accelerators kept."""
    vcpus, memory = types["vcpus"].to_numpy(), types["memory"].to_numpy()
    kind, accelerators = types["architecture"].to_numpy(), types["accelerators"].to_numpy()
    sized = (vcpus >= vcpus[:, None]) & (vcpus <= 2 * vcpus[:, None])
    sized &= (memory >= memory[:, None]) & (memory <= 2 * memory[:, None])
    free = (accelerators == "")[:, None] | (accelerators == accelerators[:, None])
    return sized & free & (kind == kind[:, None])


def _sizes(recording: Recording) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "instance_type": name,
                "vcpus": entry["VCpuInfo"]["DefaultVCpus"],
                "memory": entry["MemoryInfo"]["SizeInMiB"],
                "architecture": _architecture(entry["ProcessorInfo"]["SupportedArchitectures"]),
                "accelerators": _accelerators(entry),
            }
            for name, entry in recording.instance_types.items()
        ]
    )


def _architecture(names: list[str]) -> str:
    return next((name for name in ("x86_64", "arm64") if name in names), names[0])


def _accelerators(entry: dict[str, Any]) -> str:
    gpus = entry.get("GpuInfo", {}).get("Gpus", [])
    others = entry.get("InferenceAcceleratorInfo", {}).get("Accelerators", [])
    others = others + entry.get("FpgaInfo", {}).get("Fpgas", [])
    return ", ".join(f"{item['Count']}x {item['Name']}" for item in gpus + others)


def _buckets(recording: Recording) -> pd.DataFrame:
    feed = json.loads(recording.advisor)["spot_advisor"]
    return pd.DataFrame(
        [
            {"region": region, "system": system, "instance_type": name, "bucket": value["r"]}
            for region, systems in feed.items()
            for system, types in systems.items()
            for name, value in types.items()
        ]
    )


def _fleet(pools: pd.DataFrame, counts: tuple[int, ...], *, seed: int) -> tuple[FleetInstance, ...]:
    """Instances of an account: as many of each likely decision as wanted, of as many types as there are."""
    sized = pools[pools["vcpus"] <= LARGEST_VCPUS].sample(frac=1.0, random_state=seed % 2**32)
    linux = sized[sized["product"] == "Linux/UNIX"].drop_duplicates(["region", "instance_type"])
    stay, switch, fallback, on_demand, windows = counts
    chosen = [
        *_take(linux[linux["likely"] == "stay"], stay),
        *_take(linux[linux["likely"] == "switch"], switch),
        *_take(linux[linux["likely"] == "fallback"], fallback),
    ]
    kept = _take(linux[linux["likely"] == "switch"].iloc[::-1], on_demand)
    others = _take(sized[(sized["product"] == "Windows") & sized["safe"]], windows)
    on_demands = range(len(chosen), len(chosen) + len(kept))
    chosen += [*kept, *others]
    ages = np.random.default_rng(seed).uniform(1.0, OLDEST_H, len(chosen))
    return tuple(
        FleetInstance(
            instance_type=pool.instance_type,
            region=pool.region,
            az_id=pool.az_id,
            product=pool.product,
            lifecycle="on-demand" if index in on_demands else "spot",
            age_h=round(float(ages[index]), 2),
            tags={"Name": f"{_TEAMS[index % len(_TEAMS)]}-{index + 1}", "team": _TEAMS[index % len(_TEAMS)]},
        )
        for index, pool in enumerate(chosen)
    )


def _take(pools: pd.DataFrame, count: int) -> list[Any]:
    """The first pools in turns over the regions, so that an account of two regions has both."""
    turns = pools.groupby("region").cumcount()
    return list(pools.iloc[np.argsort(turns, kind="stable")].head(count).itertuples(index=False))
