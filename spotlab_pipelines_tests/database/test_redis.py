"""The cache's client, and the names of what can go wrong with it."""

from __future__ import annotations

import pytest
import redis as redis_py

from spotlab_pipelines.database.redis import connect_redis, redis_errors
from spotlab_pipelines.errors import SettingsError, StoreUnavailable
from spotlab_pipelines.settings import Settings


def elsewhere(settings: Settings, **parts: object) -> Settings:
    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value()
    password, port = url.split(":")[2].split("@")[0], url.split(":")[3].split("/")[0]
    changed = {"password": password, "port": port, **parts}
    return settings.model_copy(
        update={"redis_url": type(settings.redis_url)(f"redis://:{changed['password']}@127.0.0.1:{changed['port']}/0")}
    )


def test_the_client_has_time_outs_and_is_shared(settings: Settings) -> None:
    client = connect_redis(settings)
    options = client.connection_pool.connection_kwargs
    assert options["socket_timeout"] > 0
    assert options["socket_connect_timeout"] > 0
    assert connect_redis(settings) is client


def test_a_wrong_password_is_a_setting(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="SPOTLAB_REDIS_URL") as caught, redis_errors():
        connect_redis(elsewhere(settings, password="hidden-word")).ping()
    assert "hidden-word" not in str(caught.value)


def test_no_answer_is_store_unavailable(settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"), redis_errors():
        connect_redis(elsewhere(settings, port=1)).ping()


def test_a_full_redis_refuses_by_name(redis: redis_py.Redis) -> None:
    redis.set("key", b"x" * 2_000_000)
    redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreUnavailable, match="full"), redis_errors():
            redis.set("key", b"x")
    finally:
        redis.config_set("maxmemory", "0")


def test_any_other_refusal_is_named(redis: redis_py.Redis) -> None:
    redis.set("key", "text")
    with pytest.raises(StoreUnavailable, match="refuses a command"), redis_errors():
        redis.lpush("key", 1)
