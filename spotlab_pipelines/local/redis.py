"""The embedded Redis: a cache and a bus without persistence, started when it is not running and found again later.

Its folder holds `redis.conf` (0600: it carries the password), `port`, `redis.pid` and `server.log`. It listens on
127.0.0.1 only. Losing it loses nothing. The callers of `start` and `stop` hold the stores' lock.
"""

from __future__ import annotations

import socket
import subprocess
from signal import SIGTERM

import psutil
from pydantic import SecretStr

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local.binaries import choose_redis, reachable_by
from spotlab_pipelines.local.directories import (
    OTHER_DIRECTORY,
    ServerUser,
    make_server_dir,
    new_secret,
    run_as,
    server_user,
    write_private,
)
from spotlab_pipelines.local.processes import (
    Running,
    answers,
    end,
    log_tail,
    processes_in,
    read_number,
    server_process,
    usable_port,
    wait_until,
)
from spotlab_pipelines.settings import Settings

START_TIMEOUT_S = 20.0
PORT_ATTEMPTS = 3


class EmbeddedRedis:
    """The Redis of one data directory."""

    name = "redis"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = settings.data_dir.absolute() / "redis"
        self.log = self.directory / "server.log"

    def running(self) -> Running | None:
        """The server, if it is up and accepts connections."""
        process, port = self._process(), read_number(self.directory / "port")
        return Running(process.pid, port) if process is not None and port is not None and answers(port) else None

    def url(self, running: Running) -> SecretStr:
        """The URL of database 0, with the password."""
        return SecretStr(f"redis://:{self._password()}@127.0.0.1:{running.port}/0")

    def start(self) -> Running:
        """Start the server, after clearing up what a kill -9 left behind.

        Raises:
            LocalStackError: directory, owner or program do not allow it; the log's end is quoted.
        """
        user = server_user(self.directory)
        make_server_dir(self.directory, user)
        programs = choose_redis(self.settings, user)
        programs = reachable_by(user, programs, copies=self.directory.parent / "programs")
        self._end_all()
        for _ in range(PORT_ATTEMPTS):
            password, port = new_secret(), usable_port(read_number(self.directory / "port"))
            self._configure(password, port, user)
            try:
                subprocess.run(
                    [programs.directory / "redis-server", self.directory / "redis.conf"],
                    **run_as(user), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False,
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError) as error:
                raise LocalStackError(f"Redis {programs} cannot be run: {error}.", remedy=OTHER_DIRECTORY) from error
            if wait_until(lambda port=port, password=password: _pings(port, password), START_TIMEOUT_S):
                running = self.running()
                if running is not None:
                    return running
            if "Address already in use" not in log_tail(self.log, 10):
                break
        raise LocalStackError(
            f"Redis {programs} does not start: {log_tail(self.log)}.", remedy=f"The whole log is {self.log}."
        )

    def stop(self) -> bool:
        """Stop the server, also one whose pid file is lost; False if none ran."""
        process = self._process()
        if process is not None:
            end(process, signals=((SIGTERM, 10.0),))
        return self._end_all() or process is not None

    def _end_all(self) -> bool:
        """End every server that works in our folder: its pid file may be lost, or its start cut short."""
        servers = processes_in(self.directory, name="redis-server")
        for server in servers:
            end(server, signals=((SIGTERM, 5.0),))
        return bool(servers)

    def _process(self) -> psutil.Process | None:
        pid = read_number(self.directory / "redis.pid")
        return server_process(pid, name="redis-server", directory=self.directory)

    def _password(self) -> str:
        for line in (self.directory / "redis.conf").read_text().splitlines():
            if line.startswith("requirepass "):
                return line.removeprefix("requirepass ")
        raise LocalStackError(
            f"{self.directory / 'redis.conf'} has no password.", remedy="Run `spotlab down` and `spotlab up`."
        )

    def _configure(self, password: str, port: int, user: ServerUser | None) -> None:
        (self.directory / "redis.pid").unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        configuration = (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            'save ""',
            "appendonly no",
            "maxmemory-policy noeviction",
            "daemonize yes",
            f'dir "{self.directory}"',
            f'pidfile "{self.directory / "redis.pid"}"',
            f'logfile "{self.log}"',
        )
        write_private(self.directory / "redis.conf", "\n".join(configuration) + "\n", user)
        write_private(self.directory / "port", f"{port}\n")


def _pings(port: int, password: str) -> bool:
    """Whether a Redis that knows this password answers on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):
                answer += part
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
