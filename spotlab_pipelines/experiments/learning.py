"""Learning what became of an account's instances: look at its fleet, read how instances ended, resolve what is open.

What is known is put on record source by source; what follows from it is outcomes.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from spotlab_pipelines.accounts.access import is_skipped
from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.interruptions import SOURCES, EndingSource, record_endings
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import lock_account
from spotlab_pipelines.database.tables import Account, Evaluation
from spotlab_pipelines.experiments.outcomes import INTERRUPTION_EVENTS, PATIENCE, OutcomesReport, resolve_outcomes
from spotlab_pipelines.market.scrapes import recorded
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.sessions import AccountSessions

LAST_ACTED = """
        from evaluations e
        join experiment_logs l
            on l.account_id = e.account_id and l.window_start = e.window_start and l.instance_id = i.instance_id
        where e.account_id = i.account_id and e.state = 'logged'
          and e.window_start <= i.ended_at and e.window_start > i.ended_at - :longest
          and l.acting and not l.shadow
        order by e.window_start desc limit 1
"""
"""The decision `l` that acted last on an instance `i`, in no shadow, within `longest` before it ended."""
TELL_SWITCHES = sa.text(f"""
    update instances i set ended_by = 'switch', updated_at = now()
    where i.account_id = :account_id and i.ended_by = 'owner' and i.ended_at > :since
      and (select l.decision {LAST_ACTED}) in ('SWITCH', 'FALLBACK_ON_DEMAND')
""").bindparams(sa.bindparam("longest", type_=sa.Interval))  # noqa: S608 -- a fragment of this package alone


@dataclass(frozen=True)
class LearningReport(OutcomesReport):
    """What was resolved, and how many interruptions each source was the first to tell of."""

    interruptions_new: dict[str, int]


def learn_outcomes(
    sessions: AccountSessions, engine: sa.Engine, account_id: str, *, sources: Sequence[EndingSource] = SOURCES
) -> LearningReport:
    """Read an account's fleet and all sources, then resolve its outcomes.

    All sources are read before anything of them is written: a reading that misses one would be taken for a whole one.

    Raises:
        NotFound: there is no such account.
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: a region could not be read.
        StoreUnavailable: Postgres does not answer.
    """
    account = get_account(engine, account_id)
    with recorded(engine, INTERRUPTION_EVENTS, account_id=account_id) as scrape:
        sync_fleet(sessions, engine, account_id)
        read = [(source.name, source.read(sessions, account)) for source in sources]
        new = {
            name: record_endings(engine, account_id, name, endings, read_at=scrape.fetched_at) for name, endings in read
        }
        scrape.row_count = sum(len(endings) for _, endings in read)
    tell_switches(engine, account_id, scrape.fetched_at)
    report = resolve_outcomes(engine, account_id, datetime.now(UTC))
    return LearningReport(**vars(report), interruptions_new=new)


def tell_switches(engine: sa.Engine, account_id: str, now: datetime) -> int:
    """Say of instances that their owner ended whether the last decision on them was to move away; how many it was.

    SpotLab ends no instance: whoever carries its decisions out does, with the owner's rights, and EC2 tells of the
    owner. A decision counts that acted, in no shadow, within the longest horizon before the end.
    """
    values = {"account_id": account_id, "since": now - PATIENCE, "longest": timedelta(hours=max(HORIZONS_H))}
    with database_errors(), engine.begin() as connection:
        lock_account(connection, account_id)
        return connection.execute(TELL_SWITCHES, values).rowcount


def accounts_to_learn_of(engine: sa.Engine, now: datetime, *, retry_s: float) -> list[str]:
    """The active accounts with windows whose outcomes are not settled, by id.

    Args:
        retry_s: how long an account whose access is lax or broken is left alone; setting access_retry_s.
    """
    unsettled = (
        sa.select(Evaluation.account_id)
        .where(
            Evaluation.account_id == Account.account_id,
            Evaluation.state == "logged",
            sa.not_(Evaluation.outcomes_settled),
        )
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(Account.account_id)
        .where(Account.state == "active", ~is_skipped(now, retry_s), unsettled.is_not(None))
        .order_by(Account.account_id)
    )
    with database_errors(), engine.connect() as connection:
        return list(connection.scalars(query))
