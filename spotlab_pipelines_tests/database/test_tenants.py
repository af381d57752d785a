"""No row across tenants: raw SQL as the API's role sees what its user owns, through tables and views, and no more."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError

from spotlab_pipelines.database.engine import acting_for, connect
from spotlab_pipelines.database.migrate import downgrade, upgrade
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID, fill

OTHER_ID = "999922223333"
PROD_ID = "555522223333"
VIEWS = ("v_active_instances", "v_recent_experiments", "v_model_performance")
OF_AN_ACCOUNT = (
    "accounts", "instances", "evaluations", "experiment_logs", "tracking_runs", "scrapes", "interruption_events",
    "evaluation_requests", "audit_log",
)  # fmt: skip


@pytest.fixture
def people(owner: sa.Engine) -> dict[str, UUID]:
    """Ana with one LAB and one PROD account, Ben with one LAB account, an admin, and Cleo, who is disabled."""
    fill(owner)
    with owner.begin() as connection:
        for email, role in (("ben@example.org", "user"), ("root@example.org", "admin"), ("cleo@example.org", "user")):
            connection.exec_driver_sql(f"insert into users (email, role) values ('{email}', '{role}')")
        connection.exec_driver_sql(f"update scrapes set account_id = '{ACCOUNT_ID}'")
        connection.exec_driver_sql("update users set active = false where email like 'cleo%%'")
        for account, email, environment in ((OTHER_ID, "ben", "LAB"), (PROD_ID, "ana", "PROD")):
            connection.exec_driver_sql(
                "insert into accounts (account_id, name, owner_id, environment, role_arn, external_id, regions, "
                f"evaluation_interval_s, interruption_cost_usd) select '{account}', 'x', id, '{environment}', 'arn', "
                f"'external-id-{account}', '{{us-east-1}}', 1800, 1 from users where email = '{email}@example.org'"
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
def api(settings: Settings, people: dict[str, UUID]) -> sa.Engine:
    """The Lab API's engine."""
    return connect(settings, role="api")


def seen(connection: sa.Connection, relation: str) -> set[str]:
    return set(connection.execute(sa.text(f"select account_id from {relation}")).scalars())


def test_nobody_sees_nothing(api: sa.Engine) -> None:
    with api.connect() as connection:
        for relation in (*OF_AN_ACCOUNT, *VIEWS):
            assert connection.scalar(sa.text(f"select count(*) from {relation}")) == 0, relation
        assert connection.scalar(sa.text("select count(id) from users")) == 0


@pytest.mark.parametrize("relation", [*OF_AN_ACCOUNT, *VIEWS])
def test_everybody_sees_what_hangs_on_their_accounts(api: sa.Engine, people: dict[str, UUID], relation: str) -> None:
    for person, expected in (
        ("ana", {ACCOUNT_ID, PROD_ID}),
        ("ben", {OTHER_ID}),
        ("root", {ACCOUNT_ID, PROD_ID, OTHER_ID}),
        ("cleo", set()),
    ):
        with acting_for(api, people[person]) as connection:
            assert seen(connection, relation) == expected


def test_people_see_themselves_and_admins_everybody(api: sa.Engine, people: dict[str, UUID]) -> None:
    with acting_for(api, people["ana"]) as connection:
        assert connection.scalars(sa.text("select id from users")).all() == [people["ana"]]
    with acting_for(api, people["root"]) as connection:
        assert connection.scalar(sa.text("select count(id) from users")) == 4
    for statement in ("select password_hash from users", "select * from users"):
        with pytest.raises(ProgrammingError, match="permission denied"), acting_for(api, people["ana"]) as connection:
            connection.execute(sa.text(statement))


def test_the_context_ends_with_its_transaction_on_a_pooled_connection(
    settings: Settings, api: sa.Engine, people: dict[str, UUID]
) -> None:
    count = sa.text("select count(*), pg_backend_pid() from accounts")
    with acting_for(api, people["ana"]) as connection:
        rows, first = connection.execute(count).one()
        assert rows == 2
    with api.connect() as connection:
        assert tuple(connection.execute(count).one()) == (0, first), "after commit, on the same connection"
    with suppress(RuntimeError), acting_for(api, people["ana"]) as connection:
        raise RuntimeError
    with api.connect() as connection:
        assert tuple(connection.execute(count).one()) == (0, first), "after an exception"
    with suppress(ProgrammingError), acting_for(api, people["ana"]) as connection:
        connection.execute(sa.text("select no_such_column from accounts"))
    with acting_for(api, people["ben"]) as connection:
        assert seen(connection, "accounts") == {OTHER_ID}, "after a database error"


