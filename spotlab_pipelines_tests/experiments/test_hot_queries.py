"""The queries that people and sensors wait for find their rows by an index, over a log of 100,000 rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from spotlab_pipelines.accounts.logins import open_login
from spotlab_pipelines.database.engine import acting_for, connect
from spotlab_pipelines.database.evaluations import EvaluationKey, failed_accounts, logged_accounts
from spotlab_pipelines.experiments.metrics import evaluation_metrics
from spotlab_pipelines.experiments.queries import latest_decisions, list_experiments
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, SNAPSHOT, WINDOW, register

LARGE = ("experiment_logs", "evaluations", "audit_log", "instances")
WINDOWS, INSTANCES, OTHERS = 50, 4, 99
KEY = EvaluationKey(ACCOUNT, WINDOW)
FILL = f"""
insert into evaluations (account_id, window_start, step, state, snapshot_id, counts)
    select account_id, timestamptz '{WINDOW}' - s * interval '12 min', {WINDOWS} - s, 'logged', '{SNAPSHOT}',
    '{{"pools": 1, "excluded": {{}}}}' from accounts, generate_series(0, {WINDOWS - 1}) s;
insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, launched_at)
    select account_id, 'i-' || n, 'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX', 'spot',
    case when s = 0 then 'running' else 'terminated' end, now()
    from accounts, generate_series(1, {INSTANCES}) i, generate_series(0, 20) s, lateral (select i + 10 * s as n) x;
insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, acting,
    shadow, pipeline_mode, p_current, decision, reason, region, from_pool, candidates_considered, snapshot_id,
    scored_at, timings_ms)
    select window_start, account_id, 'i-' || i, v.version, h, v.role, true, false, 'LINEAR', 0.1, 'STAY', 'stays',
    'us-east-1', 'm5.large:use1-az1:Linux/UNIX', 3, '{SNAPSHOT}', now(), '{{"features": 1.5}}'
    from evaluations, generate_series(1, {INSTANCES}) i, model_registry v, unnest(array[1, 6, 12]) h;
insert into audit_log (actor, action, account_id, outcome)
    select 'run:1', 'assume_role', account_id, 'done' from accounts, generate_series(1, 100);
analyze
"""


@pytest.fixture
def large(owner: sa.Engine, engine: sa.Engine) -> sa.Engine:
    """A hundred accounts with fifty logged windows each."""
    register(owner)
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "insert into accounts (account_id, name, owner_id, role_arn, external_id, regions, evaluation_interval_s,"
            " interruption_cost_usd) select to_char(g, 'FM000000000000'), 'many', (select id from users),"
            " 'arn:aws:iam::' || to_char(g, 'FM000000000000') || ':role/x',"
            f" 'external-id-of-many-' || g, '{{us-east-1}}', 1800, 1 from generate_series(101, {100 + OTHERS}) g"
        )
        connection.exec_driver_sql("select make_log_partition('2026-11-01'), make_log_partition('2026-10-01')")
        for statement in FILL.split(";\n"):
            connection.exec_driver_sql(statement)
        assert connection.scalar(sa.text("select count(*) from experiment_logs")) >= 100_000
    return engine


def plans(engine: sa.Engine, work: Callable[[], object]) -> list[str]:
    """The plans, as the same role, of every statement that `work` sends."""
    sent: list[tuple[str, Any]] = []

    def keep(*arguments: Any) -> None:
        sent.append((arguments[2], arguments[3]))

    event.listen(engine, "before_cursor_execute", keep)
    work()
    event.remove(engine, "before_cursor_execute", keep)
    queries = [(statement, values) for statement, values in sent if statement.lstrip().lower().startswith("select")]
    assert queries
    with engine.connect() as connection:
        return [
            "\n".join(connection.exec_driver_sql(f"explain {statement}", values).scalars())
            for statement, values in queries
        ]


def assert_indexed(found: list[str]) -> None:
    """No large table is read through; a partition without a row costs nothing and needs no index."""
    for plan in found:
        read = [line for line in plan.splitlines() if "Seq Scan on" in line and "cost=0.00..0.00" not in line]
        assert not any(table in line for table in LARGE for line in read), plan


def test_the_pipelines_queries_read_by_an_index(large: sa.Engine) -> None:
    def metrics() -> None:
        with large.connect() as connection:
            evaluation_metrics(connection, KEY)

    for work in (
        lambda: latest_decisions(large, ACCOUNT),
        lambda: latest_decisions(large, ACCOUNT, WINDOW),
        lambda: list_experiments(large),
        lambda: list_experiments(large, ACCOUNT),
        lambda: failed_accounts(large, WINDOW, [ACCOUNT]),
        lambda: logged_accounts(large, WINDOW, [ACCOUNT]),
        metrics,
    ):
        assert_indexed(plans(large, work))


@pytest.mark.parametrize(
    "query",
    [
        "select * from v_active_instances where account_id = '{account}'",
        "select * from v_recent_experiments where account_id = '{account}' and window_start = '{window}'",
        "select * from experiment_logs where account_id = '{account}' and window_start >= '{window}'",
        "select * from audit_log where account_id = '{account}' order by at desc limit 20",
        "select * from evaluations where account_id = '{account}' order by window_start desc limit 20",
    ],
)
def test_the_apis_queries_read_by_an_index_behind_row_level_security(
    large: sa.Engine, owner: sa.Engine, settings: Settings, query: str
) -> None:
    api = connect(settings, role="api")
    statement = query.format(account=ACCOUNT, window=WINDOW.isoformat())
    with owner.connect() as connection:
        user = connection.scalars(sa.text("select id from users")).one()
    with acting_for(api, open_login(owner, user)) as connection:
        plan = "\n".join(connection.exec_driver_sql(f"explain {statement}").scalars())
    assert_indexed([plan])
