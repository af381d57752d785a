"""The converter of recorded data, on a source of the same shape made by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from spotlab_pipelines_tests.local_aws.convert import main
from spotlab_pipelines_tests.local_aws.fleet import demo_fleet
from spotlab_pipelines_tests.local_aws.recording import load_recording


@pytest.fixture
def source(tmp_path: Path, market_dir: Path) -> Path:
    """Three change points, the Advisor and the types of the generated market, two on-demand tables."""
    folder = tmp_path / "source"
    for name in ("spot-advisor", "price-history", "instance-metadata", "on-demand"):
        (folder / name).mkdir(parents=True)
    pd.DataFrame(
        {
            "ts": pd.to_datetime(["2021-04-30 23:59:17", "2021-03-02 01:39:04", "2021-04-02 10:00:00"], utc=True),
            "az": ["us-east-1a", "us-east-1a", "us-east-1f"],
            "instance_type": ["m5.large", "m5.large", "c5.large"],
            "product": ["Linux/UNIX", "Linux/UNIX", "Windows"],
            "spot_price": [0.0412, 0.0371, 0.1254],
            "region": "us-east-1",
        }
    ).to_parquet(folder / "price-history" / "us-east-1_2021-03-02_2021-04-30.parquet")
    advisor = (market_dir / "advisor.json").read_bytes()
    (folder / "spot-advisor" / "spot-advisor-data_2021-02-10.json").write_bytes(advisor)
    types = (market_dir / "instance-types.json").read_bytes()
    (folder / "instance-metadata" / "describe-instance-types_2021-05.json").write_bytes(types)
    for day, usd in (("2022-06-22", 0.096), ("2024-03-11", 0.5)):
        (folder / "on-demand" / f"us-east-1_on-demand_asof_{day}.csv").write_text(
            f"instance_type,region,od_usd_per_hour,commit_date\nm5.large,us-east-1,{usd},{day}\n"
        )
    return folder


def test_a_recording_comes_out_with_nothing_invented(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--source", str(source), "--out", str(out)]) == 0
    now = datetime(2021, 4, 29, tzinfo=UTC)
    recording = load_recording(out, now)
    assert (recording.start, recording.end) == (datetime(2021, 3, 2, tzinfo=UTC), datetime(2021, 5, 1, tzinfo=UTC))
    rows = recording.prices.drop(columns="region").itertuples(index=False)
    assert [tuple(row) for row in rows] == [
        ("m5.large", "use1-az6", "Linux/UNIX", pd.Timestamp("2021-03-02 01:39:04", tz="UTC"), 0.0371),
        ("c5.large", "use1-az5", "Windows", pd.Timestamp("2021-04-02 10:00:00", tz="UTC"), 0.1254),
        ("m5.large", "use1-az6", "Linux/UNIX", pd.Timestamp("2021-04-30 23:59:17", tz="UTC"), 0.0412),
    ]
    assert recording.on_demand.to_dict("records") == [
        {"region": "us-east-1", "instance_type": "m5.large", "operating_system": "Linux", "usd_per_hour": 0.096}
    ]
    assert len(recording.interruptions) == 0
    assert recording.advisor == (source / "spot-advisor" / "spot-advisor-data_2021-02-10.json").read_bytes()
    assert recording.offered("us-east-1") == ["c5.large", "m5.large"]
    assert json.loads((out / "recording.json").read_text())["name"] == "recorded 2021-03-02 to 2021-05-01"


def test_a_demo_fleet_can_be_chosen_from_almost_nothing(source: Path, tmp_path: Path) -> None:
    main(["--source", str(source), "--out", str(tmp_path / "out")])
    accounts = demo_fleet(load_recording(tmp_path / "out"))
    assert len(accounts) == 4
    assert all(account.regions == ("us-east-1",) for account in accounts)


@pytest.mark.parametrize("part", ["spot-advisor", "price-history", "instance-metadata", "on-demand"])
def test_a_source_without_a_part_is_refused_in_one_line(
    source: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    next((source / part).iterdir()).unlink()
    if part == "on-demand":
        next((source / part).iterdir()).unlink()
    assert main(["--source", str(source), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) == 1