@pytest.mark.parametrize(
    "statement",
    [
        "update accounts set environment = 'PROD'",
        "update accounts set external_id = repeat('x', 30)",
        "update instances set state = 'terminated'",
        "delete from instances",
        "delete from experiment_logs",
        "insert into experiment_logs select * from experiment_logs",
        "update audit_log set outcome = 'done'",
        "delete from audit_log",
        "truncate audit_log",
        "insert into users (email) values ('eve@example.org')",
        "update users set role = 'admin'",
        "update model_registry set status = 'approved'",
        "select make_log_partition(now())",
        "alter table accounts no force row level security",
        "select count(*) from experiment_logs_2026_03",
    ],
)
def test_what_the_api_may_never_do(api: sa.Engine, people: dict[str, UUID], statement: str) -> None:
    for person in ("ana", "root"):
        with (
            pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
            acting_for(api, people[person]) as connection,
        ):
            connection.execute(sa.text(statement))


def test_owners_steer_their_lab_accounts_and_admins_all(api: sa.Engine, people: dict[str, UUID]) -> None:
    steer = sa.text("update instances set shadow = true returning account_id")
    for person, expected in (("ana", {ACCOUNT_ID}), ("ben", {OTHER_ID}), ("root", {ACCOUNT_ID, OTHER_ID, PROD_ID})):
        with acting_for(api, people[person]) as connection:
            assert set(connection.scalars(steer)) == expected
    ask = "insert into evaluation_requests (account_id, window_start, source) values ('{}', now(), 'api')"
    with acting_for(api, people["ana"]) as connection:
        connection.execute(sa.text(ask.format(ACCOUNT_ID)))
    for account in (OTHER_ID, PROD_ID):
        with (
            pytest.raises(ProgrammingError, match="row-level security"),
            acting_for(api, people["ana"]) as connection,
        ):
            connection.execute(sa.text(ask.format(account)))


def test_nobody_writes_an_audit_entry_in_another_name(api: sa.Engine, people: dict[str, UUID]) -> None:
    entry = sa.text("insert into audit_log (actor, action, account_id, outcome) values (:a, 'set_shadow', :i, 'done')")
    with acting_for(api, people["ana"]) as connection:
        connection.execute(entry, {"a": f"user:{people['ana']}", "i": ACCOUNT_ID})
    for actor, account in ((f"user:{people['ben']}", ACCOUNT_ID), (f"user:{people['ana']}", OTHER_ID)):
        with pytest.raises(ProgrammingError, match="row-level"), acting_for(api, people["ana"]) as connection:
            connection.execute(entry, {"a": actor, "i": account})


def test_a_user_that_does_not_exist_is_nobody(api: sa.Engine) -> None:
    with acting_for(api, uuid4()) as connection:
        assert seen(connection, "accounts") == set()


@pytest.mark.parametrize(
    "statement", ["update audit_log set reason = 'x'", "delete from audit_log", "truncate audit_log"]
)
def test_the_audit_log_is_append_only_even_for_its_owner(
    owner: sa.Engine, engine: sa.Engine, people: dict[str, UUID], statement: str
) -> None:
    for role in (owner, engine):
        with pytest.raises(ProgrammingError, match=r"append-only|permission denied"), role.begin() as connection:
            connection.execute(sa.text(statement))


def test_the_pipeline_is_not_the_owner_and_may_not_change_what_was_logged(
    engine: sa.Engine, people: dict[str, UUID]
) -> None:
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select current_user")) == "spotlab_pipeline"
        assert seen(connection, "accounts") == {ACCOUNT_ID, OTHER_ID, PROD_ID}
    for statement in ("update experiment_logs set gain = 1", "delete from experiment_logs", "delete from accounts"):
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
            connection.execute(sa.text(statement))


def test_every_table_of_a_tenant_is_protected_by_force(owner: sa.Engine) -> None:
    query = """
    select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname in ('account_id', 'email')
    where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
      and not (c.relrowsecurity and c.relforcerowsecurity)
    """
    with owner.connect() as connection:
        assert connection.scalars(sa.text(query)).all() == []
        assert not connection.scalars(
            sa.text("select relname from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace "
                    "and not coalesce(reloptions @> '{security_invoker=true}', false)")
        ).all()  # fmt: skip


def test_what_refers_to_a_tenant_cannot_be_orphaned(owner: sa.Engine, people: dict[str, UUID]) -> None:
    with pytest.raises(IntegrityError), owner.begin() as connection:
        connection.execute(sa.text("delete from accounts"))
    with owner.begin() as connection:
        connection.execute(sa.text("update evaluation_requests set requested_by = :u"), {"u": people["cleo"]})
        connection.execute(sa.text("delete from users where email like 'cleo%'"))
        assert connection.scalars(sa.text("select distinct requested_by from evaluation_requests")).all() == [None]


def test_a_database_goes_down_and_up_while_another_uses_the_roles(
    settings: Settings, api: sa.Engine, people: dict[str, UUID]
) -> None:
    downgrade(settings, "0001")
    upgrade(settings)
    with acting_for(api, people["ben"]) as connection:
        assert seen(connection, "instances") == {OTHER_ID}
