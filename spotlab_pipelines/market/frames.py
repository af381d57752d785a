"""The shapes of the frames that leave `market/`: price changes, Advisor, catalogue and on-demand prices.

No reading and no writing here. pandera is imported at the first check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as pc
from pandas.api.extensions import ExtensionArray

from spotlab_pipelines.accounts.frames import TIME, check_frame

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

POOL_KEY = ("region", "instance_type", "az_id", "product")
PRICE_COLUMNS = (*POOL_KEY, "changed_at", "spot_price_usd_per_hour")
OBSERVATION_COLUMNS = (*POOL_KEY, "observed_at", "available", "kind", "source")
OBSERVATION_KINDS = ("interruption", "launch", "running", "probe")
ADVISOR_COLUMNS = (
    "region",
    "os",
    "instance_type",
    "bucket",
    "interrupt_rate_min",
    "interrupt_rate_max",
    "interrupt_rate_mid",
    "savings_pct",
)
CATALOGUE_COLUMNS = (
    "instance_type",
    "vcpus",
    "memory_mib",
    "architecture",
    "accelerators",
    "current_generation",
    "network_performance",
)
ON_DEMAND_COLUMNS = ("region", "os", "instance_type", "on_demand_usd_per_hour", "price_source")

ADVISOR_OS = ("Linux", "Windows")
PRICING_OS = {
    "Linux/UNIX": "Linux",
    "Red Hat Enterprise Linux": "RHEL",
    "SUSE Linux": "SUSE",
    "Windows": "Windows",
}
"""Product description -> operating system of the Pricing API."""

ESTIMATED_PRICE = "advisor-savings"
PRICE_SOURCES = ("pricing", ESTIMATED_PRICE)
"""Where an on-demand price comes from: AWS's price list, or spot / (1 - the Advisor's saving); see fallback.py."""
NAN = float("nan")
BUCKET_RATE_MIN = (0.0, 0.05, 0.10, 0.15, 0.20)
BUCKET_RATE_MAX = (0.05, 0.10, 0.15, 0.20, 1.0)
BUCKET_RATE_MID = (
    *((low + high) / 2 for low, high in zip(BUCKET_RATE_MIN[:-1], BUCKET_RATE_MAX[:-1], strict=True)),
    NAN,
)
"""Monthly interruption rate of the Advisor's buckets 0..4, as a range and its midpoint. The labels are the contract,
`ranges.max` (5, 11, 16, 22, 100) is not. The open last bucket has no midpoint: the setting open_bucket_rate stands for
it where one is needed, and a setting is nothing that a source said."""


def family_of(instance_types: pd.Series) -> pd.Series:
    """The families of instance types: what stands before the dot."""
    return instance_types.str.replace(r"\..*", "", regex=True)


def joined(frame: pd.DataFrame, columns: Sequence[str], by: str = "/") -> pd.Index:
    """The texts of several columns as one text a row, with `by` between them."""
    return joined_texts([frame[name].array for name in columns], by)


def joined_texts(columns: Sequence[ExtensionArray], by: str = "/") -> pd.Index:
    """`joined`, of columns that are in no frame."""
    texts = [pyarrow.array(column, pyarrow.large_string()) for column in columns]
    separator = pyarrow.scalar(by, pyarrow.large_string())
    return pd.Index(pc.call_function("binary_join_element_wise", [*texts, separator]), dtype="str")


def places(texts: pd.Index, among: pd.Index) -> np.ndarray:
    """(n,) the place of each text among distinct ones, -1 where it is not there; as Index.get_indexer, sooner."""
    sought, known = (pyarrow.array(each.array, pyarrow.large_string()) for each in (texts, among))
    return pc.call_function("index_in", [sought], pc.SetLookupOptions(known)).fill_null(-1).to_numpy().astype(np.intp)


def among(column: pd.Series, names: Iterable[str]) -> np.ndarray:
    """(n,) whether each text is one of `names`: what Series.isin says, in a tenth of its time."""
    texts, wanted = (pyarrow.array(each, pyarrow.large_string()) for each in (column.array, list(names)))
    return np.asarray(pc.call_function("is_in", [texts], pc.SetLookupOptions(wanted)))


def text(values: Sequence[str | None]) -> ExtensionArray:
    """A column of the pandas `str` dtype, also when it is empty; no Series, from which a frame is made far slower."""
    return pd.array(list(values), dtype="str")


def check_prices(frame: pd.DataFrame, what: str = "Spot price changes") -> pd.DataFrame:
    """Check price changes (one row a change point); see `check_frame` for the error."""
    return check_frame(price_schema(), frame, what)


def check_observations(frame: pd.DataFrame, what: str = "Pool observations") -> pd.DataFrame:
    """Check pool observations (one row a fact about one pool at one time); see `check_frame` for the error."""
    return check_frame(observation_schema(), frame, what)


def check_advisor(frame: pd.DataFrame, what: str = "Spot Advisor") -> pd.DataFrame:
    """Check Advisor rows (one a region, OS and type); see `check_frame` for the error."""
    return check_frame(advisor_schema(), frame, what)


def check_catalogue(frame: pd.DataFrame, what: str = "Instance catalogue") -> pd.DataFrame:
    """Check the instance catalogue (one row a type); see `check_frame` for the error."""
    return check_frame(catalogue_schema(), frame, what)


def check_on_demand(frame: pd.DataFrame, what: str = "On-demand prices") -> pd.DataFrame:
    """Check on-demand prices (one row a region, OS and type); see `check_frame` for the error."""
    return check_frame(on_demand_schema(), frame, what)


@lru_cache(maxsize=1)
def price_schema() -> DataFrameSchema:
    """Price changes: prices in USD per hour, above 0 and finite."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            **{name: pa.Column("str") for name in POOL_KEY},
            "changed_at": pa.Column(TIME),
            "spot_price_usd_per_hour": pa.Column("float64", [pa.Check.gt(0), pa.Check.lt(float("inf"))]),
        }
    )


