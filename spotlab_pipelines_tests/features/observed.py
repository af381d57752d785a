"""Small frames of pool observations, by hand and drawn by hypothesis, for the tests of several rooms."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from spotlab_pipelines_tests.features.examples import LINUX, NOW

ZONES = ("use1-az1", "use1-az2", "use1-az4")
MINUTE = timedelta(minutes=1)


def observations(*rows: tuple[str, float, bool], instance_type: str = "m5.large") -> pd.DataFrame:
    """Observations from (zone id, hours before NOW, available)."""
    times = pd.to_datetime([NOW - timedelta(hours=row[1]) for row in rows], utc=True)
    return pd.DataFrame(
        {
            "region": pd.Series(["us-east-1"] * len(rows), dtype="str"),
            "instance_type": pd.Series([instance_type] * len(rows), dtype="str"),
            "az_id": pd.Series([row[0] for row in rows], dtype="str"),
            "product": pd.Series([LINUX] * len(rows), dtype="str"),
            "observed_at": times.as_unit("us"),
            "available": np.array([row[2] for row in rows], dtype=bool),
        }
    )


def places(*zones: str, hours: float | None = None) -> pd.DataFrame:
    """Pools by zone; with `hours` before NOW as the instant at which each is looked at."""
    frame = observations(*((zone, hours or 0.0, True) for zone in zones)).drop(columns="available")
    return frame.rename(columns={"observed_at": "sampled_at"}) if hours is not None else frame.iloc[:, :4]


@st.composite
def drawn_observations(draw: st.DrawFn) -> pd.DataFrame:
    """A few observations of three pools over 40 days, on a coarse grid so that ties and edges of windows occur."""
    steps = st.tuples(st.sampled_from(ZONES[:2]), st.integers(0, 40 * 24 * 2), st.booleans())
    recent = st.tuples(st.sampled_from(ZONES[:2]), st.integers(0, 60), st.booleans())
    rows = draw(st.lists(steps | recent, max_size=25))
    return observations(*((zone, half_hours / 2, available) for zone, half_hours, available in rows))
