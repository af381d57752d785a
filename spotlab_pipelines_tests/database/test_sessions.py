"""A pooled connection serves one user after another: nothing that one leaves in its session reaches the next."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.database.engine import acting_for
from spotlab_pipelines.database.migrate import upgrade
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.conftest import Logins, People

BACKEND = sa.text("select pg_backend_pid()")
LEFT = (
    "create temporary table audit_log (actor text)",
    "select set_config('search_path', 'pg_temp', false)",
    "select set_config('app.login', 'somebody', false)",
    "select set_config('role', 'none', false)",
    "select pg_advisory_lock(42)",
    "listen news",
    "declare kept cursor with hold for select 1",
)


@pytest.mark.usefixtures("people")
def test_what_a_user_leaves_in_the_session_is_gone_for_the_next(
    api: sa.Engine, engine: sa.Engine, logins: Logins
) -> None:
    with acting_for(api, logins["ana"]) as connection:
        backend = connection.scalar(BACKEND)
        for statement in LEFT:
            connection.execute(sa.text(statement))
    with acting_for(api, logins["ben"]) as connection:
        assert connection.scalar(BACKEND) == backend, "the same connection"
        assert connection.scalar(sa.text("show search_path")) == "public,pg_temp"
        assert connection.scalar(sa.text("show role")) == "spotlab_api"
        assert connection.scalar(sa.text("show timezone")) == "UTC"
        assert connection.scalar(sa.text("select to_regclass('pg_temp.audit_log')")) is None
        assert connection.scalar(sa.text("select count(*) from pg_cursors where name = 'kept'")) == 0
        assert connection.scalar(sa.text("select count(*) from pg_listening_channels()")) == 0
    with api.connect() as connection:
        assert connection.scalar(sa.text("select nullif(current_setting('app.login', true), '')")) is None
    with engine.begin() as connection:
        assert connection.scalar(sa.text("select pg_try_advisory_xact_lock(42)"))


@pytest.mark.parametrize("role", ["api", "pipeline"])
def test_a_temporary_table_stands_before_no_other(request: pytest.FixtureRequest, people: People, role: str) -> None:
    with request.getfixturevalue("api" if role == "api" else "engine").begin() as connection:
        connection.execute(sa.text("create temporary table audit_log (nonsense text)"))
        found = connection.scalar(
            sa.text("select relnamespace::regnamespace::text from pg_class where oid = 'audit_log'::regclass")
        )
    assert found == "public"


@pytest.mark.usefixtures("people")
def test_only_the_pipeline_makes_temporary_tables(api: sa.Engine, engine: sa.Engine, settings: Settings) -> None:
    upgrade(settings)
    make = sa.text("create temporary table mine (x int)")
    with engine.begin() as connection:
        connection.execute(make)
    with pytest.raises(ProgrammingError, match="permission denied"), api.begin() as connection:
        connection.execute(make)
