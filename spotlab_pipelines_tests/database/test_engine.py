"""One pooled engine per process, whose errors have names and keep secrets."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from spotlab_pipelines.database.engine import connect, database_errors, database_url
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.local import StoreUrls
from spotlab_pipelines.settings import Settings


def test_one_engine_for_all_callers(engine: sa.Engine, settings: Settings) -> None:
    assert connect(settings) is engine
    assert connect(settings.model_copy()) is engine
    assert engine.dialect.driver == "psycopg"
    with engine.connect() as connection:
        assert connection.scalar(sa.text("show timezone")) == "UTC"


def test_urls_by_name_and_driver(settings: Settings, stores: StoreUrls) -> None:
    plain = stores.postgres.get_secret_value().rsplit("/", 1)[0]
    assert database_url(settings, "dagster", driver=None) == f"{plain}/{settings.dagster_database}"
    psycopg2 = plain.replace("postgresql:", "postgresql+psycopg2:")
    assert database_url(settings, "mlflow", driver="psycopg2") == f"{psycopg2}/{settings.mlflow_database}"
    with pytest.raises(ValueError, match="spotlab, dagster, mlflow"):
        database_url(settings, "other")


def test_a_forked_child_has_connections_of_its_own(engine: sa.Engine, settings: Settings) -> None:
    backend = sa.text("select pg_backend_pid()")
    with engine.connect() as connection:
        ours = connection.scalar(backend)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with connect(settings).connect() as connection:
            os.write(write, str(connection.scalar(backend)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(read, 100))
    os.close(read)
    os.close(write)
    assert theirs != ours
    with engine.connect() as connection:
        assert connection.scalar(backend) == ours, "the child must not have closed the parent's connection"


def test_parameters_are_not_quoted_in_errors(engine: sa.Engine) -> None:
    with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
        connection.execute(sa.text("select cast(:external_id as integer), 1/0"), {"external_id": 17_000_123})
    assert "17000123" not in str(caught.value)


def test_a_lost_connection_is_store_unavailable(engine: sa.Engine, server: sa.Engine) -> None:
    with engine.connect() as connection, server.connect() as other:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        other.execute(sa.text("select pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(StoreUnavailable, match="Postgres does not answer"), database_errors():
            connection.execute(sa.text("select 1"))


def test_other_errors_keep_their_names(engine: sa.Engine) -> None:
    with pytest.raises(DBAPIError, match="nowhere"), database_errors(), engine.connect() as connection:
        connection.execute(sa.text("select * from nowhere"))
