"""The rows that decision_value.py weighs: decisions with what became of the instances (labels.py gives them), the
on-demand price that each could have had, and, where a wish was carried out, for how long its replacement really ran.

Nobody tells SpotLab which instance replaced which. A wish was carried out where the instance ended by a switch and its
last decision, the one that acted, was that wish, whichever version it is that says so too. Its replacement is an
instance of the same account that was launched in the wished pool, or on-demand as the same type, within `NEAR` of the
end; each stands in for one at most, in the order of the ends. Where none is found the hours are not known.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.experiments.labels import decided
from spotlab_pipelines.experiments.learning import LAST_ACTED
from spotlab_pipelines.experiments.log import ON_DEMAND
from spotlab_pipelines.settings import HORIZONS_H

NEAR = timedelta(minutes=30)
"""Whoever carries a switch out launches the replacement a little before the end, or after it."""
KEY = ["account_id", "window_start", "instance_id"]
TIMES = ("window_start", "ended_at", "launched_at", "ran_until")

PRICES = sa.text("""
    select e.account_id, e.window_start, p.key as from_pool, cast(p.value as float8) as on_demand_usd_per_hour
    from evaluations e, jsonb_each_text(e.details -> :name) p
    where e.state = 'logged' and e.window_start >= :since
""")
LEFT = sa.text(f"""
    select i.account_id, i.instance_id, i.ended_at, d.window_start, d.decision as acted, d.to_pool as acted_pool,
           i.region, case d.decision when 'SWITCH' then d.to_pool
               else concat('on-demand ', i.instance_type, ':', i.product) end as place
    from instances i cross join lateral (select e.window_start, l.decision, l.to_pool {LAST_ACTED}) d
    where i.ended_by = 'switch' and i.ended_at >= :since
""").bindparams(sa.bindparam("longest", type_=sa.Interval))  # noqa: S608 -- a fragment of this package alone
LAUNCHED = sa.text("""
    select i.account_id, i.instance_id, i.launched_at, i.region,
           case i.lifecycle when 'spot' then concat(i.instance_type, ':', i.az_id, ':', i.product)
               else concat('on-demand ', i.instance_type, ':', i.product) end as place,
           -- When it ended where somebody told; else it is known to have run for as long as it was seen to.
           coalesce((select min(e.occurred_at) from interruption_events e where e.account_id = i.account_id
                         and e.instance_id = i.instance_id and e.occurred_at >= i.launched_at),
                    case when i.ended_by is not null then i.ended_at end, i.last_running_at) as ran_until
    from instances i
    where i.account_id = any (:accounts) and i.launched_at >= :since
""")


def decision_rows(
    connection: sa.Connection, versions: Sequence[str], *, horizon_h: int, since: datetime
) -> pd.DataFrame:
    """What versions decided from `since` on, as decision_value.py takes it: its `COLUMNS`."""
    rows = decided(connection, versions, horizon_h=horizon_h, since=since)
    prices = _read(connection, PRICES, name=ON_DEMAND, since=since).astype({ON_DEMAND: "float64"})
    rows = rows.merge(prices, on=["account_id", "window_start", "from_pool"], how="left", validate="many_to_one")
    left = _read(connection, LEFT, longest=timedelta(hours=max(HORIZONS_H)), since=since)
    launched = _read(connection, LAUNCHED, accounts=sorted(set(left["account_id"])), since=since - NEAR)
    return with_followed(rows, left.assign(replacement_h=replacement_hours(left, launched)))


def replacement_hours(left: pd.DataFrame, launched: pd.DataFrame) -> np.ndarray:
    """For how long what replaced each instance is known to have run; pure.

    Args:
        left: instances that were left for another place: account_id, region, place, ended_at, instance_id.
        launched: account_id, region, place, launched_at, instance_id, ran_until.

    Returns:
        (n,) hours, NaN where no replacement is found or nobody saw it run.
    """
    near_h, found = NEAR / timedelta(hours=1), np.full(len(left), np.nan)
    free: defaultdict[tuple[str, ...], deque[tuple[float, float]]] = defaultdict(deque)
    order = np.lexsort((launched["instance_id"], _hours(launched["launched_at"])))
    for where, start, until in zip(*_columns(launched.iloc[order], "launched_at", "ran_until"), strict=True):
        free[where].append((start, until))
    order = np.lexsort((left["instance_id"], _hours(left["ended_at"])))
    # One by one, since whom a launch replaces depends on who took the launches before; switches are few.
    for row, where, ended in zip(order, *_columns(left.iloc[order], "ended_at"), strict=True):
        waiting = free[where]
        while waiting and waiting[0][0] < ended - near_h:
            waiting.popleft()
        if waiting and waiting[0][0] <= ended + near_h:
            start, until = waiting.popleft()
            found[row] = until - start
    return np.maximum(found, 0.0)


def with_followed(rows: pd.DataFrame, left: pd.DataFrame) -> pd.DataFrame:
    """`rows` with whether each wish was carried out (`followed`), and if so for how long: `replacement_h`; pure.

    Args:
        left: account_id, window_start, instance_id, what was decided then (`acted`, `acted_pool`), `replacement_h`.
    """
    found = rows.merge(left[[*KEY, "acted", "acted_pool", "replacement_h"]], on=KEY, how="left", validate="many_to_one")
    wish, acted = (
        found[decision].astype(object).where(found[decision] != "SWITCH", found[pool].astype(object))
        for decision, pool in (("decision", "to_pool"), ("acted", "acted_pool"))
    )
    followed = (wish == acted).to_numpy(dtype=bool)
    hours = found["replacement_h"].where(followed)
    return found.drop(columns=["acted", "acted_pool"]).assign(followed=followed, replacement_h=hours)


def _columns(frame: pd.DataFrame, *times: str) -> list[list[Any]]:
    where = list(zip(frame["account_id"], frame["region"], frame["place"], strict=True))
    return [where, *(_hours(frame[name]).tolist() for name in times)]


def _hours(times: pd.Series) -> np.ndarray:
    """(n,) hours since the epoch; NaN where there is no time."""
    return ((times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)).to_numpy(dtype=float)


def _read(connection: sa.Connection, query: sa.TextClause, **values: object) -> pd.DataFrame:
    result = connection.execute(query, values)
    found = pd.DataFrame(result.fetchall(), columns=list(result.keys()))
    times = [name for name in TIMES if name in found]
    return found.assign(**{name: pd.to_datetime(found[name], utc=True).astype("datetime64[us, UTC]") for name in times})
