"""Real servers without an install: started once, shared, recovered after a kill -9, stopped alone."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis as redis_py

from spotlab_pipelines.errors import LocalStackError, SettingsError
from spotlab_pipelines.local import StoreUrls, down, status, store_urls, up
from spotlab_pipelines.local.processes import gone, processes_in, wait_until
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.conftest import FAST_POSTGRES, environment_of

MakeSettings = Callable[..., Settings]


def pids(settings: Settings) -> dict[str, int | None]:
    return {store.name: store.pid for store in status(settings)}


def kill_9(*servers: int | None) -> None:
    processes = [psutil.Process(pid) for pid in servers]
    for process in processes:
        process.kill()
    assert wait_until(lambda: all(map(gone, processes)), 10.0)


def server_version(urls: StoreUrls) -> int:
    with psycopg.connect(urls.database("postgres").get_secret_value()) as connection:
        return connection.info.server_version // 10000


def check_both_answer(urls: StoreUrls) -> None:
    assert server_version(urls) >= 15
    client = redis_py.Redis.from_url(urls.redis.get_secret_value())
    assert client.ping()
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.close()


def machine_has_postgres() -> bool:
    from spotlab_pipelines.local.binaries import postgres_programs

    return any(found.source == "machine" for found in postgres_programs(Settings()))


@pytest.mark.parametrize("binaries", ["machine-first", "wheels"])
def test_starts_once_answers_and_stops(binaries: str, local_settings: MakeSettings, path_with_redis: Path) -> None:
    settings = local_settings(local_binaries=binaries)
    first = up(settings, postgres_options=FAST_POSTGRES)
    assert first.started == ("postgres", "redis")
    check_both_answer(first.urls)
    assert up(settings).started == ()
    assert store_urls(settings) == first.urls
    programs = {store.name: Path(psutil.Process(store.pid).exe()) for store in status(settings) if store.pid}
    # Where the stores' user cannot go, such as root's home, a wheel's programs are copied.
    wheels = ("site-packages", str(settings.data_dir / "programs"))
    from_wheel = {name: any(each in str(program) for each in wheels) for name, program in programs.items()}
    expected = binaries == "wheels"
    assert from_wheel["redis"] is expected
    if machine_has_postgres():
        assert from_wheel["postgres"] is expected
    servers = [psutil.Process(pid) for pid in pids(settings).values()]
    assert down(settings) == ("postgres", "redis")
    assert not any(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers)
    assert [store.state for store in status(settings)] == ["stopped", "stopped"]
    assert down(settings) == ()


def test_servers_are_private_and_their_own_masters(local_settings: MakeSettings) -> None:
    settings = local_settings()
    before = settings.data_dir.parent.stat().st_mode
    urls = up(settings, postgres_options=FAST_POSTGRES).urls
    assert settings.data_dir.parent.stat().st_mode == before
    password = urls.redis.get_secret_value().split(":")[2].split("@")[0]
    for store in status(settings):
        process = psutil.Process(store.pid)
        assert os.geteuid() != 0 or process.uids().effective != 0
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert password not in " ".join(process.cmdline())
        assert {connection.laddr.ip for connection in process.net_connections()} == {"127.0.0.1"}
        assert stat.S_IMODE((settings.data_dir / store.name).stat().st_mode) == 0o700
        assert not [file for file in process.open_files() if file.path.startswith(str(Path.cwd()))]
    for secret in ("postgres/password", "redis/redis.conf"):
        assert stat.S_IMODE((settings.data_dir / secret).stat().st_mode) == 0o600
    assert "**" in repr(urls)
    assert password not in repr(urls)


def test_postgres_asks_for_the_password(local_settings: MakeSettings) -> None:
    url = up(local_settings(), postgres_options=FAST_POSTGRES).urls.database("postgres").get_secret_value()
    wrong = url.replace(url.split(":")[2].split("@")[0], "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_data_survives_kill_9_of_both_servers(local_settings: MakeSettings) -> None:
    settings = local_settings()
    url = store_urls(settings).database("postgres").get_secret_value()
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 1 as n")
    sleeper = psycopg.connect(url)
    before = pids(settings)
    kill_9(*before.values())
    recovered = up(settings)
    assert recovered.started == ("postgres", "redis")
    assert recovered.urls.database("postgres").get_secret_value() == url, "the free port is used again"
    assert set(pids(settings).values()).isdisjoint(before.values())
    with psycopg.connect(recovered.urls.database("postgres").get_secret_value()) as connection:
        assert connection.execute("select n from kept").fetchone() == (1,)
    check_both_answer(recovered.urls)
    sleeper.close()


def test_a_backend_that_outlives_the_killed_postmaster_is_ended(local_settings: MakeSettings) -> None:
    settings = local_settings()
    with psycopg.connect(store_urls(settings).database("postgres").get_secret_value()) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # busy: it will not notice that the postmaster is gone
        kill_9(pids(settings)["postgres"])
        check_both_answer(store_urls(settings))
        left = processes_in(settings.data_dir / "postgres" / "data", name="postgres")
        assert backend not in [process.pid for process in left]


def test_down_ends_what_a_killed_postmaster_left(local_settings: MakeSettings) -> None:
    settings = local_settings()
    with psycopg.connect(store_urls(settings).database("postgres").get_secret_value()) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()  # busy: it will not notice that the postmaster is gone
        kill_9(pids(settings)["postgres"])
        assert not gone(backend)
        assert down(settings) == ("postgres", "redis")
        assert gone(backend)
        assert processes_in(settings.data_dir / "postgres" / "data", name="postgres") == []
    assert down(settings) == ()


def test_down_ends_a_redis_whose_pid_file_is_lost(local_settings: MakeSettings) -> None:
    settings, other = local_settings(), local_settings()
    store_urls(settings)
    store_urls(other)
    server = psutil.Process(pids(settings)["redis"])
    (settings.data_dir / "redis" / "redis.pid").unlink()
    assert "redis" in down(settings)
    assert gone(server)
    check_both_answer(store_urls(other))


def test_a_pid_that_belongs_to_someone_else_by_now_is_left_alone(local_settings: MakeSettings) -> None:
    settings = local_settings()
    store_urls(settings)
    old = pids(settings)
    kill_9(*old.values())
    other = local_settings()
    up(other, postgres_options=FAST_POSTGRES)
    for file, name in (("postgres/data/postmaster.pid", "postgres"), ("redis/redis.pid", "redis")):
        path = settings.data_dir / file
        path.write_text(path.read_text().replace(str(old[name]), str(pids(other)[name]), 1))
    assert [store.state for store in status(settings)] == ["stopped", "stopped"]
    assert down(settings) == ()
    check_both_answer(store_urls(settings))
    check_both_answer(store_urls(other))
    assert up(other).started == ()


STARTER = "from spotlab_pipelines.local import up; from spotlab_pipelines.settings import get_settings as s; "


def test_many_processes_that_start_at_once_share_one_server(local_settings: MakeSettings) -> None:
    settings = local_settings()
    code = STARTER + "print(','.join(up(s()).started))"
    starters = [
        subprocess.Popen([sys.executable, "-c", code], env=environment_of(settings), stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = sorted(starter.communicate(timeout=120)[0].strip() for starter in starters)
    assert said == ["", "", "", "postgres,redis"]
    assert len(processes_in(settings.data_dir / "redis", name="redis-server")) == 1
    check_both_answer(store_urls(settings))


def test_kill_9_of_whoever_starts_leaves_nothing_that_blocks(local_settings: MakeSettings) -> None:
    settings = local_settings()
    code = STARTER + "up(s())"
    for patience_s in (0.6, 0.9, 1.2):
        starter = subprocess.Popen([sys.executable, "-c", code], env=environment_of(settings))
        time.sleep(patience_s)
        starter.kill()
        starter.wait()
    check_both_answer(store_urls(settings))


def test_ctrl_c_of_the_starter_does_not_stop_them_and_no_pipe_is_held(local_settings: MakeSettings) -> None:
    settings = local_settings()
    code = STARTER + "up(s()); import os, signal, time; os.killpg(0, signal.SIGINT); time.sleep(60)"
    # communicate() returns only when every copy of the pipe's end is closed: a server that kept one would hang this.
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment_of(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    starter.communicate(timeout=60)
    assert starter.returncode != 0
    assert up(settings).started == ()


def test_a_taken_port_is_exchanged(local_settings: MakeSettings) -> None:
    settings = local_settings()
    store_urls(settings)
    ports = [int((settings.data_dir / name / "port").read_text()) for name in ("postgres", "redis")]
    down(settings)
    squatters = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        check_both_answer(store_urls(settings))
        assert not {int((settings.data_dir / name / "port").read_text()) for name in ("postgres", "redis")} & {*ports}
    finally:
        for squatter in squatters:
            squatter.close()


def test_down_stops_only_what_it_is_asked_to(local_settings: MakeSettings) -> None:
    one, other = local_settings(), local_settings()
    store_urls(one)
    store_urls(other)
    assert down(one, only=("redis",)) == ("redis",)
    assert [store.state for store in status(one)] == ["running", "stopped"]
    assert up(one).started == ("redis",)
    down(one)
    check_both_answer(store_urls(other))


def test_a_configured_store_is_not_started(local_settings: MakeSettings, stores: StoreUrls) -> None:
    settings = local_settings(
        database_url=stores.postgres.get_secret_value().replace("postgresql:", "postgres:"), redis_url=stores.redis
    )
    found = up(settings)
    assert (found.urls, found.started) == (stores, ())
    assert [store.state for store in status(settings)] == ["configured", "configured"]
    assert down(settings) == ()
    assert not settings.data_dir.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"database_url": "mysql://me:hidden-word@host/db"}, "SPOTLAB_DATABASE_URL"),
        ({"database_url": "postgresql://me:hidden-word@host"}, "SPOTLAB_DATABASE_URL"),
        ({"database_url": "postgresql://me:hidden-word@host:port/db"}, "SPOTLAB_DATABASE_URL"),
        ({"redis_url": "hidden-word"}, "SPOTLAB_REDIS_URL"),
    ],
)
def test_a_wrong_url_is_named_but_not_quoted(changes: dict[str, str], named: str, local_settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        status(local_settings(**changes))
    assert "hidden-word" not in str(caught.value)


def test_a_database_url_keeps_its_parameters(local_settings: MakeSettings, stores: StoreUrls) -> None:
    settings = local_settings(
        database_url="postgresql+psycopg://me:a%2Fb@host:1/db?sslmode=require", redis_url=stores.redis
    )
    urls = store_urls(settings)
    assert urls.database("my/db").get_secret_value() == "postgresql://me:a%2Fb@host:1/my%2Fdb?sslmode=require"


def test_a_data_directory_that_is_a_file(local_settings: MakeSettings) -> None:
    settings = local_settings()
    settings.data_dir.write_text("")
    with pytest.raises(LocalStackError, match=rf"{settings.data_dir} cannot be used.*SPOTLAB_DATA_DIR"):
        up(settings)
