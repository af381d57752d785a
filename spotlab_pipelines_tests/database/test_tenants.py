"""No row across tenants: raw SQL as the API's role sees what its user owns, through tables and views, and no more."""

from __future__ import annotations

from contextlib import suppress

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError, ProgrammingError

from spotlab_pipelines.accounts.logins import close_login, open_login
from spotlab_pipelines.accounts.registry import get_account, list_accounts, trust_policy
from spotlab_pipelines.accounts.steering import set_shadow
from spotlab_pipelines.accounts.users import set_password
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import acting_as, acting_for
from spotlab_pipelines.database.migrate import downgrade, upgrade
from spotlab_pipelines.errors import InvalidInput, LoginRefused, NotFound, PermanentError
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.conftest import OF_AN_ACCOUNT, OTHER_ID, PROD_ID, VIEWS, Logins, People
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID


def seen(connection: sa.Connection, relation: str) -> set[str]:
    return set(connection.execute(sa.text(f"select account_id from {relation}")).scalars())


def test_nobody_sees_nothing(api: sa.Engine) -> None:
    with api.connect() as connection:
        for relation in (*OF_AN_ACCOUNT, *VIEWS):
            assert connection.scalar(sa.text(f"select count(*) from {relation}")) == 0, relation
        assert connection.scalar(sa.text("select count(id) from users")) == 0


@pytest.mark.parametrize("relation", [*OF_AN_ACCOUNT, *VIEWS])
def test_everybody_sees_what_hangs_on_their_accounts(api: sa.Engine, logins: Logins, relation: str) -> None:
    for person, expected in (
        ("ana", {ACCOUNT_ID, PROD_ID}),
        ("ben", {OTHER_ID}),
        ("root", {ACCOUNT_ID, PROD_ID, OTHER_ID}),
        ("cleo", set()),
    ):
        with acting_for(api, logins[person]) as connection:
            assert seen(connection, relation) == expected


def test_people_see_themselves_and_admins_everybody(api: sa.Engine, people: People, logins: Logins) -> None:
    with acting_for(api, logins["ana"]) as connection:
        assert connection.scalars(sa.text("select id from users")).all() == [people["ana"]]
    with acting_for(api, logins["root"]) as connection:
        assert connection.scalar(sa.text("select count(id) from users")) == 4
    for statement in ("select password_hash from users", "select * from users"):
        with pytest.raises(ProgrammingError, match="permission denied"), acting_for(api, logins["ana"]) as connection:
            connection.execute(sa.text(statement))


def test_the_context_ends_with_its_transaction_on_a_pooled_connection(
    settings: Settings, api: sa.Engine, logins: Logins
) -> None:
    count = sa.text("select count(*), pg_backend_pid() from accounts")
    with acting_for(api, logins["ana"]) as connection:
        rows, first = connection.execute(count).one()
        assert rows == 2
    with api.connect() as connection:
        assert tuple(connection.execute(count).one()) == (0, first), "after commit, on the same connection"
    with suppress(RuntimeError), acting_for(api, logins["ana"]) as connection:
        raise RuntimeError
    with api.connect() as connection:
        assert tuple(connection.execute(count).one()) == (0, first), "after an exception"
    with suppress(ProgrammingError), acting_for(api, logins["ana"]) as connection:
        connection.execute(sa.text("select no_such_column from accounts"))
    with acting_for(api, logins["ben"]) as connection:
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
def test_what_the_api_may_never_do(api: sa.Engine, logins: Logins, statement: str) -> None:
    for person in ("ana", "root"):
        with (
            pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
            acting_for(api, logins[person]) as connection,
        ):
            connection.execute(sa.text(statement))


def test_who_asks_is_proven_and_not_claimed(api: sa.Engine, owner: sa.Engine, people: People, logins: Logins) -> None:
    root = str(people["root"])
    with api.begin() as connection:
        for name in ("app.user_id", "app.login"):
            connection.execute(sa.select(sa.func.set_config(name, root, True)))
        assert seen(connection, "accounts") == set(), "an id opens nothing, not even an admin's"
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(sa.text("select count(*) from logins"))
    close_login(owner, logins["ana"])
    with owner.begin() as connection:
        connection.exec_driver_sql("update logins set created_at = '2026-01-01', expires_at = '2026-01-02'")
    fresh = open_login(owner, people["ana"])
    for nothing in (logins["ana"], logins["ben"], SecretStr(""), SecretStr(root)):
        with acting_for(api, nothing) as connection:
            assert seen(connection, "accounts") == set(), "closed, expired, empty, an id"
    with acting_for(api, fresh) as connection:
        assert seen(connection, "accounts") == {ACCOUNT_ID, PROD_ID}
    with pytest.raises(LoginRefused, match="active user"):
        open_login(owner, people["cleo"])


