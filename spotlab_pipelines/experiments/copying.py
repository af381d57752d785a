"""How decisions travel into the log: wide, as CSV by COPY into a temporary table, where the INSERT unfolds them.

So each decision is sent once, not once a horizon, and no loop of ours touches a row. When to write, under which lock,
is `log.py`'s.
"""

from __future__ import annotations

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from spotlab_pipelines.experiments.frames import PROBABILITIES
from spotlab_pipelines.settings import HORIZONS_H

# The columns that a decision repeats at every horizon, and their types.
REPEATED = {
    "instance_id": "text",
    "model_version": "text",
    "model_role": "text",
    "acting": "boolean",
    "shadow": "boolean",
    "pipeline_mode": "text",
    "features": "jsonb",
    "decision": "text",
    "reason": "text",
    "region": "text",
    "from_pool": "text",
    "to_pool": "text",
    "from_price_usd_per_hour": "double precision",
    "to_price_usd_per_hour": "double precision",
    "from_cost_usd_per_hour": "double precision",
    "to_cost_usd_per_hour": "double precision",
    "gain": "double precision",
    "candidates_considered": "integer",
}
COPIED = (*REPEATED, *PROBABILITIES)

CREATE = "create temporary table decided ({}) on commit drop".format(
    ", ".join([f"{name} {kind}" for name, kind in REPEATED.items()] + [f"{p} double precision" for p in PROBABILITIES])
)
COPY = f"copy decided ({', '.join(COPIED)}) from stdin (format csv)".encode()
INSERT = sa.text(
    """
    insert into experiment_logs (window_start, account_id, snapshot_id, scored_at, timings_ms,
                                 horizon_h, p_current, p_target, {repeated})
    select :window_start, :account_id, :snapshot_id, coalesce(cast(:scored_at as timestamptz), now()), :timings_ms,
           unfolded.horizon_h, unfolded.p_current, unfolded.p_target, {repeated}
    from decided
    cross join lateral (values {horizons}) as unfolded (horizon_h, p_current, p_target)
    on conflict do nothing
    """.format(  # noqa: S608 -- names of this module alone
        repeated=", ".join(REPEATED),
        horizons=", ".join(f"({horizon}, p_current_{horizon}h, p_target_{horizon}h)" for horizon in HORIZONS_H),
    )
).bindparams(sa.bindparam("timings_ms", type_=JSONB))


def to_csv(decisions: pd.DataFrame) -> pa.Buffer:
    """The wide decisions as the CSV that COPY reads: unknown values empty, texts quoted, floats to the last bit."""
    columns = decisions[[*COPIED]].assign(features=_json(decisions["features"]))
    table = pa.Table.from_pandas(columns, preserve_index=False)
    sink = pa.BufferOutputStream()
    pacsv.write_csv(table, sink, pacsv.WriteOptions(include_header=False))
    return sink.getvalue()


def _json(features: pd.Series) -> pd.Series:
    texts = [
        None if value is None else orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode() for value in features
    ]
    return pd.Series(texts, index=features.index, dtype="str")
