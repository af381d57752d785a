"""What became of each logged Spot instance after each window: one statement resolves all that is not settled yet.

A label belongs to an instance and a window; `v_labelled_predictions` spells it out for each version and horizon. It is
about the pool that the instance ran in, and says no more than is known:

- interrupted: an event on record ended the very run that the window saw, whichever source told of it;
- watched until: the instance was seen running, and the events were read, up to then. Nothing is concluded from silence:
  an account whose sources cannot be read leaves its windows open;
- ended by its owner (or by a switch of ours) is censored from then on, and so is an instance that was stopped and
  started again: the later run is another one;
- one that was launched after the window began, and seen because the evaluation came late, is censored from the start;
- an end that nobody explains stays open for PATIENCE after the longest horizon, then it is censored for good.

A settled row never changes. Reading what happened is learning.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import lock_account
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.settings import HORIZONS_H

INTERRUPTION_EVENTS = "interruption_events"
EVENT_READINGS = ("pool_observations", INTERRUPTION_EVENTS)
"""The sources in `scrapes` whose success says that an account's interruptions up to then are on record."""
PATIENCE = timedelta(days=7)
"""AWS tells of a closed Spot request for some days; after that nothing more is learnt of an end."""
MAX_LISTED = 10_000
FOR_HASHING = ("work_mem = '64MB'", "enable_mergejoin = off")
"""In this transaction alone. Postgres cannot know that an instance is in one stretch at a time, expects a hundred times
the rows that come, and would sort all sides for them."""

RESOLVE = sa.text("""
    with reading as (
        select max(fetched_at) as at from scrapes
        where account_id = :account_id and source = any (:readings) and error is null
    ), unsettled as (
        select window_start, greatest(window_start, coalesce(finished_at, started_at)) as seen_at from evaluations
        where account_id = :account_id and state = 'logged' and not outcomes_settled
    ), logged as materialized (
        -- Window by window: the index gives each one's rows by instance, so that they need no hash table.
        select u.window_start, u.seen_at, l.instance_id
        from unsettled u cross join lateral (
            select distinct instance_id from experiment_logs
            where account_id = :account_id and window_start = u.window_start) l
    ), ordered as (
        select instance_id, occurred_at, source, lag(occurred_at, 1, '-infinity') over by_time as since,
               lead(occurred_at) over by_time is null as is_last
        from interruption_events
        where account_id = :account_id and instance_id in (select instance_id from logged)
        window by_time as (partition by instance_id order by occurred_at)
    ), stretches as materialized (
        -- What lies between an instance's interruptions, and after the last one.
        select instance_id, since, occurred_at as until, source from ordered
        union all
        select instance_id, occurred_at, 'infinity', source from ordered where is_last
    ), known as (
        select l.window_start, l.instance_id, i.region, i.instance_type, i.az_id, i.product, i.ended_by,
               i.ended_source, i.ended_at, s.since, s.until, s.source, o.settled as was_settled,
               o.watched_until as was_watched,
               -- least() passes over what is missing, and what is missing here is that nobody looked.
               case when i.last_running_at <= reading.at then i.last_running_at
                    when i.last_running_at > reading.at then reading.at end as running_at,
               i.launched_at > l.seen_at as started_again, i.launched_at,
               -- Of a window that was looked at late, a run that began in between is not the one it is about.
               i.launched_at > least(l.seen_at, l.window_start + late_after()) as another_run
        from logged l
        cross join reading
        join instances i on i.account_id = :account_id and i.instance_id = l.instance_id and i.lifecycle = 'spot'
        left join stretches s
            on s.instance_id = l.instance_id and l.window_start >= s.since and l.window_start < s.until
        left join interruption_outcomes o
            on o.account_id = :account_id and o.window_start = l.window_start and o.instance_id = l.instance_id
    ), judged as (
        select *, case
            when until < 'infinity' and not (another_run and launched_at <= until) then 'interrupted'
            when until = 'infinity' and since >= launched_at then 'gone before'
            when started_again then 'started again'
            when another_run then 'not there yet'
            when ended_by is not null then 'ended'
            else 'watched' end as verdict
        from known
    ), labelled as materialized (
        select window_start, instance_id, region, instance_type, az_id, product, was_settled,
            case when verdict = 'interrupted' then until end as interrupted_at,
            case verdict
                when 'interrupted' then until
                when 'gone before' then window_start
                when 'not there yet' then window_start
                when 'started again' then greatest(was_watched, window_start)
                when 'ended' then ended_at
                else greatest(was_watched, window_start, running_at) end as watched_until,
            case verdict when 'ended' then ended_by when 'started again' then 'owner' end as ended_by,
            case verdict when 'interrupted' then source when 'gone before' then source when 'ended' then ended_source
                else 'fleet' end as source,
            verdict <> 'watched' or coalesce(greatest(was_watched, running_at) > window_start + :longest, false)
                or window_start + :longest + :patience < :now as settled
        from judged
    ), added as (
        -- Not "on conflict", which writes each row in two steps: the account's lock keeps others out.
        insert into interruption_outcomes (account_id, window_start, instance_id, region, instance_type, az_id,
            product, interrupted_at, watched_until, ended_by, source, settled, resolved_at)
        select :account_id, window_start, instance_id, region, instance_type, az_id, product, interrupted_at,
               watched_until, ended_by, source, settled, :now
        from labelled where was_settled is null
        returning 1
    ), changed as (
        update interruption_outcomes o set
            interrupted_at = l.interrupted_at, watched_until = l.watched_until, ended_by = l.ended_by,
            source = l.source, settled = l.settled, resolved_at = :now
        from labelled l
        where o.account_id = :account_id and o.window_start = l.window_start and o.instance_id = l.instance_id
          and not l.was_settled and not o.settled
          and (o.interrupted_at, o.watched_until, o.ended_by, o.source, o.settled)
              is distinct from (l.interrupted_at, l.watched_until, l.ended_by, l.source, l.settled)
        returning 1
    ), closed as (
        update evaluations e set outcomes_settled = true
        from unsettled u left join (
            select window_start, bool_and(settled or was_settled is true) as all_settled from labelled group by 1
        ) w using (window_start)
        where e.account_id = :account_id and e.window_start = u.window_start and w.all_settled is not false
        returning 1
    )
    select (select at from reading) as events_read_until, (select count(*) from unsettled) as windows,
           (select count(*) from closed) as windows_settled,
           (select count(*) from added) + (select count(*) from changed) as rows_written,
           count(*) as labels, count(interrupted_at) as interrupted, count(*) filter (where survived) as survived,
           count(*) filter (where settled and interrupted_at is null and not survived) as censored,
           count(*) filter (where not settled) as still_open, count(*) filter (where ended_by is not null) as ended,
           coalesce((select jsonb_object_agg(source, n) from (
               select source, count(*) as n from labelled group by source) by_source), '{}') as sources
    from (
        select *, interrupted_at is null and coalesce(watched_until > window_start + :longest, false) as survived
        from labelled) as told
""").bindparams(sa.bindparam("longest", type_=sa.Interval), sa.bindparam("patience", type_=sa.Interval))


