"""Two owners, their accounts, an admin and somebody who is disabled: for tests of who may see and do what."""

from __future__ import annotations

from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.accounts.logins import open_login
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID, fill

OTHER_ID = "999922223333"
PROD_ID = "555522223333"
VIEWS = ("v_active_instances", "v_recent_experiments", "v_model_performance", "v_labelled_predictions")
OF_AN_ACCOUNT = (
    "accounts", "instances", "evaluations", "experiment_logs", "tracking_runs", "scrapes", "interruption_events",
    "interruption_outcomes", "evaluation_requests", "audit_log",
)  # fmt: skip

People = dict[str, UUID]
Logins = dict[str, SecretStr]


@pytest.fixture
def people(owner: sa.Engine) -> People:
    """Ana with one LAB and one PROD account, Ben with one LAB account, an admin, and Cleo with nothing."""
    fill(owner)
    with owner.begin() as connection:
        for email, role in (("ben@example.org", "user"), ("root@example.org", "admin"), ("cleo@example.org", "user")):
            connection.exec_driver_sql(f"insert into users (email, role) values ('{email}', '{role}')")
        connection.exec_driver_sql(f"update scrapes set account_id = '{ACCOUNT_ID}'")
        for account, email, environment in ((OTHER_ID, "ben", "LAB"), (PROD_ID, "ana", "PROD")):
            connection.exec_driver_sql(
                "insert into accounts (account_id, name, owner_id, environment, role_arn, external_id, regions, "
                f"evaluation_interval_s, interruption_cost_usd) select '{account}', 'x', id, '{environment}', "
                f"'arn:aws:iam::{account}:role/x', 'external-id-{account}', '{{us-east-1}}', 1800, 1 "
                f"from users where email = '{email}@example.org'"
            )
            _copy_rows(connection, account)
        # The views look at the last days only.
        connection.exec_driver_sql("select make_log_partition(now())")
        connection.exec_driver_sql("update evaluations set state = 'logged', snapshot_id = 's', window_start = now()")
        connection.exec_driver_sql("update experiment_logs set window_start = now()")
        rows = connection.exec_driver_sql("select split_part(email, '@', 1), id from users")
        return dict(rows.tuples().all())


def _copy_rows(connection: sa.Connection, account: str) -> None:
    """Give an account a copy of every row that the first account has."""
    for table in OF_AN_ACCOUNT[1:]:
        columns = [
            column
            for column in connection.exec_driver_sql(
                f"select column_name from information_schema.columns where table_name = '{table}'"
            ).scalars()
            if column not in ("id", "account_id", "mlflow_run_id")
        ]
        values = ", ".join(columns)
        extra, of_extra = (", id", ", gen_random_uuid()") if table == "scrapes" else ("", "")
        if table == "tracking_runs":
            extra, of_extra = ", mlflow_run_id", f", 'run-of-{account}'"
        connection.exec_driver_sql(
            f"insert into {table} (account_id, {values}{extra}) select '{account}', {values}{of_extra} from {table} "
            f"where account_id = '{ACCOUNT_ID}' limit 1"
        )


@pytest.fixture
def api(settings: Settings, people: People) -> sa.Engine:
    """The Lab API's engine."""
    return connect(settings, role="api")


@pytest.fixture
def logins(owner: sa.Engine, people: People) -> Logins:
    """The token of everybody's login; Cleo is disabled after hers was opened."""
    tokens = {person: open_login(owner, user_id) for person, user_id in people.items()}
    with owner.begin() as connection:
        connection.exec_driver_sql("update users set active = false where email like 'cleo%%'")
    return tokens
