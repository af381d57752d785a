"""A laboratory with a large log: a hundred accounts with many evaluations, among thousands of accounts and users."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.accounts.logins import open_login
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, SNAPSHOT, WINDOW, register

INSTANCES, LOGGED_ACCOUNTS, IDLE_ACCOUNTS = 4, 100, 1900
ROWS_PER_WINDOW = LOGGED_ACCOUNTS * INSTANCES * 2 * 3
IDLE_OWNER = "idle1@example.com"

PEOPLE = f"""
insert into users (email) select 'idle' || g || '@example.com' from generate_series(1, 5000) g;
insert into accounts (account_id, name, owner_id, role_arn, external_id, regions, evaluation_interval_s,
    interruption_cost_usd, access_state, access_reason)
    select to_char(g, 'FM000000000000'), 'account ' || g, u.id,
    'arn:aws:iam::' || to_char(g, 'FM000000000000') || ':role/x', 'external-id-of-many-accounts-' || g,
    '{{us-east-1}}', 1800, 1, case when mod(g, 200) = 0 then 'lax' else 'ok' end,
    case when mod(g, 200) = 0 then 'it opens' end
    from generate_series(1, {LOGGED_ACCOUNTS - 1 + IDLE_ACCOUNTS}) g
    join users u on u.email = case when g < {LOGGED_ACCOUNTS} then 'owner@example.com'
    else 'idle' || mod(g, 700) || '@example.com' end;
insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,
    mlflow_run_id, status, registered_by)
    select 'old/' || g, 'old', g, 'v1', '{{1,6,12}}', 'x', repeat('a', 64), 'r', 'retired', 'tests'
    from generate_series(1, 600) g;
insert into tracking_runs (account_id, model_version, mlflow_run_id)
    select account_id, version, account_id || version from (select account_id from accounts order by account_id
    desc limit {LOGGED_ACCOUNTS}) a, (select version from model_registry order by version limit 50) v
"""
EVENTS = f"""
insert into evaluations (account_id, window_start, step, state, snapshot_id, counts, outcomes_settled)
    select account_id, timestamptz '{WINDOW}' - s * interval '30 min', {{windows}} - s, 'logged', '{SNAPSHOT}',
    '{{{{"pools": 1, "excluded": {{{{}}}}}}}}', s > 24 from accounts, generate_series(0, {{windows}} - 1) s
    where account_id = '{ACCOUNT}' or account_id < to_char({LOGGED_ACCOUNTS}, 'FM000000000000');
insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, launched_at)
    select distinct account_id, 'i-' || n, 'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX', 'spot',
    case when s = 0 then 'running' else 'terminated' end, now()
    from evaluations, generate_series(1, {INSTANCES}) i, generate_series(0, 50) s, lateral (select i + 10 * s as n) x
    where step = 1;
insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, acting,
    shadow, pipeline_mode, p_current, decision, reason, region, from_pool, candidates_considered, snapshot_id,
    scored_at, timings_ms)
    select window_start, account_id, 'i-' || i, v.version, h, v.role, true, false, 'LINEAR', 0.1, 'STAY', 'stays',
    'us-east-1', 'm5.large:use1-az1:Linux/UNIX', 3, '{SNAPSHOT}', now(), '{{{{"features": 1.5}}}}'
    from evaluations, generate_series(1, {INSTANCES}) i, model_registry v, unnest(array[1, 6, 12]) h
    where v.role <> 'none';
insert into scrapes (id, source, account_id, fetched_at, row_count)
    select gen_random_uuid(), 'spot_prices', account_id, now() - s * interval '30 min', 1
    from accounts, generate_series(1, 20) s
    union all
    select gen_random_uuid(), source, null, now() - s * interval '30 min', 1
    from generate_series(1, 500) s, unnest(array['spot_advisor', 'instance_catalogue']) as source;
insert into audit_log (at, actor, action, account_id, outcome)
    select now() - g * interval '1 min', 'run:' || mod(g, 700), case when mod(g, 100) = 0 then 'approve_model' else
    'assume_role' end, account_id, 'done'
    from (select account_id, row_number() over () as n from evaluations where step = 1) a,
    generate_series(1, 200) s, lateral (select s * {LOGGED_ACCOUNTS} + n as g) x
"""


@dataclass(frozen=True)
class Laboratory:
    """A filled laboratory, as each role sees it."""

    settings: Settings
    pipeline: sa.Engine
    owner: sa.Engine
    api: sa.Engine
    user_id: UUID
    login: SecretStr
    idle_login: SecretStr
    row_id: UUID


def fill(settings: Settings, *, rows: int) -> Laboratory:
    """A hundred accounts with as many logged windows as make `rows` log rows, among 2,000 accounts and 5,000 users."""
    owner, pipeline, api = (connect(settings, role=role) for role in ("owner", "pipeline", "api"))
    register(owner)
    windows = -(-rows // ROWS_PER_WINDOW)
    with owner.begin() as connection:
        # The rows are right by construction; looking up each foreign key would take as long as writing.
        connection.exec_driver_sql("set local session_replication_role = replica")
        for month in ("2026-10-01", "2026-11-01"):
            connection.exec_driver_sql(f"select make_log_partition('{month}')")
        for statement in (PEOPLE + ";\n" + EVENTS.format(windows=windows)).split(";\n"):
            connection.exec_driver_sql(statement)
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Index-only scans need to know which pages everybody sees.
        connection.exec_driver_sql("vacuum analyze")
        assert connection.scalar(sa.text("select count(*) from experiment_logs")) >= rows
        row_id = connection.scalar(sa.text("select id from experiment_logs limit 1"))
        ids = dict(connection.execute(sa.text("select email, id from users")).tuples().all())
    user_id = ids["owner@example.com"]
    login, idle_login = (open_login(owner, each) for each in (user_id, ids[IDLE_OWNER]))
    return Laboratory(settings, pipeline, owner, api, user_id, login, idle_login, row_id)
