"""Market recordings: a folder on disk → a checked `Recording` in memory, moved to the present.

A recording is what AWS would have said over some weeks: the Advisor's feed, price change points, instance types,
on-demand prices and, optionally, past Spot requests. It is moved by whole weeks (so that hours and weekdays stay
true) until its end lies in [now, now + 7 days); what lies in the future is held back by those who serve it. How the
parts are answered over HTTP lives elsewhere.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines_tests.local_aws.zones import recorder_zones

WEEK = timedelta(days=7)
PRICE_COLUMNS = ("Region", "AvailabilityZone", "InstanceType", "ProductDescription", "SpotPrice", "Timestamp")
REQUEST_COLUMNS = (
    "Region",
    "AvailabilityZone",
    "InstanceType",
    "ProductDescription",
    "StartedAt",
    "EndedAt",
    "StatusCode",
)
ON_DEMAND_COLUMNS = ("region", "instance_type", "operating_system", "usd_per_hour")


class RecordingError(Exception):
    """The folder is not a market recording; the message says which file and what is wrong with it."""


@dataclass(frozen=True)
class Recording:
    """One market, moved to the present.

    Attributes:
        prices: region, instance_type, az_id, product, changed_at, spot_price_usd_per_hour; the future included.
        on_demand: region, instance_type, operating_system, usd_per_hour.
        interruptions: past Spot requests: region, instance_type, az_id, product, started_at, ended_at (NaT while
            running), status_code, account_id (empty unless the recording says whose it was); no rows if none recorded.
    """

    name: str
    description: str
    start: datetime
    end: datetime
    prices: pd.DataFrame
    instance_types: dict[str, dict[str, Any]]
    advisor: bytes
    on_demand: pd.DataFrame
    interruptions: pd.DataFrame

    @property
    def regions(self) -> list[str]:
        """The regions with prices, sorted."""
        return sorted(self.prices["region"].unique().tolist())

    def offered(self, region: str) -> list[str]:
        """The instance types of a region: those with a Spot or an on-demand price there, sorted."""
        spot = self.prices.loc[self.prices["region"] == region, "instance_type"].unique()
        on_demand = self.on_demand.loc[self.on_demand["region"] == region, "instance_type"].unique()
        return sorted((set(spot) | set(on_demand)) & set(self.instance_types))

    def current_prices(self, now: datetime) -> pd.DataFrame:
        """One row per pool: the last price change not after `now`."""
        past = self.prices[self.prices["changed_at"] <= pd.Timestamp(now)]
        return past.drop_duplicates(["region", "instance_type", "az_id", "product"], keep="last").reset_index(drop=True)


def load_recording(folder: Path | str, now: datetime | None = None) -> Recording:
    """Read, check and move a recording.

    Raises:
        RecordingError: a file is missing or not of the shape described in README.md.
    """
    folder, now = Path(folder), now or datetime.now(UTC)
    if not folder.is_dir():
        raise RecordingError(f"{folder} is not a folder; expected a market recording.")
    head = _json(folder / "recording.json")
    try:
        start, end = (datetime.fromisoformat(head[key]).astimezone(UTC) for key in ("start", "end"))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"{folder}/recording.json: start and end must be ISO times ({error}).") from None
    shift = week_shift(end, now)
    types = _json(folder / "instance-types.json").get("InstanceTypes")
    if not isinstance(types, list) or not types:
        raise RecordingError(f"{folder}/instance-types.json: expected a list under InstanceTypes.")
    advisor = _json(folder / "advisor.json")
    if not isinstance(advisor.get("spot_advisor"), dict):
        raise RecordingError(f"{folder}/advisor.json: expected a map under spot_advisor.")
    return Recording(
        name=str(head.get("name", folder.name)),
        description=str(head.get("description", "")),
        start=start + shift,
        end=end + shift,
        prices=_prices(folder / "price-history.parquet", shift),
        instance_types={entry["InstanceType"]: entry for entry in types},
        advisor=(folder / "advisor.json").read_bytes(),
        on_demand=_on_demand(folder / "on-demand.csv"),
        interruptions=_requests(folder / "interruptions.parquet", shift),
    )


def week_shift(end: datetime, now: datetime) -> timedelta:
    """The whole weeks that move `end` into [now, now + 7 days)."""
    return math.ceil((now - end) / WEEK) * WEEK


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing.") from None
    except ValueError as error:
        raise RecordingError(f"{path} is not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise RecordingError(f"{path}: expected a JSON object, got {type(value).__name__}.")
    return value


def _parquet(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing.") from None
    except (ValueError, OSError) as error:
        raise RecordingError(f"{path} is not Parquet ({error}).") from None
    if missing := [column for column in columns if column not in frame]:
        raise RecordingError(f"{path}: columns {', '.join(missing)} are missing.")
    return frame


def _prices(path: Path, shift: timedelta) -> pd.DataFrame:
    frame = _parquet(path, PRICE_COLUMNS)
    price = pd.to_numeric(frame["SpotPrice"], errors="coerce").to_numpy(dtype=float)
    if not len(frame) or not (np.isfinite(price) & (price > 0)).all():
        raise RecordingError(f"{path}: every SpotPrice must be a number above 0, and there must be rows.")
    prices = pd.DataFrame(
        {
            "region": frame["Region"],
            "instance_type": frame["InstanceType"],
            "az_id": _zone_ids(path, frame),
            "product": _product(frame["ProductDescription"]),
            "changed_at": _times(frame["Timestamp"], shift),
            "spot_price_usd_per_hour": price,
        }
    )
    return prices.sort_values("changed_at", kind="stable", ignore_index=True)


def _requests(path: Path, shift: timedelta) -> pd.DataFrame:
    if path.exists():
        frame = _parquet(path, REQUEST_COLUMNS)
    else:
        frame = pd.DataFrame({column: pd.Series(dtype="str") for column in REQUEST_COLUMNS})
    return pd.DataFrame(
        {
            "region": frame["Region"],
            "instance_type": frame["InstanceType"],
            "az_id": _zone_ids(path, frame),
            "product": _product(frame["ProductDescription"]),
            "started_at": _times(frame["StartedAt"], shift),
            "ended_at": _times(frame["EndedAt"], shift),
            "status_code": frame["StatusCode"],
            "account_id": frame["AccountId"].fillna("") if "AccountId" in frame else "",
        }
    ).sort_values("started_at", kind="stable", ignore_index=True)


def _on_demand(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing.") from None
    except ValueError as error:
        raise RecordingError(f"{path} is not CSV ({error}).") from None
    if list(frame.columns) != list(ON_DEMAND_COLUMNS):
        raise RecordingError(f"{path}: expected the columns {', '.join(ON_DEMAND_COLUMNS)}.")
    if not (pd.to_numeric(frame["usd_per_hour"], errors="coerce") > 0).all():
        raise RecordingError(f"{path}: every usd_per_hour must be a number above 0.")
    return frame


def _zone_ids(path: Path, frame: pd.DataFrame) -> pd.Series:
    zones: dict[str, str] = {}
    for region in frame["Region"].unique():
        zones |= recorder_zones(region)
    ids = frame["AvailabilityZone"].map(zones)
    if ids.isna().any():
        unknown = frame.loc[ids.isna(), "AvailabilityZone"].iloc[0]
        raise RecordingError(f"{path}: {unknown} is not an availability zone of its region.")
    return ids


def _product(column: pd.Series) -> pd.Series:
    return column.str.removesuffix(" (Amazon VPC)")


def _times(column: pd.Series, shift: timedelta) -> pd.Series:
    return pd.to_datetime(column, utc=True).astype("datetime64[us, UTC]") + pd.Timedelta(shift)
