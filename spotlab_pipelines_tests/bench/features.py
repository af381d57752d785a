"""The features of a million pools against the same arithmetic in bare numpy, factorising the keys on both sides.

Memory is the peak of numpy's and Python's allocations while the features are computed plus the peak of Arrow's, which
hold the texts, whether or not the two come at one moment; in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines_tests.bench.measure import Figure, best_of

if TYPE_CHECKING:
    from spotlab_pipelines.features.past import Past

ROUNDS = 3
REGIONS, FAMILIES, SIZES, ZONES, PRODUCTS = 25, 100, 10, 10, 4
POOLS = REGIONS * FAMILIES * SIZES * ZONES * PRODUCTS
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
OPEN_BUCKET_RATE = 0.30
OBSERVATIONS = 2_000_000


def figures() -> list[Figure]:
    """Time and memory of v1, and for information the time of the specs that look back."""
    from spotlab_pipelines.features.engine import compute_features

    frame = pools()
    measured, floor = best_of(
        ROUNDS, lambda: compute_features(frame, "v1", open_bucket_rate=OPEN_BUCKET_RATE), lambda: bare(frame)
    )
    given, peak = memory()
    past = _past(frame)
    v2, history = best_of(
        1,
        lambda: compute_features(frame, "v2", open_bucket_rate=OPEN_BUCKET_RATE, past=past),
        lambda: compute_features(frame, "v2-history", open_bucket_rate=OPEN_BUCKET_RATE, past=past),
    )
    what, same = f"features of {POOLS:,} pools", "the same in numpy, keys factorised"
    looked = f"{OBSERVATIONS:,} observations and {2 * POOLS:,} price changes sorted before"
    return [
        Figure(f"{what}, v1", measured, same, floor, 3.0),
        Figure(f"{what}, v1: peak memory", peak, "its input", given, 4.0, unit="MB"),
        Figure(f"{what}, v2", v2, "v1's in numpy", floor, None, looked),
        Figure(f"{what}, v2-history", history, "v1's in numpy", floor, None, looked),
    ]


def pools() -> pd.DataFrame:
    """A million pools in any order, as `assemble_pools` makes them: a twentieth lacks a price or an Advisor entry."""
    generator = np.random.default_rng(5)
    shape = (REGIONS, FAMILIES, SIZES, ZONES, PRODUCTS)
    region, family, size, zone, product = np.unravel_index(generator.permutation(POOLS), shape)
    names = [f"m{number}" for number in range(FAMILIES)]
    types = np.array([f"{name}.{step}xlarge" for name in names for step in range(SIZES)])
    zones = np.array([f"r{place}-az{number}" for place in range(REGIONS) for number in range(ZONES)])
    lowest = generator.uniform(0.01, 1.0, POOLS)
    highest = lowest * (1.0 + generator.random(POOLS) * (generator.random(POOLS) > 0.1))
    unknown, bucket = generator.random((2, POOLS)) < 0.05, generator.integers(0, 5, POOLS)

    def text(values: np.ndarray, code: np.ndarray) -> pd.api.extensions.ExtensionArray:
        return pd.array(values.tolist(), dtype="str").take(code)

    def known(values: np.ndarray, where: int) -> np.ndarray:
        return np.where(unknown[where], np.nan, values)

    rates = np.array([0.0, 0.05, 0.10, 0.15, 0.20, 1.0])
    changed = np.datetime64(NOW.replace(tzinfo=None), "us") - generator.integers(1, 10**12, POOLS)
    return pd.DataFrame(
        {
            "region": text(np.array([f"region-{number}" for number in range(REGIONS)]), region),
            "instance_type": text(types, family * SIZES + size),
            "family": text(np.array(names), family),
            "az_id": text(zones, region * ZONES + zone),
            "product": text(np.array(["Linux/UNIX", "Red Hat Enterprise Linux", "SUSE Linux", "Windows"]), product),
            "spot_price_usd_per_hour": known(lowest + (highest - lowest) * generator.random(POOLS), 0),
            "price_min_usd_per_hour": known(lowest, 0),
            "price_max_usd_per_hour": known(highest, 0),
            "price_changes": 1,
            "price_changed_at": pd.DatetimeIndex(changed).tz_localize("UTC"),
            "on_demand_usd_per_hour": generator.uniform(1.0, 3.0, POOLS),
            "interrupt_rate_min": known(rates[bucket], 1),
            "interrupt_rate_max": known(rates[bucket + 1], 1),
        }
    )


def bare(frame: pd.DataFrame) -> np.ndarray:
    """The arithmetic of v1 and nothing else: no order, no checks, no frame, no exclusions."""
    pool = np.zeros(len(frame), dtype=np.int64)
    codes = {}
    for name in ("region", "instance_type", "az_id", "product", "family"):
        codes[name], values = pd.factorize(frame[name])
        pool = pool * len(values) + codes[name] if name != "family" else pool
    group = codes["region"] * FAMILIES + codes["family"]
    spot, lowest, highest, on_demand, rate_min, rate_max = (
        frame[name].to_numpy()
        for name in (
            *(f"{which}_usd_per_hour" for which in ("spot_price", "price_min", "price_max", "on_demand")),
            *("interrupt_rate_min", "interrupt_rate_max"),
        )
    )
    span = highest - lowest
    position = np.divide(spot - lowest, span, out=np.full(len(spot), 0.5), where=span > 0)
    priced = ~np.isnan(spot)
    total = np.bincount(group[priced], weights=position[priced])
    stress = (total / np.bincount(group[priced]))[group]
    rate = np.where(rate_min >= 0.20, OPEN_BUCKET_RATE, (rate_min + rate_max) / 2)
    included = priced & ~np.isnan(on_demand) & ~np.isnan(rate)
    return np.column_stack([position, 1.0 - spot / on_demand, stress, rate])[included]


def memory() -> tuple[float, float]:
    """Millions of bytes of the input, and of the peak above it while its features are computed."""
    done = subprocess.run([sys.executable, "-m", __name__], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["given"] / 1e6, found["peak"] / 1e6


def _measured_memory() -> dict[str, float]:
    import pyarrow as pa

    from spotlab_pipelines.features.engine import compute_features

    frame = pools()
    arrow = pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    compute_features(frame, "v1", open_bucket_rate=OPEN_BUCKET_RATE)
    _, peak = tracemalloc.get_traced_memory()
    given = float(frame.memory_usage(deep=True, index=False).sum())
    return {"given": given, "peak": float(peak + arrow.max_memory())}


def _past(frame: pd.DataFrame) -> Past:
    """Observations of some pools and two prices of each."""
    from spotlab_pipelines.features.past import Past
    from spotlab_pipelines.features.windows import PriceHistory
    from spotlab_pipelines.market.frames import POOL_KEY

    generator = np.random.default_rng(6)
    key = frame[list(POOL_KEY)]

    def before(rows: int) -> pd.DatetimeIndex:
        return pd.DatetimeIndex(
            np.datetime64(NOW.replace(tzinfo=None), "us") - generator.integers(0, 2_000_000_000_000, rows)
        ).tz_localize("UTC")

    seen = key.take(generator.integers(0, POOLS // 2, OBSERVATIONS)).reset_index(drop=True)
    seen = seen.assign(observed_at=before(OBSERVATIONS), available=generator.random(OBSERVATIONS) < 0.8)
    twice = pd.concat([key, key], ignore_index=True)
    prices = twice.assign(changed_at=before(2 * POOLS), spot_price_usd_per_hour=generator.uniform(0.1, 1, 2 * POOLS))
    history = PriceHistory.from_changes(prices)
    return Past.of(seen, history, as_of=NOW, price_window=timedelta(days=7))


if __name__ == "__main__":
    print(json.dumps(_measured_memory()))