def test_a_new_password_ends_the_logins_before_it(api: sa.Engine, owner: sa.Engine, logins: Logins) -> None:
    set_password(owner, "ana@example.org", "correct horse battery staple")
    with acting_for(api, logins["ana"]) as connection:
        assert seen(connection, "accounts") == set()


def test_nobody_acts_for_a_user_where_nothing_is_hidden(engine: sa.Engine, owner: sa.Engine, logins: Logins) -> None:
    for unhidden in (engine, owner):
        with (
            pytest.raises(PermanentError, match="Expected the role spotlab_api"),
            acting_for(unhidden, logins["ana"]) as connection,
        ):
            seen(connection, "accounts")
        with pytest.raises(PermanentError, match="Expected the role spotlab_api"):
            set_shadow(acting_as(unhidden, logins["ana"]), ACCOUNT_ID, ["i-1"], shadow=True)
        with unhidden.connect() as connection:
            assert seen(connection, "accounts") == {ACCOUNT_ID, OTHER_ID, PROD_ID}, "the pool is as it was"


def test_admins_see_what_is_a_disabled_users_and_what_is_nobodys(
    api: sa.Engine, owner: sa.Engine, logins: Logins
) -> None:
    with owner.begin() as connection:
        connection.exec_driver_sql("update users set active = false where email like 'ben%%'")
        record(connection, "add_user")
        connection.exec_driver_sql(
            "insert into scrapes (id, source, fetched_at, row_count) values (gen_random_uuid(), 'advisor', now(), 1)"
        )
    for relation in (*OF_AN_ACCOUNT, *VIEWS):
        nobodys = {None} if relation in ("audit_log", "scrapes") else set()
        with acting_for(api, logins["root"]) as connection:
            assert seen(connection, relation) == {ACCOUNT_ID, PROD_ID, OTHER_ID} | nobodys, relation
        with acting_for(api, logins["ana"]) as connection:
            assert seen(connection, relation) == {ACCOUNT_ID, PROD_ID}, relation
        with acting_for(api, logins["ben"]) as connection:
            assert seen(connection, relation) == set(), relation


def test_an_external_id_is_shown_to_the_accounts_owner_alone(api: sa.Engine, logins: Logins) -> None:
    ask = sa.text("select account_external_id(:account)")
    for person, expected in (("ana", "external-id-of-22-chars"), ("ben", None), ("root", None), ("cleo", None)):
        with acting_for(api, logins[person]) as connection:
            assert connection.scalar(ask, {"account": ACCOUNT_ID}) == expected
        for statement in ("select external_id from accounts", "select * from accounts"):
            with (
                pytest.raises(ProgrammingError, match="permission denied"),
                acting_for(api, logins[person]) as connection,
            ):
                connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    "statement", ["update audit_log set reason = 'x'", "delete from audit_log", "truncate audit_log"]
)
def test_the_audit_log_is_append_only_even_for_its_owner(
    owner: sa.Engine, engine: sa.Engine, people: People, statement: str
) -> None:
    for role in (owner, engine):
        with pytest.raises(ProgrammingError, match=r"append-only|permission denied"), role.begin() as connection:
            connection.execute(sa.text(statement))


def test_the_pipeline_is_not_the_owner_and_may_not_change_what_was_logged(engine: sa.Engine, people: People) -> None:
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


def test_the_registry_behind_row_level_security(api: sa.Engine, logins: Logins) -> None:
    ana, root = (acting_as(api, logins[person]) for person in ("ana", "root"))
    assert [account.account_id for account in list_accounts(ana)] == [ACCOUNT_ID, PROD_ID]
    assert "external-id-of-22-chars" in trust_policy(get_account(ana, ACCOUNT_ID), "111111111111")
    assert len(list_accounts(root)) == 3
    with pytest.raises(InvalidInput, match=r"its owner's alone.*ana@example\.org"):
        trust_policy(get_account(root, ACCOUNT_ID), "111111111111")
    with pytest.raises(NotFound):
        get_account(ana, OTHER_ID)


def test_what_refers_to_a_tenant_cannot_be_orphaned(owner: sa.Engine, people: People) -> None:
    with pytest.raises(IntegrityError), owner.begin() as connection:
        connection.execute(sa.text("delete from accounts"))
    with owner.begin() as connection:
        connection.execute(sa.text("update evaluation_requests set requested_by = :u"), {"u": people["cleo"]})
        connection.execute(sa.text("delete from users where email like 'cleo%'"))
        assert connection.scalars(sa.text("select distinct requested_by from evaluation_requests")).all() == [None]


def test_a_database_goes_down_and_up_while_another_uses_the_roles(
    settings: Settings, api: sa.Engine, owner: sa.Engine, people: People
) -> None:
    downgrade(settings, "0001")
    upgrade(settings)
    with acting_for(api, open_login(owner, people["ben"])) as connection:
        assert seen(connection, "instances") == {OTHER_ID}
