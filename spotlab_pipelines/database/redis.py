"""The connection to Redis. Its keys and lifetimes are `market/cache.py`'s; nothing of the record is kept in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, OutOfMemoryError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from spotlab_pipelines.errors import SettingsError, StoreUnavailable
from spotlab_pipelines.local import store_urls
from spotlab_pipelines.settings import Settings

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 20.0
HEALTH_CHECK_INTERVAL_S = 30

_clients: dict[tuple[int, str], redis.Redis] = {}


def connect_redis(settings: Settings) -> redis.Redis:
    """The process's client (bytes in, bytes out), with time-outs, a health check and two retries of a lost connection.

    It connects when it is used; wrap its calls in `redis_errors()`.

    Raises:
        LocalStackError: the embedded Redis cannot start.
        SettingsError: the configured URL is not one of Redis.
    """
    url = store_urls(settings).redis.get_secret_value()
    key = (os.getpid(), url)
    if key not in _clients:
        try:
            _clients[key] = redis.Redis.from_url(
                url,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=ANSWER_TIMEOUT_S,
                health_check_interval=HEALTH_CHECK_INTERVAL_S,
                retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
                client_name="spotlab",
            )
        except ValueError:
            raise SettingsError(
                "SPOTLAB_REDIS_URL cannot be read as a URL of Redis.", remedy="Expected redis://:password@host:6379/0."
            ) from None
    return _clients[key]


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what redis-py raises into our tree.

    Raises:
        StoreUnavailable: Redis does not answer, is loading, or has no memory left and refuses to write.
        SettingsError: it refuses the password or the user.
    """
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise SettingsError(
            f"Redis refuses us: {error}.", remedy="Check user and password in SPOTLAB_REDIS_URL."
        ) from error
    except OutOfMemoryError as error:
        raise StoreUnavailable(
            "Redis is full and refuses to write.", remedy="Give it more memory (maxmemory); evicting would lose data."
        ) from error
    except (RedisConnectionError, RedisTimeout) as error:
        raise StoreUnavailable(
            f"Redis does not answer: {error}.",
            remedy="Start it (`spotlab up`) or check SPOTLAB_REDIS_URL; `spotlab doctor` tells more.",
        ) from error
    except RedisError as error:
        raise StoreUnavailable(f"Redis refuses a command: {error}.", remedy="`spotlab doctor` tells more.") from error
