"""Two months of Spot prices in us-east-1: the public recording where it is, else a market of the same shape.

The recording is not part of the project; it is looked for beside the checkout, in shared/data.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spotlab_pipelines.market.frames import PRICING_OS, text
from spotlab_pipelines.settings import PROJECT_ROOT

FILES = PROJECT_ROOT.parent / "shared" / "data" / "price-history"
REGION = "us-east-1"
TYPES, ZONES, CHANGES = 254, 6, 603_744
START, DAYS = pd.Timestamp("2021-03-02T00:00:00Z"), 60


def two_months() -> tuple[pd.DataFrame, str]:
    """A price changes frame of about 600,000 rows in the order in which AWS sends them, and where it comes from."""
    found = sorted(FILES.glob(f"{REGION}_*.parquet"))
    frame, what = (_recorded(found[0]), "recorded 2021") if found else (_generated(), "generated")
    return frame.sort_values("changed_at", ascending=False, kind="stable", ignore_index=True), what


def _recorded(path: object) -> pd.DataFrame:
    names = {"ts": "changed_at", "az": "az_id", "spot_price": "spot_price_usd_per_hour"}
    frame = pd.read_parquet(str(path)).rename(columns=names)
    return frame.assign(changed_at=frame["changed_at"].dt.as_unit("us"))


def _generated() -> pd.DataFrame:
    """Every pool changes about every twelve hours, as in the recording."""
    random = np.random.default_rng(7)
    pool = np.sort(random.integers(0, TYPES * ZONES * len(PRICING_OS), CHANGES))
    kind, rest = np.divmod(pool, ZONES * len(PRICING_OS))
    zone, product = np.divmod(rest, len(PRICING_OS))
    names = [f"{family}{number}.{size}" for family in "cmrt" for number in range(13) for size in ("large", "xlarge")]
    names = sorted({f"{name}{metal}" for name in names for metal in ("", "-a", "-b")})[:TYPES]
    seconds = random.integers(0, DAYS * 86400, CHANGES)
    return pd.DataFrame(
        {
            "region": text([REGION] * CHANGES),
            "instance_type": text(names).take(kind),
            "az_id": text([f"use1-az{number + 1}" for number in range(ZONES)]).take(zone),
            "product": text(list(PRICING_OS)).take(product),
            "changed_at": (START + pd.to_timedelta(seconds, unit="s")).as_unit("us"),
            "spot_price_usd_per_hour": np.round(0.05 * (1 + kind / 20) * random.uniform(0.3, 0.6, CHANGES), 4),
        }
    ).drop_duplicates(ignore_index=True)
