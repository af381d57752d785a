"""How old each source's newest scrape is, for every account and for what all share: read from our own table.

An account's evaluations fail one by one when its market is stale; this says it in one place, for all of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Account, Scrape
from spotlab_pipelines.market.frames import text
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS, SPOT_PRICES

if TYPE_CHECKING:
    from spotlab_pipelines.settings import Settings

OF_ACCOUNTS = (SPOT_PRICES, POOL_OBSERVATIONS)
"""The sources that are scraped account by account, and kept as long as prices are."""
FIELDS = ("source", "account_id", "since", "limit_s", "fetched_at", "error")


def newest_scrapes(engine: sa.Engine, settings: Settings, *, now: datetime) -> pd.DataFrame:
    """The newest good scrape of what all accounts share and of each active account's own sources, in one query.

    An account that is evaluated less often than its sources' time to live is scraped less often: its limit is its
    interval and half of that time.

    Returns:
        Frame by source and account: source, account_id ("" for what is shared), fetched_at (NaT if never), age_s (since
        it was registered for an account without a scrape, infinite for a shared source without one), limit_s, stale
        (age_s above limit_s), error (of the newest try, if that failed; else "").
    """
    ttl_s = settings.price_history_ttl_s
    shared = sa.values(sa.column("source", sa.Text), sa.column("limit_s", sa.Float), name="shared").data(
        [("spot_advisor", settings.spot_risk_ttl_s), ("instance_catalogue", settings.instance_metadata_ttl_s)]
    )
    nobody, never = sa.literal("").label("account_id"), sa.cast(sa.null(), sa.TIMESTAMP(timezone=True)).label("since")
    each = sa.values(sa.column("source", sa.Text), name="each").data([(source,) for source in OF_ACCOUNTS])
    accounts = (
        sa.select(
            each.c.source,
            Account.account_id,
            Account.created_at.label("since"),
            sa.func.greatest(ttl_s, Account.evaluation_interval_s + ttl_s / 2).label("limit_s"),
        )
        .join_from(Account, each, sa.true())
        .where(Account.state == "active")
        .subquery("accounts")
    )
    of_all = sa.select(shared.c.source, nobody, never, shared.c.limit_s).subquery("of_all")
    query = sa.union_all(
        _with_newest(of_all, Scrape.source == of_all.c.source),
        _with_newest(accounts, sa.and_(Scrape.source == accounts.c.source, Scrape.account_id == accounts.c.account_id)),
    )
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(query.order_by("source", "account_id")).all()
    columns: dict[str, Any] = dict(zip(FIELDS, zip(*rows, strict=True), strict=True))
    fetched, since = (pd.to_datetime(pd.Series(columns[name]), utc=True) for name in ("fetched_at", "since"))
    age_s = (pd.Timestamp(now) - fetched.fillna(since)).dt.total_seconds().fillna(np.inf)
    limit_s = np.array(columns["limit_s"], dtype=float)
    return pd.DataFrame(
        {
            "source": text(columns["source"]),
            "account_id": text(columns["account_id"]),
            "fetched_at": fetched.dt.as_unit("us"),
            "age_s": age_s,
            "limit_s": limit_s,
            "stale": age_s.to_numpy() > limit_s,
            "error": text([error or "" for error in columns["error"]]),
        }
    )


def _with_newest(wanted: sa.Subquery, of: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Each of `wanted` with its newest good scrape, and the error of a newer one."""
    latest = Scrape.fetched_at.desc()
    good = sa.select(Scrape.fetched_at).where(of, Scrape.error.is_(None)).order_by(latest).limit(1).lateral("good")
    after = sa.func.coalesce(good.c.fetched_at, sa.text("'-infinity'::timestamptz"))
    failed = (
        sa.select(Scrape.error)
        .where(of, Scrape.error.is_not(None), Scrape.fetched_at > after)
        .order_by(latest)
        .limit(1)
        .lateral("failed")
    )
    return sa.select(*(wanted.c[name] for name in FIELDS[:4]), good.c.fetched_at, failed.c.error).select_from(
        wanted.outerjoin(good, sa.true()).outerjoin(failed, sa.true())
    )
