"""What a login can do that is a member of one of our roles and owns nothing, as a deployment has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.accounts.access import note_denied
from spotlab_pipelines.accounts.logins import close_login, open_login
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.standing import set_environment
from spotlab_pipelines.accounts.users import set_password, verify_password
from spotlab_pipelines.database.engine import acting_for, connect, disconnect
from spotlab_pipelines.database.migrate import require_current
from spotlab_pipelines.errors import PermanentError
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import register
from spotlab_pipelines_tests.database.filled import fill
from spotlab_pipelines_tests.database.own_logins import login_of_its_own

PASSWORD = "correct horse battery staple"


@pytest.fixture
def pipelines_own(settings: Settings, owner: sa.Engine) -> Iterator[Settings]:
    """A filled database, and the settings of a pipeline that has a login of its own."""
    fill(owner)
    with login_of_its_own(settings, "spotlab_pipeline") as own:
        yield own


def test_the_pipelines_login_need_not_own_the_tables(pipelines_own: Settings, owner: sa.Engine) -> None:
    pipeline = require_current(pipelines_own)
    with pipeline.connect() as connection:
        who = connection.execute(sa.text("select current_user, session_user")).one()
        assert who == ("spotlab_pipeline", pipeline.url.username)
        assert connection.scalar(sa.text("select count(*) from accounts")) == 1
    with owner.begin() as connection:
        connection.exec_driver_sql("revoke select on alembic_version from spotlab_pipeline")
    with pytest.raises(PermanentError, match=r"permission denied for table alembic_version.*spotlab up"):
        require_current(pipelines_own)


@pytest.mark.parametrize(
    "statement",
    [
        "update users set role = 'admin'",
        "update users set password_hash = null",
        "update users set active = true",
        "select password_hash from users",
        "insert into users (email, password_hash) values ('eve@example.org', '$argon2id$')",
        "select count(*) from logins",
        "update accounts set external_id = repeat('x', 30)",
        "update accounts set role_arn = role_arn",
        "update accounts set owner_id = owner_id",
        "insert into audit_log (at, actor, action, outcome) values ('2020-01-01', 'cli:x', 'add_user', 'done')",
        "update model_registry set status = 'approved'",
        "update model_registry set role = 'none'",
        "update model_registry set artifact_sha256 = repeat('a', 64)",
        "delete from model_registry",
        "insert into model_registry (status) values ('approved')",
        "insert into model_registry (role) values ('champion')",
    ],
)
def test_what_the_pipelines_login_may_not_do(pipelines_own: Settings, statement: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), connect(pipelines_own).begin() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize("action", ["approve_model", "promote_model", "retire_model"])
def test_the_pipelines_login_cannot_say_that_a_version_is_served(pipelines_own: Settings, action: str) -> None:
    said = sa.text("insert into audit_log (actor, action, subject, outcome) values ('cli:x', :action, 'a/1', :outcome)")
    with connect(pipelines_own).begin() as connection:
        connection.execute(said, {"action": action, "outcome": "refused"})
        connection.execute(said, {"action": "register_model", "outcome": "done"})
    with pytest.raises(ProgrammingError, match="row-level security"), connect(pipelines_own).begin() as connection:
        connection.execute(said, {"action": action, "outcome": "done"})


def test_what_the_pipelines_login_must_do(pipelines_own: Settings) -> None:
    pipeline = connect(pipelines_own)
    account = register(pipeline, "999922223333")
    assert set_environment(pipeline, account.account_id, "PROD").environment == "PROD"
    note_denied(pipeline, account.account_id, "no", denials_max=1)
    assert get_account(pipeline, account.account_id).access_state == "access_broken"


def test_the_login_that_checks_passwords_does_nothing_else(settings: Settings, owner: sa.Engine) -> None:
    fill(owner)
    set_password(owner, "ana@example.org", PASSWORD)
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    with owner.begin() as connection:
        connection.execute(sa.text("update users set password_hash = :h"), {"h": old})
    with login_of_its_own(settings, "spotlab_login") as own:
        logins = require_current(own, "login")
        ana = verify_password(logins, "ana@example.org", PASSWORD)
        token = open_login(logins, ana.id)
        with acting_for(connect(settings, role="api"), token) as connection:
            assert connection.scalar(sa.text("select count(*) from accounts")) == 1
        close_login(logins, token)
        with owner.connect() as connection:
            assert connection.scalar(sa.text("select password_hash from users")) != old, "renewed"
        for statement in (
            "select count(*) from accounts",
            "select count(*) from audit_log",
            "update users set role = 'admin'",
            "update logins set expires_at = now()",
        ):
            with pytest.raises(ProgrammingError, match="permission denied"), logins.begin() as connection:
                connection.execute(sa.text(statement))
        disconnect(logins)


def test_what_is_the_owners_is_nobody_elses_by_default(owner: sa.Engine) -> None:
    query = """
    select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef
      and has_function_privilege('public', oid, 'execute') and prorettype <> 'trigger'::regtype
    """
    with owner.connect() as connection:
        assert connection.scalars(sa.text(query)).all() == []
