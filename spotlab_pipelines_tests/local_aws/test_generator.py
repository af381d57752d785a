"""The generated market: the same every time, and of the statistics that its docstring promises."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines_tests.local_aws.fleet import demo_fleet, judged_pools
from spotlab_pipelines_tests.local_aws.generator import generate
from spotlab_pipelines_tests.local_aws.recording import Recording

POOL = ["Region", "InstanceType", "AvailabilityZone", "ProductDescription"]


@pytest.fixture(scope="session")
def prices(market_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(market_dir / "price-history.parquet")


@pytest.fixture(scope="session")
def past(market_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(market_dir / "interruptions.parquet")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_files_and_another_one_others(tmp_path: Path, market_dir: Path) -> None:
    began = time.process_time()
    again = digests(generate(tmp_path / "again"))
    assert time.process_time() - began < 4
    assert again == digests(market_dir)
    other = digests(generate(tmp_path / "other", seed=8))
    assert other["price-history.parquet"] != again["price-history.parquet"]


def test_its_size(prices: pd.DataFrame) -> None:
    end = prices["Timestamp"].max()
    days = (end - prices["Timestamp"].min()) / pd.Timedelta(days=1)
    assert 41 < days <= 42
    assert prices["Region"].nunique() == 2
    assert prices["InstanceType"].str.partition(".")[0].nunique() == 10
    assert prices["InstanceType"].nunique() == 40
    per_pool = prices.groupby(POOL).size() / days
    assert 4 < per_pool.mean() < 8
    assert (prices["Timestamp"] > end - pd.Timedelta(days=7)).sum() < 20_000
    assert (prices.groupby(POOL)["Timestamp"].min() == prices["Timestamp"].min()).all(), (
        "every pool has a price at once"
    )


def test_past_requests_are_interrupted_as_often_as_promised(past: pd.DataFrame) -> None:
    assert 3000 < len(past) < 6000
    interrupted = past["StatusCode"].isin(["instance-terminated-no-capacity", "instance-terminated-by-price"])
    assert 0.05 < interrupted.mean() < 0.15
    lived_h = (past["EndedAt"] - past["StartedAt"]).dropna().dt.total_seconds() / 3600
    assert 6 < lived_h.median() < 48
    assert lived_h.min() > 0
    assert (past["EndedAt"].isna() == (past["StatusCode"] == "fulfilled")).all()
    by_pool = past[interrupted].groupby(POOL)["EndedAt"]
    gaps = by_pool.transform(lambda ended: ended.sort_values().diff()).dropna()
    assert (gaps < pd.Timedelta(minutes=3)).any(), "one reclaim takes several instances of a pool"


def test_the_advisors_buckets_follow_the_interruptions(market_dir: Path, past: pd.DataFrame) -> None:
    feed = json.loads((market_dir / "advisor.json").read_text())["spot_advisor"]
    buckets = past.apply(
        lambda row: feed[row["Region"]]["Windows" if row["ProductDescription"] == "Windows" else "Linux"][
            row["InstanceType"]
        ]["r"],
        axis=1,
    )
    interrupted = past["StatusCode"].str.contains("no-capacity|by-price")
    share = interrupted.groupby(buckets).mean()
    assert share.index.tolist() == [0, 1, 2, 3, 4]
    assert share[4] > 2 * share[1] > 0
    assert share.is_monotonic_increasing
    savings = [value["s"] for systems in feed.values() for types in systems.values() for value in types.values()]
    assert min(savings) <= 0 < max(savings)


def test_prices_carry_part_of_what_drives_interruptions(market: Recording) -> None:
    """Requests of pools whose price stood high in its week were interrupted more often within six hours."""
    past = market.interruptions.assign(family=market.interruptions["instance_type"].str.partition(".")[0])
    past = past[past["started_at"] >= market.start + timedelta(days=9)].sort_values("started_at")
    pool = ["region", "instance_type", "az_id", "product"]
    history = market.prices.set_index("changed_at").sort_index()
    window = history.groupby(pool)["spot_price_usd_per_hour"].rolling("7D")
    low, high = window.min(), window.max()
    now = history.set_index(pool, append=True)["spot_price_usd_per_hour"].reorder_levels([1, 2, 3, 4, 0])
    now = now.groupby(level=list(range(5))).last()
    low, high = (frame.groupby(level=list(range(5))).last() for frame in (low, high))
    position = ((now - low) / (high - low)).rename("position").reset_index().sort_values("changed_at")
    joined = pd.merge_asof(past, position, left_on="started_at", right_on="changed_at", by=pool).dropna(
        subset=["position"]
    )
    soon = joined["status_code"].str.contains("no-capacity|by-price") & (
        joined["ended_at"] - joined["started_at"] <= pd.Timedelta(hours=6)
    )
    high_share, low_share = soon[joined["position"] > 0.5].mean(), soon[joined["position"] <= 0.5].mean()
    assert high_share > 1.5 * low_share > 0


def test_instance_types_and_prices_belong_together(market: Recording) -> None:
    assert set(market.prices["instance_type"]) == set(market.instance_types)
    m5 = market.instance_types["m5.large"]
    assert (m5["VCpuInfo"]["DefaultVCpus"], m5["MemoryInfo"]["SizeInMiB"]) == (2, 8192)
    table = market.on_demand.set_index(["region", "instance_type", "operating_system"])["usd_per_hour"]
    assert table["us-east-1", "m5.large", "Linux"] == 0.096
    assert table["us-east-1", "m5.large", "Windows"] == 0.188
    assert table["eu-west-1", "m5.4xlarge", "Linux"] == 0.856


@pytest.mark.parametrize("days_before_the_end", [6.9, 5.5, 3.0, 1.2, 0.1])
def test_the_demo_has_all_decisions_whatever_the_day(market: Recording, days_before_the_end: float) -> None:
    now = market.end - timedelta(days=days_before_the_end)
    accounts = demo_fleet(market, now)
    assert [account.environment for account in accounts] == ["LAB", "LAB", "LAB", "PROD"]
    hour = now.replace(minute=0, second=0, microsecond=0)
    pools = judged_pools(market, hour).set_index(["instance_type", "az_id", "product"])
    likely: list[str] = []
    for account in accounts:
        assert 6 <= len(account.fleet) <= 10
        assert {instance.region for instance in account.fleet} == set(account.regions)
        likely += [str(pools["likely"][i.instance_type, i.az_id, i.product]) for i in account.fleet]
    assert {"stay", "switch", "fallback"} <= set(likely)
    everyone = [instance for account in accounts for instance in account.fleet]
    assert sum(instance.lifecycle == "on-demand" for instance in everyone) >= 1
    assert sum(instance.product == "Windows" for instance in everyone) == 1
    assert demo_fleet(market, now) == accounts


def test_gains_are_judged_as_by_hand() -> None:
    pools = pd.DataFrame(
        {
            "region": "us-east-1",
            "instance_type": ["m5.large", "m5.xlarge", "r5.large", "c6g.xlarge", "g4dn.xlarge", "m5.4xlarge"],
            "az_id": "use1-az1",
            "product": "Linux/UNIX",
            "price": [0.060, 0.050, 0.030, 0.001, 0.20, 0.30],
            "on_demand": [0.10, 0.20, 0.10, 0.10, 0.50, 0.80],
            "safe": [True, True, True, True, False, False],
            "vcpus": [2, 4, 2, 4, 4, 16],
            "memory": [8192, 16384, 16384, 8192, 16384, 65536],
            "architecture": ["x86_64", "x86_64", "x86_64", "arm64", "x86_64", "x86_64"],
            "accelerators": ["", "", "", "", "1x T4", ""],
        }
    )
    from spotlab_pipelines_tests.local_aws.fleet import _gains

    # m5.large → r5.large; m5.xlarge and r5.large are the best of their own; a GPU and the largest fit nothing safe.
    np.testing.assert_allclose(_gains(pools), [0.30, 0.0, 0.0, 0.0, np.nan, np.nan], atol=1e-12)
