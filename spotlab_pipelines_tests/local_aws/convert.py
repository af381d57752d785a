"""Recorded public data → a market recording.

`python -m spotlab_pipelines_tests.local_aws.convert --source DIR --out DIR`

The source is a folder of the public recordings of 2021 (its PROVENANCE.md files say whose they are): `spot-advisor/`,
`price-history/` (Parquet with ts, az, instance_type, product, spot_price, region), `instance-metadata/` and
`on-demand/`. Nothing is invented: an on-demand price exists only where the table has one (Linux only), and there are
no past Spot requests. On-demand prices are of 2022, the oldest table there is; AWS changed few of them in between.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC
from pathlib import Path

import pandas as pd

from spotlab_pipelines_tests.local_aws.recording import PRICE_COLUMNS, RecordingError, load_recording

ADVISOR = "spot-advisor/spot-advisor-data_2021-*.json"
PRICES = "price-history/*.parquet"
TYPES = "instance-metadata/describe-instance-types_*.json"
ON_DEMAND = "on-demand/*_on-demand_asof_*.csv"


def convert(source: Path, out: Path) -> Path:
    """Write the recording and read it once to check it.

    Raises:
        RecordingError: a file is missing or not as described above.
    """
    prices = _prices(_find(source, PRICES))
    types = json.loads(_find(source, TYPES).read_bytes())["InstanceTypes"]
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_find(source, ADVISOR), out / "advisor.json")
    prices.to_parquet(out / "price-history.parquet", index=False, compression="zstd")
    (out / "instance-types.json").write_text(json.dumps({"InstanceTypes": types}, sort_keys=True))
    _on_demand(_find(source, ON_DEMAND)).to_csv(out / "on-demand.csv", index=False)
    # The end is the first midnight after the last change, so that hours of the day stay what they were.
    start, end = prices["Timestamp"].min().floor("D"), prices["Timestamp"].max().ceil("D")
    head = {
        "name": f"recorded {start:%Y-%m-%d} to {end:%Y-%m-%d}",
        "description": "Public recordings: Advisor of 2021-02, prices of 2021-03 to 2021-04, on-demand of 2022-06.",
        "start": start.astimezone(UTC).isoformat(),
        "end": end.astimezone(UTC).isoformat(),
    }
    (out / "recording.json").write_text(json.dumps(head, indent=1) + "\n")
    load_recording(out)
    return out


def _prices(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    names = ("region", "az", "instance_type", "product", "spot_price", "ts")
    if missing := [name for name in names if name not in frame]:
        raise RecordingError(f"{path}: columns {', '.join(missing)} are missing.")
    frame = frame[list(names)].set_axis(list(PRICE_COLUMNS), axis=1)
    return frame.sort_values("Timestamp", kind="stable", ignore_index=True)


def _on_demand(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path).rename(columns={"od_usd_per_hour": "usd_per_hour"}).assign(operating_system="Linux")
    return frame[["region", "instance_type", "operating_system", "usd_per_hour"]]


def _find(source: Path, pattern: str) -> Path:
    """The oldest file of a kind: names end in their date."""
    found = sorted(source.glob(pattern))
    if not found:
        raise RecordingError(f"{source} has no {pattern}.")
    return found[0]


def main(arguments: list[str] | None = None) -> int:
    """Convert; 2 with one line if the source is not as expected."""
    parser = argparse.ArgumentParser(description="Turn recorded public data into a market recording.")
    parser.add_argument("--source", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        print(convert(options.source, options.out))
    except RecordingError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
