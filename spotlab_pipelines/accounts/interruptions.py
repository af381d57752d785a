"""The interruptions of an account's instances, on record: each instance ends once, however often that is read."""

from __future__ import annotations

import orjson
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors

INSERT = sa.text("""
    insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source,
                                     status_code, spot_request_id, occurred_at)
    select :account_id, instance_id, region, az_id, instance_type, product, 'spot_request', status_code,
           spot_request_id, occurred_at
    from jsonb_to_recordset(cast(:rows as jsonb)) as told(
        instance_id text, region text, az_id text, instance_type text, product text, status_code text,
        spot_request_id text, occurred_at timestamptz)
    on conflict (account_id, instance_id) do nothing
""")
COLUMNS = ["instance_id", "region", "az_id", "instance_type", "product", "status_code", "spot_request_id"]


def record_interruptions(engine: sa.Engine, account_id: str, requests: pd.DataFrame) -> int:
    """Write the interruptions among an account's fulfilled Spot requests that are not on record yet.

    Args:
        requests: what `read_spot_requests` gives.

    Returns:
        How many were new.
    """
    taken = requests[requests["interrupted"] & requests["ended_at"].notna()]
    if taken.empty:
        return 0
    times = [time.isoformat() for time in taken["ended_at"]]
    rows = taken[COLUMNS].assign(occurred_at=times).to_dict("records")
    with database_errors(), engine.begin() as connection:
        return connection.execute(INSERT, {"account_id": account_id, "rows": orjson.dumps(rows).decode()}).rowcount
