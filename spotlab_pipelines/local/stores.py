"""Where Postgres and Redis are: the configured URLs, else the embedded servers of the data directory, started here.

Every process of the stack asks `store_urls`; the first one starts the servers under a lock, the others find them. They
outlive whoever started them, until `down`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr

from spotlab_pipelines.errors import SettingsError
from spotlab_pipelines.local.directories import exclusive, make_data_dir
from spotlab_pipelines.local.postgres import EmbeddedPostgres
from spotlab_pipelines.local.redis import EmbeddedRedis
from spotlab_pipelines.settings import Settings

STORES = ("postgres", "redis")


@dataclass(frozen=True)
class StoreUrls:
    """URLs with passwords: `postgres` names the domain database, `redis` a numbered database."""

    postgres: SecretStr
    redis: SecretStr

    def database(self, name: str) -> SecretStr:
        """The URL of another database on the same Postgres."""
        parts = urlsplit(self.postgres.get_secret_value())
        return SecretStr(urlunsplit(parts._replace(path=f"/{quote(name, safe='')}")))


@dataclass(frozen=True)
class Started:
    """What `up` found, and which of the stores this very call started: only those may its caller stop again."""

    urls: StoreUrls
    started: tuple[str, ...]


@dataclass(frozen=True)
class StoreStatus:
    """One store: `state` is configured (a server of yours), running or stopped; `address` carries no password."""

    name: str
    state: str
    address: str | None = None
    pid: int | None = None


def store_urls(settings: Settings) -> StoreUrls:
    """The URLs of both stores; embedded ones are started if they are not up.

    Raises:
        LocalStackError: an embedded store cannot start.
        SettingsError: a configured URL is not one of a Postgres or a Redis.
    """
    return up(settings).urls


def up(settings: Settings, *, postgres_options: Sequence[str] = ()) -> Started:
    """Make sure that both stores are up; see `store_urls`.

    Args:
        postgres_options: `name=value` server settings for a throw-away Postgres of the tests.
    """
    servers = {server.name: server for server in _embedded(settings, postgres_options)}
    urls = _configured(settings)
    # Without the lock first: whoever finds both stores running has nothing to wait for.
    found = {name: running for name, server in servers.items() if (running := server.running()) is not None}
    started: list[str] = []
    if len(found) < len(servers):
        make_data_dir(settings.data_dir)
        with exclusive(settings.data_dir):
            for name, server in servers.items():
                running = server.running()
                if running is None:
                    running = server.start()
                    started.append(name)
                found[name] = running
    urls |= {name: servers[name].url(running) for name, running in found.items()}
    return Started(StoreUrls(urls["postgres"], urls["redis"]), tuple(started))


def down(settings: Settings, *, only: Collection[str] = STORES) -> tuple[str, ...]:
    """Stop the embedded stores of this data directory, and no others; return the names of those that were running."""
    servers = [server for server in _embedded(settings) if server.name in only]
    if not servers or not settings.data_dir.is_dir():
        return ()
    with exclusive(settings.data_dir):
        return tuple(server.name for server in servers if server.stop())


def status(settings: Settings) -> list[StoreStatus]:
    """Both stores as they are now; nothing is started."""
    configured = _configured(settings)
    embedded = {server.name: server for server in _embedded(settings)}
    return [
        _embedded_status(embedded[name])
        if name in embedded
        else StoreStatus(name, "configured", address_of(configured[name]))
        for name in STORES
    ]


def address_of(url: SecretStr) -> str:
    """Host, port and database of a URL: what may be shown."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.hostname}:{parts.port}{parts.path}" if parts.port else f"{parts.hostname}{parts.path}"


def _embedded_status(server: EmbeddedPostgres | EmbeddedRedis) -> StoreStatus:
    running = server.running()
    if running is None:
        return StoreStatus(server.name, "stopped")
    return StoreStatus(server.name, "running", f"127.0.0.1:{running.port}", running.pid)


def _embedded(settings: Settings, postgres_options: Sequence[str] = ()) -> list[EmbeddedPostgres | EmbeddedRedis]:
    servers: list[EmbeddedPostgres | EmbeddedRedis] = []
    if settings.database_url is None:
        servers.append(EmbeddedPostgres(settings, postgres_options))
    if settings.redis_url is None:
        servers.append(EmbeddedRedis(settings))
    return servers


def _configured(settings: Settings) -> dict[str, SecretStr]:
    urls: dict[str, SecretStr] = {}
    if settings.database_url is not None:
        urls["postgres"] = _checked(
            settings.database_url,
            name="SPOTLAB_DATABASE_URL",
            schemes=("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"),
            example="postgresql://user:password@host:5432/spotlab",
        )
    if settings.redis_url is not None:
        urls["redis"] = _checked(
            settings.redis_url,
            name="SPOTLAB_REDIS_URL",
            schemes=("redis", "rediss"),
            example="redis://:password@host:6379/0",
        )
    return urls


def _checked(url: SecretStr, *, name: str, schemes: tuple[str, ...], example: str) -> SecretStr:
    """The URL with its scheme reduced to the plain one, `postgresql` or `redis(s)`.

    Raises:
        SettingsError: it does not look like `example`; the message never quotes the value.
    """
    try:
        parts = urlsplit(url.get_secret_value())
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        usable = usable and (schemes[0] == "redis" or len(parts.path) > 1)
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise SettingsError(
            f"{name} is not a URL such as {example}.", remedy="Correct it, or unset it to use the embedded store."
        )
    scheme = "postgresql" if parts.scheme.startswith("postgres") else parts.scheme
    return SecretStr(urlunsplit(parts._replace(scheme=scheme)))