@dataclass(frozen=True)
class OutcomesReport:
    """What `resolve_outcomes` found in the windows that were not settled, an instance and window counting as one.

    Attributes:
        rows_written: rows that are new or have changed.
        windows, windows_settled: evaluations that were looked at, and those that need not be any more.
        labels: all of them; each is interrupted, survived, censored or still open.
        survived: ran through the longest horizon.
        censored: nobody will know any more, at the longest horizon at least.
        still_open: may yet become one of the others.
        ended: of all, those stopped by their owner or by a switch.
        events_read_until: when the account's interruptions were last read; None if never.
        sources: how many labels each source gave.
    """

    account_id: str
    rows_written: int
    windows: int
    windows_settled: int
    labels: int
    interrupted: int
    survived: int
    censored: int
    still_open: int
    ended: int
    events_read_until: datetime | None
    sources: dict[str, int]


def resolve_outcomes(engine: sa.Engine, account_id: str, now: datetime) -> OutcomesReport:
    """Resolve what is not settled of an account; doing it again changes nothing that is not known better.

    Raises:
        InvalidInput: `now` has no time zone.
        StoreUnavailable: Postgres does not answer.
    """
    if now.utcoffset() is None:
        raise InvalidInput(f"The current time must carry a time zone; got {now!r}.")
    with database_errors(), engine.begin() as connection:
        lock_account(connection, account_id)
        for setting in FOR_HASHING:
            connection.exec_driver_sql(f"set local {setting}")
        found = connection.execute(RESOLVE, values_of(account_id, now)).mappings().one()
    return OutcomesReport(account_id=account_id, **found)


def values_of(account_id: str, now: datetime) -> dict[str, Any]:
    """The values of RESOLVE."""
    return {
        "account_id": account_id,
        "readings": list(EVENT_READINGS),
        "longest": timedelta(hours=max(HORIZONS_H)),
        "patience": PATIENCE,
        "now": now,
    }


def list_outcomes(engine: sa.Engine, account_id: str, limit: int = 50) -> pd.DataFrame:
    """An account's outcomes, latest window first.

    Returns:
        Columns of `interruption_outcomes`, at most `limit` rows.

    Raises:
        InvalidInput: `limit` is not in 1 … 10,000.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"The limit must be between 1 and {MAX_LISTED}; got {limit}.")
    query = sa.text("""
        select window_start, instance_id, region, instance_type, az_id, product, interrupted_at, watched_until,
               ended_by, source, settled, resolved_at
        from interruption_outcomes where account_id = :account_id
        order by window_start desc, instance_id limit :limit
    """)
    with database_errors(), engine.connect() as connection:
        result = connection.execute(query, {"account_id": account_id, "limit": limit})
        return pd.DataFrame(result.fetchall(), columns=list(result.keys()))
