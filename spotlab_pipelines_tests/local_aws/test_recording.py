"""Recordings: moved to the present, and refused with a reason when they are not recordings."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines_tests.local_aws.recording import RecordingError, load_recording, week_shift


@pytest.fixture
def broken(market_dir: Path, tmp_path: Path) -> Path:
    """A copy of the market, to be broken."""
    return Path(shutil.copytree(market_dir, tmp_path / "market"))


@pytest.mark.parametrize(
    ("end", "weeks"),
    [
        (datetime(2026, 11, 23, 12, tzinfo=UTC), 0),
        (datetime(2026, 11, 30, 11, 59, tzinfo=UTC), 0),
        (datetime(2026, 11, 30, 12, tzinfo=UTC), -1),
        (datetime(2026, 11, 23, 11, 59, tzinfo=UTC), 1),
        (datetime(2021, 5, 1, tzinfo=UTC), 291),
        (datetime(2030, 1, 1, tzinfo=UTC), -162),
    ],
)
def test_the_end_comes_to_lie_within_a_week_from_now(end: datetime, weeks: int) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert week_shift(end, now) == timedelta(weeks=weeks)
    assert now <= end + week_shift(end, now) < now + timedelta(days=7)


def test_everything_moves_by_the_same_whole_weeks(market_dir: Path) -> None:
    now = datetime(2031, 3, 5, 17, 30, tzinfo=UTC)
    moved, head = load_recording(market_dir, now), json.loads((market_dir / "recording.json").read_text())
    shift = moved.end - datetime.fromisoformat(head["end"])
    assert shift % timedelta(days=7) == timedelta(0)
    raw = pd.read_parquet(market_dir / "price-history.parquet")
    assert moved.prices["changed_at"].min() == raw["Timestamp"].min() + shift
    past = pd.read_parquet(market_dir / "interruptions.parquet")
    assert moved.interruptions["ended_at"].max() == past["EndedAt"].max() + shift
    assert moved.start == datetime.fromisoformat(head["start"]) + shift


def test_current_prices_are_the_last_changes_before_now(market_dir: Path) -> None:
    recording = load_recording(market_dir)
    now = recording.end - timedelta(days=9)
    current = recording.current_prices(now)
    pool = ["region", "instance_type", "az_id", "product"]
    assert not current.duplicated(pool).any()
    assert current["changed_at"].max() <= now
    assert len(current) == recording.prices.groupby(pool).ngroups


def test_prices_may_be_text_and_products_may_name_the_vpc(broken: Path) -> None:
    path = broken / "price-history.parquet"
    frame = pd.read_parquet(path)
    frame["SpotPrice"] = frame["SpotPrice"].map("{:.6f}".format)
    frame["ProductDescription"] += " (Amazon VPC)"
    whole = load_recording(broken).prices
    frame.to_parquet(path)
    pd.testing.assert_frame_equal(load_recording(broken).prices, whole)


@pytest.mark.parametrize(
    "name", ["recording.json", "advisor.json", "price-history.parquet", "instance-types.json", "on-demand.csv"]
)
def test_a_missing_or_garbled_file_is_named(broken: Path, name: str) -> None:
    (broken / name).write_text("<html>")
    with pytest.raises(RecordingError, match=name):
        load_recording(broken)
    (broken / name).unlink()
    with pytest.raises(RecordingError, match=f"{name} is missing"):
        load_recording(broken)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("SpotPrice", 0.0, "above 0"),
        ("SpotPrice", -1.0, "above 0"),
        ("SpotPrice", np.nan, "above 0"),
        ("SpotPrice", np.inf, "above 0"),
        ("AvailabilityZone", "us-east-1z", "us-east-1z is not an availability zone"),
    ],
)
def test_a_bad_price_or_zone_is_refused(broken: Path, column: str, value: float | str, message: str) -> None:
    path = broken / "price-history.parquet"
    frame = pd.read_parquet(path)
    frame.loc[3, column] = value
    frame.to_parquet(path)
    with pytest.raises(RecordingError, match=message):
        load_recording(broken)


def test_missing_columns_are_named(broken: Path) -> None:
    path = broken / "price-history.parquet"
    pd.read_parquet(path).drop(columns=["Timestamp", "Region"]).to_parquet(path)
    with pytest.raises(RecordingError, match="Region, Timestamp"):
        load_recording(broken)


def test_a_recording_without_past_requests_has_none(broken: Path) -> None:
    (broken / "interruptions.parquet").unlink()
    assert len(load_recording(broken).interruptions) == 0
