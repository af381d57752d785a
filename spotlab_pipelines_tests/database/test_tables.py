"""What the tables themselves guarantee, whoever writes to them."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from spotlab_pipelines.database.tables import Base
from spotlab_pipelines_tests.database.filled import fill

WITH_UPDATED_AT = sorted(table.name for table in Base.metadata.tables.values() if "updated_at" in table.columns)

AMOUNTS = {
    "from_price_usd_per_hour": (-5, "'nan'"),
    "to_price_usd_per_hour": ("'nan'", "'infinity'"),
    "from_cost_usd_per_hour": (-1, "'nan'"),
    "to_cost_usd_per_hour": (-1, "'nan'"),
    "gain": ("'nan'", "'infinity'", "'-infinity'"),
}


def test_updated_at_follows_every_change_and_only_changes(owner: sa.Engine) -> None:
    fill(owner)
    assert WITH_UPDATED_AT == ["accounts", "evaluation_requests", "instances", "model_registry", "users"]
    changes = {
        "accounts": "name = 'two'", "instances": "shadow = true", "model_registry": "registered_by = 'x'",
        "users": "active = false", "evaluation_requests": "state = 'started'",
    }  # fmt: skip
    for table, change in changes.items():
        stamp = sa.text(f"select updated_at from {table}")
        with owner.connect() as connection:
            before = connection.scalar(stamp)
        time.sleep(0.002)
        with owner.begin() as connection:
            connection.execute(sa.text(f"update {table} set {change}"))
        with owner.begin() as connection:
            after = connection.scalar(stamp)
            assert after > before, table
        with owner.begin() as connection:
            connection.execute(sa.text(f"update {table} set {change}"))
            assert connection.scalar(stamp) == after, table


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("insert into users (email) values ('nobody')", "ck_users_email"),
        ("insert into users (email) values ('ana@example.org')", "uq_users_email"),
        ("update accounts set account_id = '12345'", "ck_accounts_account_id"),
        ("update accounts set external_id = 'short'", "ck_accounts_external_id"),
        ("delete from users", "fk_accounts_owner_id"),
        ("update users set password_hash = 'secret'", "ck_users_password_hash"),
        ("update accounts set access_state = 'fine'", "ck_accounts_access_state"),
        ("insert into audit_log (actor, action, outcome) values ('a', 'sleep', 'done')", "ck_audit_log_action"),
        ("update evaluation_requests set state = 'lost'", "ck_evaluation_requests_state"),
        ("update interruption_events set source = 'rumour'", "ck_interruption_events_source"),
        ("update interruption_outcomes set source = 'rumour'", "ck_interruption_outcomes_source"),
        ("update interruption_outcomes set ended_by = 'moths'", "ck_interruption_outcomes_ended_by"),
        ("update interruption_outcomes set settled = false", "ck_interruption_outcomes_settled"),
        ("update interruption_outcomes set source = 'fleet'", "ck_interruption_outcomes_told"),
        ("update interruption_outcomes set interrupted_at = window_start", "ck_interruption_outcomes_interrupted_at"),
        ("update instances set ended_by = 'owner'", "ck_instances_ended_told"),
        ("update instances set ended_by = 'moths'", "ck_instances_ended_by"),
        ("update interruption_events set number = 0", "ck_interruption_events_number"),
        ("update model_registry set version = 'logistic/2'", "ck_model_registry_version"),
        ("update model_registry set status = 'candidate'", "ck_model_registry_served_is_approved"),
        ("update evaluations set state = 'failed'", "ck_evaluations_error"),
        ("update evaluations set state = 'logged'", "ck_evaluations_snapshot_id"),
        ("update instances set assigned_version = 'none/1'", "fk_instances_assigned_version"),
        ("update experiment_logs set p_current = 'nan'", "ck_experiment_logs_p_current"),
        *(
            (f"update experiment_logs set {column} = {value}", f"ck_experiment_logs_{column}")
            for column, values in AMOUNTS.items()
            for value in values
        ),
        ("update accounts set interruption_cost_usd = 'nan'", "ck_accounts_interruption_cost_usd"),
        ("update accounts set interruption_cost_usd = 'infinity'", "ck_accounts_interruption_cost_usd"),
        ("update accounts set role_arn = 'arn:aws:iam::999922223333:role/x'", "ck_accounts_role_arn"),
        ("update instances set state = 'banana'", "ck_instances_state"),
        ("update evaluations set step = 0", "ck_evaluations_step"),
        ("update logins set token_sha256 = 'the token itself'", "ck_logins_token_sha256"),
        ("update logins set expires_at = created_at", "ck_logins_expires_at"),
        ("update experiment_logs set p_current = 1.2", "ck_experiment_logs_p_current"),
        ("update experiment_logs set horizon_h = 2", "ck_experiment_logs_horizon_h"),
        ("update experiment_logs set decision = 'WAIT'", "ck_experiment_logs_decision"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(owner: sa.Engine, statement: str, constraint: str) -> None:
    fill(owner)
    with pytest.raises(IntegrityError, match=constraint), owner.begin() as connection:
        connection.exec_driver_sql(statement)


def test_there_is_one_champion(owner: sa.Engine) -> None:
    fill(owner)
    second = (
        "insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,"
        " mlflow_run_id, registered_by, status, role) select 'logistic/2', family, 2, feature_spec, horizons_h,"
        " artifact_uri, artifact_sha256, mlflow_run_id, registered_by, status, {role} from model_registry"
        " where family = 'logistic'"
    )
    with pytest.raises(IntegrityError, match="uq_model_registry_champion"), owner.begin() as connection:
        connection.exec_driver_sql(second.format(role="role"))
    with owner.begin() as connection:
        connection.exec_driver_sql(second.format(role="'challenger'"))


def test_the_logs_grain_is_unique(owner: sa.Engine) -> None:
    fill(owner)
    columns = ", ".join(
        column.name for column in Base.metadata.tables["experiment_logs"].columns if column.name != "id"
    )
    again = f"insert into experiment_logs ({columns}) select {columns} from experiment_logs"
    with pytest.raises(IntegrityError), owner.begin() as connection:
        connection.exec_driver_sql(again)
    with owner.begin() as connection:
        assert connection.exec_driver_sql(f"{again} on conflict do nothing").rowcount == 0
