"""Which Spot instances ran when, and how each run ended: what AWS still tells, and what is on record of the rest.

AWS forgets a request some days after it has ended, and goes on telling of those whose instances run. Of the weeks
before, its answer holds survivors alone: a model of it would learn that nothing is ever interrupted. So requests count
from the first end that AWS still tells of, and before it what the laboratory itself has put on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.frames import SPOT_REQUEST_COLUMNS, TIME
from spotlab_pipelines.database.engine import database_errors

RUNS = sa.text("""
    with windows as (
        select o.*, coalesce(max(o.watched_until) over before < o.window_start, false) as is_new
        from interruption_outcomes o
        join evaluations e on e.account_id = o.account_id and e.window_start = o.window_start
        where o.account_id = any (:account_ids) and o.window_start < :until and o.watched_until > o.window_start
          -- Of a past that was looked at later, only what AWS still told of was seen, or what still ran.
          and not is_past_window(e.details, e.window_start, coalesce(e.finished_at, e.started_at))
        window before as (partition by o.account_id, o.instance_id order by o.window_start
                          rows between unbounded preceding and 1 preceding)
    ), numbered as (
        select *, count(*) filter (where is_new) over (
            partition by account_id, instance_id order by window_start) as run
        from windows
    )
    select '' as spot_request_id, instance_id, region, az_id, instance_type, product,
           min(window_start) as started_at, max(watched_until) as ended_at,
           bool_or(interrupted_at is not null) as interrupted, 'on record' as status_code
    from numbered
    group by account_id, instance_id, run, region, az_id, instance_type, product
    having max(watched_until) > :since
    order by account_id, instance_id, run
""")


def recorded_runs(engine: sa.Engine, account_ids: Sequence[str], *, since: datetime, until: datetime) -> pd.DataFrame:
    """The runs of the accounts' logged instances that reach beyond `since`, by what became of each.

    A run goes from the first window that saw the instance to its interruption, or to when it was last known to run:
    then it is censored, whoever ended it. What is stopped in between makes two. From `interruption_outcomes`.

    Returns:
        Frame of SPOT_REQUEST_COLUMNS, one row a run, without a request's id.
    """
    values = {"account_ids": list(account_ids), "since": since, "until": until}
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(RUNS, values).all()
    frame = pd.DataFrame(rows, columns=list(SPOT_REQUEST_COLUMNS))
    times = ("started_at", "ended_at")
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True).astype(TIME)
    texts = [name for name in SPOT_REQUEST_COLUMNS if name not in (*times, "interrupted")]
    return frame.astype(dict.fromkeys(texts, "str") | {"interrupted": bool})


def exposures_of(requests: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Both together, each instance by one of them. Pure.

    A request counts from the first end on that any request tells of, or from the first window on that saw its instance:
    both no matter how it ended. Of what no request tells any more, the runs count.

    Args:
        requests: what AWS tells. runs: what is on record. Each of SPOT_REQUEST_COLUMNS.

    Returns:
        Frame of SPOT_REQUEST_COLUMNS.
    """
    told_from = requests["ended_at"].min()
    first = runs.groupby("instance_id")["started_at"].min()
    seen_from = first.reindex(requests["instance_id"]).set_axis(requests.index)
    known_from = seen_from.where(seen_from.notna() & ~(seen_from > told_from), told_from)
    # Missing where it is not known since when.
    started = requests["started_at"].where(requests["started_at"] > known_from, known_from)
    # Where no request has ended and no window saw the instance, nothing says that others did not end before.
    kept = requests.assign(started_at=started)[started.notna()]
    return pd.concat([kept, runs[~runs["instance_id"].isin(requests["instance_id"])]], ignore_index=True)
