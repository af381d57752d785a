"""A generated trace whose hazard is known, for tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

START = pd.Timestamp("2023-03-01", tz="UTC")


def generated_trace(*, pools: int = 6, days: int = 20, every_min: int = 30, seed: int = 0) -> pd.DataFrame:
    """Probes of pools that fall into failing spells, the more often the more recently they have.

    Each pool is stressed or calm, half a day at a time at least; stressed, each probe of an available pool fails with
    probability 0.25, calm with 0.01, and a failing one stays so with 0.6.
    """
    generator = np.random.default_rng(seed)
    steps = days * 24 * 60 // every_min
    draw, switch = generator.random((steps, pools)), generator.random((steps, pools))
    stressed = generator.random(pools) < 0.5
    failed = np.zeros((steps, pools), dtype=bool)
    for step in range(1, steps):
        stressed = stressed ^ (switch[step] < every_min / 60 / 24)
        failed[step] = draw[step] < np.where(failed[step - 1], 0.6, np.where(stressed, 0.25, 0.01))
    moment = START + pd.to_timedelta(np.arange(steps) * every_min, unit="min")
    number = np.tile(np.arange(pools), steps)
    return pd.DataFrame(
        {
            "region": pd.Series(["us-west-2"] * len(number), dtype="str"),
            "instance_type": pd.Series([f"p{each}.large" for each in number], dtype="str"),
            "az_id": pd.Series([f"usw2-az{each % 3 + 1}" for each in number], dtype="str"),
            "product": pd.Series(["Linux/UNIX"] * len(number), dtype="str"),
            "observed_at": pd.DatetimeIndex(np.repeat(moment, pools)).as_unit("us"),
            "available": ~failed.ravel(),
        }
    )