@lru_cache(maxsize=1)
def observation_schema() -> DataFrameSchema:
    """Pool observations: `available` is whether EC2 gave or kept the capacity. No account: pools are shared by all."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            **{name: pa.Column("str") for name in POOL_KEY},
            "observed_at": pa.Column(TIME),
            "available": pa.Column(bool),
            "kind": pa.Column("str", pa.Check.isin(OBSERVATION_KINDS)),
            "source": pa.Column("str"),
        }
    )


@lru_cache(maxsize=1)
def advisor_schema() -> DataFrameSchema:
    """Advisor rows: rates are monthly fractions, savings whole percent that may be zero or negative."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            "region": pa.Column("str"),
            "os": pa.Column("str", pa.Check.isin(ADVISOR_OS)),
            "instance_type": pa.Column("str"),
            "bucket": pa.Column("int64", pa.Check.in_range(0, 4)),
            "interrupt_rate_min": pa.Column("float64", pa.Check.isin(BUCKET_RATE_MIN)),
            "interrupt_rate_max": pa.Column("float64", pa.Check.isin(BUCKET_RATE_MAX)),
            "interrupt_rate_mid": pa.Column("float64", pa.Check.isin(BUCKET_RATE_MID[:-1]), nullable=True),
            "savings_pct": pa.Column("int64", pa.Check.le(100)),
        }
    )


@lru_cache(maxsize=1)
def catalogue_schema() -> DataFrameSchema:
    """Instance types: memory in MiB, one primary architecture, accelerators as words ("" for none)."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            "instance_type": pa.Column("str", pa.Check.str_contains(r"\."), unique=True),
            "vcpus": pa.Column("int64", pa.Check.gt(0)),
            "memory_mib": pa.Column("int64", pa.Check.gt(0)),
            "architecture": pa.Column("str", pa.Check.str_length(min_value=1)),
            "accelerators": pa.Column("str"),
            "current_generation": pa.Column(bool),
            "network_performance": pa.Column("str"),
        }
    )


@lru_cache(maxsize=1)
def on_demand_schema() -> DataFrameSchema:
    """On-demand prices: USD per hour, above 0; `price_source` says where a price comes from."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            "region": pa.Column("str"),
            "os": pa.Column("str"),
            "instance_type": pa.Column("str"),
            "on_demand_usd_per_hour": pa.Column("float64", [pa.Check.gt(0), pa.Check.lt(float("inf"))]),
            "price_source": pa.Column("str", pa.Check.isin(PRICE_SOURCES)),
        },
        unique=["region", "os", "instance_type"],
    )
