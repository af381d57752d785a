"""A domain database with one row of everything, for the tests that need rows to be there."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from spotlab_pipelines.database.partitions import ensure_partitions

WINDOW = datetime(2026, 3, 14, 15, tzinfo=UTC)
ACCOUNT_ID = "111122223333"

STATEMENTS = """
insert into users (email) values ('ana@example.org');
insert into accounts (account_id, name, owner_id, role_arn, external_id, regions, evaluation_interval_s,
    interruption_cost_usd)
    select '111122223333', 'one', id, 'arn:aws:iam::111122223333:role/spotlab', 'external-id-of-22-chars',
    '{us-east-1}', 1800, 1 from users;
insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,
    mlflow_run_id, registered_by, status, role)
    values ('logistic/1', 'logistic', 1, 'v1', '{1,6,12}', 'file:m', repeat('a', 64), 'r', 'cli', 'approved',
    'champion');
insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, launched_at)
    values ('111122223333', 'i-1', 'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX', 'spot', 'running', now());
insert into scrapes (id, source, fetched_at, row_count) values (gen_random_uuid(), 'advisor', now(), 3);
insert into evaluations (account_id, window_start, step) values ('111122223333', '2026-03-14T15:00Z', 1);
insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, acting,
    shadow, pipeline_mode, p_current, decision, reason, region, from_pool, candidates_considered, snapshot_id,
    scored_at, timings_ms)
    values ('2026-03-14T15:00Z', '111122223333', 'i-1', 'logistic/1', 6, 'champion', true, false, 'LINEAR', 0.1,
    'STAY', 'cheap enough', 'us-east-1', 'm5.large:use1-az1:Linux/UNIX', 3, repeat('b', 64), now(), '{}');
insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source, status_code,
    occurred_at)
    values ('111122223333', 'i-1', 'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX', 'spot_request',
    'instance-terminated-no-capacity', now());
insert into interruption_outcomes (account_id, window_start, instance_id, region, instance_type, az_id, product,
    interrupted_at, watched_until, source, settled)
    select account_id, '2026-03-14T15:00Z', instance_id, region, instance_type, az_id, product, occurred_at,
    occurred_at, source, true from interruption_events;
insert into evaluation_requests (account_id, window_start, requested_by, source)
    select '111122223333', '2026-03-14T15:00Z', id, 'api' from users;
insert into audit_log (actor, action, account_id, outcome) values ('cli:ana', 'add_account', '111122223333', 'done');
insert into logins (user_id, token_sha256, expires_at)
    select id, repeat('c', 64), now() + interval '1 hour' from users;
insert into tracking_runs (account_id, model_version, mlflow_run_id) values ('111122223333', 'logistic/1', 'r1');
insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,
    mlflow_run_id, registered_by)
    values ('hazard/1', 'hazard', 1, 'v1', '{1,6,12}', 'file:h', repeat('d', 64), 'r', 'cli');
insert into verdicts (champion, challenger, day, look, information, predictions, events, blocks, verdict, why)
    values ('logistic/1', 'hazard/1', '2026-03-13', 1, 250.0, 2000, 60, 24, 'hold', 'No difference is shown.');
"""


def fill(engine: sa.Engine) -> None:
    """Insert one row into every table; the log's lies in the partition of WINDOW."""
    ensure_partitions(engine, WINDOW)
    with engine.begin() as connection:
        for statement in STATEMENTS.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
