"""Small frames by hand, for the tests of several rooms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.market.parse_advisor import advisor_frame

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
LINUX = "Linux/UNIX"


def changes(*rows: tuple[str, str, float, float], product: str = LINUX, region: str = "us-east-1") -> pd.DataFrame:
    """Price changes from (instance type, zone id, hours before NOW, price)."""
    return pd.DataFrame(
        {
            "region": pd.Series([region] * len(rows), dtype="str"),
            "instance_type": pd.Series([row[0] for row in rows], dtype="str"),
            "az_id": pd.Series([row[1] for row in rows], dtype="str"),
            "product": pd.Series([product] * len(rows), dtype="str"),
            "changed_at": pd.to_datetime([NOW - timedelta(hours=row[2]) for row in rows], utc=True).as_unit("us"),
            "spot_price_usd_per_hour": pd.Series([row[3] for row in rows], dtype=float),
        }
    )


def pools(*rows: dict[str, Any]) -> pd.DataFrame:
    """A pools frame; each row overrides a pool that has everything."""
    base = {
        "region": "us-east-1",
        "instance_type": "m5.large",
        "az_id": "use1-az1",
        "product": LINUX,
        "spot_price_usd_per_hour": 0.04,
        "price_min_usd_per_hour": 0.03,
        "price_max_usd_per_hour": 0.05,
        "price_changes": 2,
        "price_changed_at": pd.Timestamp(NOW),
        "on_demand_usd_per_hour": 0.1,
        "price_source": "pricing",
        "interrupt_rate_min": 0.05,
        "interrupt_rate_max": 0.10,
    }
    frame = pd.DataFrame([{**base, **row} for row in rows], columns=list(base))
    frame.insert(2, "family", frame["instance_type"].str.partition(".")[0])
    texts = ["region", "instance_type", "family", "az_id", "product", "price_source"]
    floats = [name for name in frame.columns if name.endswith(("per_hour", "rate_min", "rate_max"))]
    times = pd.to_datetime(frame["price_changed_at"], utc=True).dt.as_unit("us")
    return frame.astype(dict.fromkeys(texts, "str") | dict.fromkeys(floats, float)).assign(price_changed_at=times)


def listed_market(names: Sequence[str], region: str = "us-east-1") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Advisor rows (buckets in turn) and on-demand rows (0.5, 1.0, 1.5 … USD per hour) of these types, for Linux."""
    count = len(names)
    regions, systems, types = (pd.Series(of, dtype="str") for of in ([region] * count, ["Linux"] * count, names))
    advisor = advisor_frame(regions, systems, types, np.arange(count) % 5, np.full(count, 60))
    on_demand = pd.DataFrame(
        {
            "region": regions,
            "os": systems,
            "instance_type": types,
            "on_demand_usd_per_hour": np.arange(1, count + 1) * 0.5,
            "price_source": pd.Series(["pricing"] * count, dtype="str"),
        }
    )
    return advisor, on_demand
