"""What assets work with, each the room's own object, so that a test can put such an object in its place.

None takes Dagster config: what they need is in the settings, and secrets never become part of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

import dagster as dg

from spotlab_pipelines.settings import Settings, get_settings

if TYPE_CHECKING:
    import redis as redis_client
    import sqlalchemy as sa

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive

    SettingsParam = dg.ResourceParam[Settings]
    DatabaseParam = dg.ResourceParam[sa.Engine]
    RedisParam = dg.ResourceParam[redis_client.Redis]
    ArchiveParam = dg.ResourceParam[Archive]
    SessionsParam = dg.ResourceParam[AccountSessions]
    RegistryParam = dg.ResourceParam[ModelRegistry]
else:
    # Dagster reads annotations while it loads the assets; their types would bring pandas, which loading does not need.
    SettingsParam = DatabaseParam = RedisParam = ArchiveParam = SessionsParam = RegistryParam = dg.ResourceParam[object]

_current: WeakSet[sa.Engine] = WeakSet()
"""The engines whose database is known to be at the revision of this code."""


@dg.resource
def settings(_context: dg.InitResourceContext) -> Settings:
    """The process's settings."""
    return get_settings()


@dg.resource
def database(_context: dg.InitResourceContext) -> sa.Engine:
    """The pooled engine of the domain database."""
    return _domain_database(get_settings())


@dg.resource
def redis(_context: dg.InitResourceContext) -> redis_client.Redis:
    """The cache."""
    from spotlab_pipelines.database.redis import connect_redis

    return connect_redis(get_settings())


@dg.resource
def archive(_context: dg.InitResourceContext) -> Archive:
    """The Parquet archive."""
    from spotlab_pipelines.market.archive import Archive

    return Archive(get_settings().archive_location)


@dg.resource
def account_sessions(context: dg.InitResourceContext) -> AccountSessions:
    """STS sessions into the accounts; each carries the id of the run that opened it."""
    from spotlab_pipelines.accounts.sessions import AccountSessions

    settings, run_id = get_settings(), context.run.run_id if context.run else None
    return AccountSessions.of(settings, _domain_database(settings), run_id)


@dg.resource
def model_registry(_context: dg.InitResourceContext) -> ModelRegistry:
    """The versions that may be served, and their loaded models."""
    from spotlab_pipelines.inference.registry import ModelRegistry

    return ModelRegistry(_domain_database(get_settings()), get_settings())


def _domain_database(settings: Settings) -> sa.Engine:
    """The engine of a database that this code fits, asked once a process: else one line says what to start."""
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.database.migrate import require_current

    engine = connect(settings)
    if engine not in _current:
        _current.add(require_current(settings))
    return engine


def default_resources() -> dict[str, dg.ResourceDefinition]:
    """The resources of a deployment, by the name under which assets ask for them."""
    return {
        "settings": settings,
        "database": database,
        "redis": redis,
        "archive": archive,
        "account_sessions": account_sessions,
        "model_registry": model_registry,
    }
