"""The shapes of the frames that leave `accounts/`, and the one way to check a frame at a room's door.

No reading and no writing here. pandera is imported at the first check, because it costs more than a second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.accounts.plain_check import plainly_fits
from spotlab_pipelines.database.tables import LIFECYCLES, PIPELINE_MODES
from spotlab_pipelines.errors import SourceMalformed

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

TIME = "datetime64[us, UTC]"
"""The dtype of every time in a frame."""

FLEET_COLUMNS = (
    "account_id",
    "instance_id",
    "region",
    "az_id",
    "instance_type",
    "product",
    "lifecycle",
    "state",
    "tags",
    "launched_at",
    "spot_request_id",
)
STEERING_COLUMNS = ("assigned_version", "pipeline_mode", "shadow")
SPOT_REQUEST_COLUMNS = (
    "spot_request_id",
    "instance_id",
    "region",
    "az_id",
    "instance_type",
    "product",
    "started_at",
    "ended_at",
    "interrupted",
    "status_code",
)
ENDING_COLUMNS = (
    "instance_id",
    "region",
    "az_id",
    "instance_type",
    "product",
    "spot_request_id",
    "code",
    "interrupted",
    "occurred_at",
)
REFUSAL_COLUMNS = ("spot_request_id", "region", "az_id", "instance_type", "product", "refused_at", "status_code")


def check_frame(schema: DataFrameSchema, frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return `frame` if it has the schema's columns, dtypes and ranges; `what` names its source in the error.

    Raises:
        SourceMalformed: naming the first column, rule, value and row that do not fit, and how many there are.
    """
    if plainly_fits(schema, frame):
        return frame
    from pandera.errors import SchemaErrors

    try:
        return schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        first = cases.iloc[0]
        message = (
            f"{what}: expected {first['column']} to satisfy {first['check']}, got {first['failure_case']!r} "
            f"at row {first['index']} ({len(cases)} such values)."
        )
    raise SourceMalformed(message, remedy="Nothing was written; look at what the source returned and scrape again.")


@lru_cache(maxsize=1)
def fleet_schema() -> DataFrameSchema:
    """The fleet: one row an instance, unique by instance_id."""
    import pandera.pandas as pa

    text = pa.Column("str", pa.Check.str_length(min_value=1))
    return pa.DataFrameSchema(
        {
            **dict.fromkeys(("account_id", "region", "az_id", "instance_type", "product"), text),
            "instance_id": pa.Column("str", pa.Check.str_matches(r"^i-[0-9a-f]{8,17}$"), unique=True),
            "lifecycle": pa.Column("str", pa.Check.isin(LIFECYCLES)),
            "state": pa.Column("str", pa.Check.isin(("pending", "running", "stopping", "stopped", "terminated"))),
            "tags": pa.Column(object),
            "launched_at": pa.Column(TIME),
            "spot_request_id": pa.Column("str", nullable=True),
            "assigned_version": pa.Column("str", nullable=True, required=False),
            "pipeline_mode": pa.Column("str", pa.Check.isin(PIPELINE_MODES), required=False),
            "shadow": pa.Column(bool, required=False),
        }
    )


@lru_cache(maxsize=1)
def spot_request_schema() -> DataFrameSchema:
    """Spot requests that were fulfilled: one row a request, with how it ended, if it did."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            **{
                name: pa.Column("str")
                for name in ("spot_request_id", "instance_id", "region", "az_id", "instance_type", "product")
            },
            "started_at": pa.Column(TIME),
            "ended_at": pa.Column(TIME, nullable=True),
            "interrupted": pa.Column(bool),
            "status_code": pa.Column("str"),
        }
    )


@lru_cache(maxsize=1)
def refusal_schema() -> DataFrameSchema:
    """Spot requests that EC2 refused for want of capacity: one row a request."""
    import pandera.pandas as pa

    texts = {name: pa.Column("str") for name in REFUSAL_COLUMNS if name != "refused_at"}
    return pa.DataFrameSchema(texts | {"refused_at": pa.Column(TIME)})


@lru_cache(maxsize=1)
def ending_schema() -> DataFrameSchema:
    """How Spot instances ended: one row an instance and source."""
    import pandera.pandas as pa

    texts = {
        name: pa.Column("str", nullable=name == "spot_request_id")
        for name in ENDING_COLUMNS
        if name not in ("interrupted", "occurred_at")
    }
    return pa.DataFrameSchema(texts | {"interrupted": pa.Column(bool), "occurred_at": pa.Column(TIME, nullable=True)})
