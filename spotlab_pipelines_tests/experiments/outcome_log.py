"""A log of a million predictions whose instances were interrupted, ended or ran on: for the plan and the bench.

One account, 334 windows of 30 minutes with 200 instances each, five versions and three horizons; 100,000 interruptions,
a third of them of instances that were logged. Half of a window's instances are gone in the next one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, SNAPSHOT

WINDOWS, INSTANCES, VERSIONS, HORIZONS, EVENTS = 334, 200, 5, 3, 100_000
PREDICTIONS = WINDOWS * INSTANCES * VERSIONS * HORIZONS
FIRST = (datetime.now(UTC) - timedelta(days=14)).replace(minute=0, second=0, microsecond=0)
LAST_LOOK = FIRST + timedelta(days=14)
POOL = "'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX'"

STATEMENTS = f"""
insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,
    mlflow_run_id, status, registered_by)
    select 'old/' || g, 'old', g, 'v1', '{{{{1,6,12}}}}', 'x', repeat('a', 64), 'r', 'retired', 'tests'
    from generate_series(1, {{versions}}) g;
insert into evaluations (account_id, window_start, step, state, snapshot_id, started_at, finished_at)
    select '{ACCOUNT}', w, row_number() over (order by w), 'logged', '{SNAPSHOT}', w, w + interval '1 min'
    from (select timestamptz '{FIRST}' + g * interval '30 min' as w from generate_series(0, {{windows}} - 1) g) t;
insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, launched_at,
    last_running_at)
    select '{ACCOUNT}', 'i-' || lpad(to_hex(g), 17, '0'), {POOL}, 'spot', 'running', timestamptz '{FIRST}' -
    interval '2 days', timestamptz '{LAST_LOOK}' from generate_series(1, {{events}} + {{instances}}) g;
insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source, status_code,
    occurred_at)
    select '{ACCOUNT}', 'i-' || lpad(to_hex(g), 17, '0'), {POOL}, 'spot_request', 'instance-terminated-no-capacity',
    timestamptz '{FIRST}' + (2 * g / {{instances}} + mod(g * 7919, 100)) * interval '30 min' + interval '7 min'
    from generate_series(1, {{events}}) g;
insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, acting,
    shadow, pipeline_mode, features, p_current, decision, reason, region, from_pool, candidates_considered, snapshot_id,
    scored_at, timings_ms)
    select window_start, account_id, 'i-' || lpad(to_hex(i), 17, '0'), 'old/' || v, h, 'none', v = 1, true, 'LINEAR',
    '{{{{"discount_depth": 0.5, "hour_of_week_sin": 0.25}}}}', 0.1, 'STAY', 'stays where it is', 'us-east-1',
    'm5.large:use1-az1:Linux/UNIX', 3, '{SNAPSHOT}', window_start, '{{{{"features": 1.5}}}}'
    from evaluations cross join lateral (select (step - 1) * {{instances}} / 2 + g as i
        from generate_series(1, {{instances}}) g) fleet
    cross join generate_series(1, {{versions}}) v cross join unnest(array[1, 6, 12]) h;
insert into scrapes (id, source, account_id, fetched_at, row_count)
    values (gen_random_uuid(), 'interruption_events', '{ACCOUNT}', timestamptz '{LAST_LOOK}', 0)
"""


def fill(owner: sa.Engine, *, windows: int = WINDOWS, instances: int = INSTANCES, events: int = EVENTS) -> None:
    """Fill a registered account's log; each instance that is logged is interrupted at some time."""
    for day in range(0, 15, 7):
        ensure_partitions(owner, FIRST + timedelta(days=day))
    with owner.begin() as connection:
        # The rows are right by construction; looking up each foreign key would take as long as writing.
        connection.exec_driver_sql("set local session_replication_role = replica")
        for statement in STATEMENTS.format(
            windows=windows, instances=instances, events=events, versions=VERSIONS
        ).split(";\n"):
            connection.exec_driver_sql(statement)
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze")


def reset(owner: sa.Engine) -> None:
    """As if nothing had been resolved."""
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("truncate interruption_outcomes")
        connection.exec_driver_sql("update evaluations set outcomes_settled = false where outcomes_settled")
        connection.exec_driver_sql("vacuum analyze evaluations")
