"""What the tables themselves guarantee, whoever writes to them."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from spotlab_pipelines.database.tables import Base
from spotlab_pipelines_tests.database.filled import fill

WITH_UPDATED_AT = sorted(table.name for table in Base.metadata.tables.values() if "updated_at" in table.columns)


def test_updated_at_follows_every_change_and_only_changes(engine: sa.Engine) -> None:
    fill(engine)
    assert WITH_UPDATED_AT == ["accounts", "instances", "model_registry", "users"]
    changes = {
        "accounts": "name = 'two'", "instances": "shadow = true", "model_registry": "registered_by = 'x'",
        "users": "active = false",
    }  # fmt: skip
    for table, change in changes.items():
        stamp = sa.text(f"select updated_at from {table}")
        with engine.connect() as connection:
            before = connection.scalar(stamp)
        time.sleep(0.002)
        with engine.begin() as connection:
            connection.execute(sa.text(f"update {table} set {change}"))
        with engine.begin() as connection:
            after = connection.scalar(stamp)
            assert after > before, table
        with engine.begin() as connection:
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
        ("update model_registry set version = 'logistic/2'", "ck_model_registry_version"),
        ("update model_registry set status = 'candidate'", "ck_model_registry_served_is_approved"),
        ("update evaluations set state = 'failed'", "ck_evaluations_error"),
        ("update evaluations set state = 'logged'", "ck_evaluations_snapshot_id"),
        ("update instances set assigned_version = 'none/1'", "fk_instances_assigned_version"),
        ("update experiment_logs set p_current = 1.2", "ck_experiment_logs_p_current"),
        ("update experiment_logs set horizon_h = 2", "ck_experiment_logs_horizon_h"),
        ("update experiment_logs set decision = 'WAIT'", "ck_experiment_logs_decision"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(engine: sa.Engine, statement: str, constraint: str) -> None:
    fill(engine)
    with pytest.raises(IntegrityError, match=constraint), engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_there_is_one_champion(engine: sa.Engine) -> None:
    fill(engine)
    second = (
        "insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,"
        " mlflow_run_id, registered_by, status, role) select 'logistic/2', family, 2, feature_spec, horizons_h,"
        " artifact_uri, artifact_sha256, mlflow_run_id, registered_by, status, {role} from model_registry"
    )
    with pytest.raises(IntegrityError, match="uq_model_registry_champion"), engine.begin() as connection:
        connection.exec_driver_sql(second.format(role="role"))
    with engine.begin() as connection:
        connection.exec_driver_sql(second.format(role="'challenger'"))


def test_the_logs_grain_is_unique(engine: sa.Engine) -> None:
    fill(engine)
    columns = ", ".join(
        column.name for column in Base.metadata.tables["experiment_logs"].columns if column.name != "id"
    )
    again = f"insert into experiment_logs ({columns}) select {columns} from experiment_logs"
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql(again)
    with engine.begin() as connection:
        assert connection.exec_driver_sql(f"{again} on conflict do nothing").rowcount == 0
