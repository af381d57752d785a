"""The shared fixtures keep what conftest.py promises: tests do not see each other, nor the developer's environment."""

from __future__ import annotations

import os

import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.migrate import drift
from spotlab_pipelines.inference.mlflow_store import MLFLOW_ENVIRONMENT
from spotlab_pipelines.settings import Settings


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_migrated_database(engine: sa.Engine, settings: Settings, turn: int) -> None:
    with engine.begin() as connection:
        assert connection.scalar(sa.text("select count(*) from users")) == 0
        connection.execute(sa.text("insert into users (email) values ('a@example.org')"))
    assert drift(settings) == []


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_redis(redis: redis_py.Redis, turn: int) -> None:
    assert redis.dbsize() == 0
    redis.set("key", turn)


def test_mlflow_has_its_tables(mlflow_database: str) -> None:
    engine = sa.create_engine(mlflow_database)
    assert "experiments" in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_no_setting_of_the_developer_gets_in() -> None:
    foreign = {name for name in os.environ if name.startswith(("SPOTLAB_", "DAGSTER_", "MLFLOW_"))}
    assert foreign - set(MLFLOW_ENVIRONMENT) == set()
