"""Predictions with what became of them, read for those who judge: whole columns, not rows.

They come from the view `v_labelled_predictions` by COPY, which is many times as fast as fetching rows one by one. What
is made of them is scorecards.py's and judging.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.experiments.outcomes import EVENT_READINGS

TEXT, NUMBER, FLAG = pa.string(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
"""Sent as microseconds since the epoch: no session's style of writing dates comes in between."""
LABELLED = {
    **dict.fromkeys(("account_id", "environment", "region", "family", "instance_id", "outcome"), TEXT),
    "window_start": TIME,
    "p_current": NUMBER,
    "final": FLAG,
    "retrospective": FLAG,
    **dict.fromkeys(("interrupted_at", "watched_until"), TIME),
}
DECIDED = {
    **dict.fromkeys(("account_id", "instance_id", "model_version", "decision", "from_pool", "to_pool"), TEXT),
    **dict.fromkeys(("environment", "region", "family"), TEXT),
    **dict.fromkeys(("window_start", "interrupted_at", "watched_until"), TIME),
    **dict.fromkeys(("from_price_usd_per_hour", "to_price_usd_per_hour", "interruption_cost_usd"), NUMBER),
}
LABELLED_QUERY = """
    select account_id, environment, region, family, instance_id, outcome,
           (extract(epoch from window_start) * 1000000)::bigint as window_start, p_current, final, retrospective,
           (extract(epoch from interrupted_at) * 1000000)::bigint as interrupted_at,
           (extract(epoch from watched_until) * 1000000)::bigint as watched_until
    from v_labelled_predictions
    where model_version = %(version)s and horizon_h = %(horizon_h)s and window_start >= %(since)s
      and (%(account_id)s::text is null or account_id = %(account_id)s)
"""
READ_QUERY = sa.text("""
    select account_id, (
        select max(fetched_at) from scrapes s
        where s.account_id = a.account_id and s.source = any (:readings) and s.error is null) as read_at
    from accounts a
""")
SAID = dict.fromkeys(("account_id", "instance_id"), TEXT) | {"window_start": TIME, "p_challenger": NUMBER}
SAID_QUERY = """
    select account_id, instance_id, (extract(epoch from window_start) * 1000000)::bigint as window_start,
           p_current as p_challenger
    from experiment_logs
    where model_version = %(version)s and horizon_h = %(horizon_h)s and window_start >= %(since)s
"""
DECIDED_QUERY = """
    select l.account_id, l.instance_id, l.model_version, l.decision, l.environment, l.region, l.family,
           l.instance_type || ':' || l.az_id || ':' || l.product as from_pool, l.to_pool,
           (extract(epoch from l.window_start) * 1000000)::bigint as window_start,
           (extract(epoch from l.interrupted_at) * 1000000)::bigint as interrupted_at,
           (extract(epoch from l.watched_until) * 1000000)::bigint as watched_until,
           l.from_price_usd_per_hour, l.to_price_usd_per_hour, a.interruption_cost_usd
    from v_labelled_predictions l
    join accounts a on a.account_id = l.account_id
    where l.model_version = any(%(versions)s) and l.horizon_h = %(horizon_h)s and l.window_start >= %(since)s
      and l.watched_until is not null
"""


def labelled(
    connection: sa.Connection, version: str, *, horizon_h: int, since: datetime, account_id: str | None = None
) -> pd.DataFrame:
    """What one version said at one horizon of windows from `since` on, and what became of it; columns `LABELLED`.

    `outcome` is interrupted, survived or censored; what is not `final` may still change. An interruption is final no
    sooner than survival could have been, when the account was last looked at after the horizon's end: of the latest
    windows interruptions are known first, and would count alone.
    """
    values = {"version": version, "horizon_h": horizon_h, "since": since, "account_id": account_id}
    rows = _copied(connection, LABELLED_QUERY, values, LABELLED)
    read_at = {
        row.account_id: row.read_at for row in connection.execute(READ_QUERY, {"readings": list(EVENT_READINGS)})
    }
    looked = pd.to_datetime(rows["account_id"].map(read_at), utc=True)
    seen = rows.groupby("account_id")["watched_until"].transform("max")
    over = rows["window_start"] + pd.Timedelta(hours=horizon_h) <= pd.concat([looked, seen], axis=1).max(axis=1)
    return rows.assign(final=rows["final"] & (over | (rows["outcome"] != "interrupted")))


def paired(
    connection: sa.Connection, champion: str, challenger: str, *, horizon_h: int, since: datetime
) -> pd.DataFrame:
    """What both said of the same instance in the same window: `LABELLED`, the champion's, and `p_challenger`.

    `p_challenger` is NaN where the challenger was asked and had no prediction.
    """
    ours = labelled(connection, champion, horizon_h=horizon_h, since=since)
    values = {"version": challenger, "horizon_h": horizon_h, "since": since}
    # Joined here: as one statement over a log without fresh statistics, Postgres compares every row with every other.
    theirs = _copied(connection, SAID_QUERY, values, SAID)
    return ours.merge(theirs, on=["account_id", "window_start", "instance_id"], how="inner", validate="one_to_one")


def decided(connection: sa.Connection, versions: Sequence[str], *, horizon_h: int, since: datetime) -> pd.DataFrame:
    """What versions decided, with what became of the instances, as decision_value.py takes it: columns `DECIDED`.

    Only of instances whose outcome was looked for.
    """
    values = {"versions": list(versions), "horizon_h": horizon_h, "since": since}
    return _copied(connection, DECIDED_QUERY, values, DECIDED)


def _copied(
    connection: sa.Connection, query: str, values: dict[str, Any], types: dict[str, pa.DataType]
) -> pd.DataFrame:
    sink = pa.BufferOutputStream()
    with database_errors():
        driver = cast("Any", connection.connection.driver_connection)
        with driver.cursor() as cursor, cursor.copy(f"copy ({query}) to stdout (format csv, header)", values) as rows:
            for block in rows:
                sink.write(block)
    options = pacsv.ConvertOptions(
        column_types={name: pa.int64() if kind == TIME else kind for name, kind in types.items()},
        true_values=["t"],
        false_values=["f"],
        strings_can_be_null=True,
        null_values=[""],
    )
    read = pacsv.read_csv(pa.BufferReader(sink.getvalue()), convert_options=options)
    # By the key: what is computed of the rows must not depend on the order in which Postgres found them.
    keys = [name for name in ("account_id", "window_start", "instance_id", "model_version") if name in types]
    return read.select(list(types)).cast(pa.schema(types)).sort_by([(name, "ascending") for name in keys]).to_pandas()
