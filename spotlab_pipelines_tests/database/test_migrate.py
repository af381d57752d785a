"""Databases appear, migrations make exactly tables.py, once, and can be taken back."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.engine import connect, database_url, disconnect
from spotlab_pipelines.database.migrate import (
    current_revision,
    downgrade,
    drift,
    ensure_databases,
    head_revision,
    upgrade,
)
from spotlab_pipelines.database.tables import Base
from spotlab_pipelines.errors import SettingsError, StoreUnavailable
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.filled import fill

CATALOGUE = """
select 'column', table_name, column_name, data_type, udt_name, is_nullable, column_default
    from information_schema.columns where table_schema = 'public' and table_name not like 'v\\_%'
union all
select 'constraint', c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid), '', '', ''
    from pg_constraint c join pg_namespace n on n.oid = c.connamespace where n.nspname = 'public'
union all
select 'index', tablename, indexname, indexdef, '', '', '' from pg_indexes where schemaname = 'public'
union all
select 'partitioned by', partrelid::regclass::text, pg_get_partkeydef(partrelid), '', '', '', ''
    from pg_partitioned_table
"""


def catalogue(engine: sa.Engine) -> set[tuple[str, ...]]:
    """Everything that Postgres knows of the schema, but for Alembic's own table and the log's partitions."""
    with engine.connect() as connection:
        rows = {tuple(row) for row in connection.execute(sa.text(CATALOGUE))}
    return {row for row in rows if row[1] != "alembic_version" and not row[1].startswith("experiment_logs_2")}


def test_the_migration_makes_exactly_the_tables(empty_database: Settings) -> None:
    engine = connect(empty_database, role="owner")
    Base.metadata.create_all(engine)
    declared = catalogue(engine)
    Base.metadata.drop_all(engine)
    upgrade(empty_database)
    assert catalogue(engine) == declared
    assert drift(empty_database) == []
    assert current_revision(engine) == head_revision()


def test_no_name_is_cut_off_by_postgres() -> None:
    names = [item.name for table in Base.metadata.tables.values() for item in (*table.constraints, *table.indexes)]
    assert [name for name in names if len(str(name)) > 63] == []


def test_a_difference_is_drift(owner: sa.Engine, settings: Settings) -> None:
    with owner.begin() as connection:
        connection.execute(sa.text("alter table users add column shoe_size integer"))
        connection.execute(sa.text("alter table users alter column email drop not null"))
    found = drift(settings)
    assert len(found) == 2
    assert "shoe_size" in str(found)


def test_a_filled_database_goes_down_and_up_again(empty_database: Settings) -> None:
    engine = connect(empty_database, role="owner")
    upgrade(empty_database)
    fill(engine)
    upgrade(empty_database)
    with engine.connect() as connection:
        for table in Base.metadata.tables:
            assert connection.scalar(sa.text(f"select count(*) from {table}")) >= 1, table
    downgrade(empty_database, "0001")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from experiment_logs")) == 1
        assert connection.scalars(sa.text("select viewname from pg_views where schemaname = 'public'")).all() == []
    upgrade(empty_database)
    assert drift(empty_database) == []
    downgrade(empty_database, "base")
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert current_revision(engine) is None
    upgrade(empty_database)
    assert drift(empty_database) == []


def test_many_that_upgrade_at_once_do_it_once(empty_database: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=upgrade, args=(empty_database,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert drift(empty_database) == []


def test_databases_are_created_once_however_many_ask(settings: Settings, server: sa.Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        created = [name for names in pool.map(ensure_databases, [settings] * 4) for name in names]
    names = {sa.make_url(database_url(settings, name)).database for name in ("spotlab", "dagster", "mlflow")}
    assert set(created) == names
    assert ensure_databases(settings) == []
    with server.connect() as connection:
        for name in names:
            connection.execute(sa.text(f"drop database {name}"))


def test_a_user_without_the_right_is_told_what_to_do(settings: Settings, server: sa.Engine) -> None:
    with server.connect() as connection:
        connection.execute(sa.text("create role plain login password 'hidden-word'"))
    url = sa.make_url(database_url(settings, driver=None)).set(username="plain", password="hidden-word")
    limited = Settings(**{**settings.model_dump(), "database_url": url.render_as_string(hide_password=False)})
    with pytest.raises(SettingsError, match="CREATEDB"):
        ensure_databases(limited)
    with server.connect() as connection:
        connection.execute(sa.text("drop role plain"))


@pytest.mark.parametrize(
    ("change", "said"), [({"password": "hidden-word"}, "authentication"), ({"port": 1}, "refused")]
)
def test_a_postgres_that_does_not_let_us_in(settings: Settings, change: dict[str, Any], said: str) -> None:
    url = sa.make_url(database_url(settings, driver=None)).set(**change)
    wrong = Settings(**{**settings.model_dump(), "database_url": url.render_as_string(hide_password=False)})
    for work in (ensure_databases, upgrade, drift):
        with pytest.raises(StoreUnavailable, match=said) as caught:
            work(wrong)
        assert "hidden-word" not in str(caught.value)
        assert str(url.password) not in str(caught.value)
    disconnect(connect(wrong, role="owner"))
