"""A log with outcomes whose truth is known, written in bulk: two versions' predictions, and what became of each."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHALLENGER, CHAMPION, SNAPSHOT

START = date(2026, 10, 1)
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
REGIONS = ("us-east-1", "eu-west-1")
LOG = sa.text(
    f"""
    insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, acting,
        shadow, pipeline_mode, p_current, decision, reason, region, from_pool, from_price_usd_per_hour,
        to_price_usd_per_hour, to_pool, candidates_considered, snapshot_id, scored_at, timings_ms)
    select r.at, :account, r.instance, v.version, h, v.role, v.role = 'champion', v.role <> 'champion', 'LINEAR',
        case v.role when 'champion' then r.champion else r.challenger end, 'STAY', 'stays', r.region,
        'm5.large:use1-az1:Linux/UNIX', 0.05, null, null, 3, '{SNAPSHOT}', r.at, '{{}}'
    from unnest(cast(:at as timestamptz[]), cast(:instance as text[]), cast(:region as text[]),
        cast(:champion as float8[]), cast(:challenger as float8[])) r (at, instance, region, champion, challenger),
        (values ('{CHAMPION}', 'champion'), ('{CHALLENGER}', 'challenger')) v (version, role),
        unnest(array[1, 6, 12]) h
    """
)
OUTCOMES = sa.text(
    """
    with r as (
        select * from unnest(cast(:at as timestamptz[]), cast(:instance as text[]), cast(:region as text[]),
            cast(:interrupted as boolean[])) r (at, instance, region, interrupted)
    ), e as (
        insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source,
            status_code, occurred_at)
        select :account, instance, region, 'use1-az1', 'm5.large', 'Linux/UNIX', 'spot_request',
            'instance-terminated-no-capacity', at + interval '3 hours' from r where interrupted
    )
    insert into interruption_outcomes (account_id, window_start, instance_id, region, instance_type, az_id, product,
        interrupted_at, watched_until, source, settled)
    select :account, r.at, r.instance, r.region, 'm5.large', 'use1-az1', 'Linux/UNIX',
        case when interrupted then at + interval '3 hours' end,
        at + case when interrupted then interval '3 hours' else interval '13 hours' end,
        'spot_request', true
    from r
    """
)


def write_days(
    owner: sa.Engine, days: int, *, first: date = START, a_day: int = 60, seed: int = 1, better: bool = True,
    account_id: str = ACCOUNT, resolved: bool = True,
) -> int:  # fmt: skip
    """Predictions of both versions for windows at 00:00 of `days` days, an instance a row, and their outcomes.

    The challenger knows each row's risk (if `better`; else the champion does), the other one says the base rate.

    Returns:
        How many were interrupted.
    """
    generator = np.random.default_rng([seed, first.toordinal()])
    n = days * a_day
    risk = generator.choice([0.02, 0.3], size=n)
    interrupted = generator.random(n) < risk
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    at = [start + timedelta(days=int(number)) for number in np.repeat(np.arange(days), a_day)]
    base = np.full(n, 0.16)
    values = {
        "account": account_id, "at": at, "region": [REGIONS[row % 2] for row in range(n)],
        "instance": [f"i-{first.toordinal():06x}{row:011x}" for row in range(n)],
        "champion": (base if better else risk).tolist(), "challenger": (risk if better else base).tolist(),
    }  # fmt: skip
    for month in sorted({(each.year, each.month) for each in at}):
        ensure_partitions(owner, datetime(*month, 1, tzinfo=UTC))
    with owner.begin() as connection:
        connection.execute(LOG, values)
        if resolved:
            connection.execute(OUTCOMES, values | {"interrupted": interrupted.tolist()})
    return int(interrupted.sum())
