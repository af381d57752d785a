"""The embedded Postgres: initialised once, started when it is not running, found again by whoever comes later.

Its folder holds `data` (PGDATA), `password`, `port` and `server.log`. It listens on 127.0.0.1 only, asks everybody for
the password (scram-sha-256) and has no Unix socket. The callers of `start` and `stop` hold the stores' lock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from signal import SIGINT, SIGQUIT

import psutil
from pydantic import SecretStr

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local.binaries import Programs, choose_postgres, reachable_by
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

SUPERUSER = "spotlab"
DOMAIN_DATABASE = "spotlab"
START_TIMEOUT_S = 120
PORT_ATTEMPTS = 3
SERVER_OPTIONS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "password_encryption=scram-sha-256",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
)
HOST_RULES = "host all all 127.0.0.1/32 scram-sha-256\n"


class EmbeddedPostgres:
    """The Postgres of one data directory; `options` (name=value) are for tests, which can do without fsync."""

    name = "postgres"

    def __init__(self, settings: Settings, options: Sequence[str] = ()) -> None:
        self.settings = settings
        self.directory = settings.data_dir.absolute() / "postgres"
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.options = (*SERVER_OPTIONS, *options)

    def running(self) -> Running | None:
        """The server, if it is up and ready for connections."""
        process = self._process()
        if process is None:
            return None
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready" or not answers(int(lines[3])):
            return None
        return Running(process.pid, int(lines[3]))

    def url(self, running: Running) -> SecretStr:
        """The URL of the domain database, with the password."""
        return SecretStr(f"postgresql://{SUPERUSER}:{self._password()}@127.0.0.1:{running.port}/{DOMAIN_DATABASE}")

    def start(self) -> Running:
        """Start the server, after initialising its data directory the first time and clearing up after a kill -9.

        Raises:
            LocalStackError: directory, owner, programs or configuration do not allow it; the log's end is quoted.
        """
        user = server_user(self.directory)
        make_server_dir(self.directory, user)
        if self._process() is not None:
            # Another process started it and was killed before it became ready.
            wait_until(lambda: self.running() is not None or self._process() is None, START_TIMEOUT_S)
            if (running := self.running()) is not None:
                return running
        copies = self.directory.parent / "programs"
        programs = choose_postgres(self.settings, self.data, user)
        programs = reachable_by(user, programs, copies=copies)
        if not (self.data / "PG_VERSION").exists():
            self._initialise(programs, user)
        self._clear_up()
        for _ in range(PORT_ATTEMPTS):
            if self._launch(programs, user) and (running := self.running()) is not None:
                return running
            if "Address already in use" not in log_tail(self.log, 10):
                break
        raise LocalStackError(
            f"Postgres {programs} does not start: {log_tail(self.log, 5)}.",
            remedy=f"The whole log is {self.log}.",
        )

    def stop(self) -> bool:
        """Stop the server (fast: sessions are ended, data is written) and what a killed one left; False if none ran."""
        process = self._process()
        if process is not None:
            end(process, signals=((SIGINT, 30.0), (SIGQUIT, 5.0)))
        return self._end_orphans() or process is not None

    def _process(self) -> psutil.Process | None:
        pid = read_number(self.data / "postmaster.pid")
        return server_process(pid, name="postgres", directory=self.data)

    def _password(self) -> str:
        try:
            return (self.directory / "password").read_text().strip()
        except OSError as error:
            raise LocalStackError(
                f"The password file of the embedded Postgres, {self.directory / 'password'}, cannot be read: "
                f"{error.strerror}.",
                remedy=f"Restore it; or, if the data may be lost, remove {self.directory}.",
            ) from error

    def _initialise(self, programs: Programs, user: ServerUser | None) -> None:
        """initdb beside the final place and renamed at the end, so that a half-made data directory is never used."""
        fresh, password_file = self.directory / "data.new", self.directory / "password.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = new_secret()
        write_private(password_file, password, user)
        command = [
            programs.directory / "initdb", "-D", fresh, "-U", SUPERUSER, "--pwfile", password_file,
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, **run_as(user), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=START_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalStackError(f"initdb of {programs} cannot be run: {error}.", remedy=OTHER_DIRECTORY) from error
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode:
            raise LocalStackError(
                f"initdb of {programs} failed: {' / '.join(done.stdout.strip().splitlines()[-3:])}.",
                remedy=f"Make room or choose another directory than {self.settings.data_dir} (SPOTLAB_DATA_DIR).",
            )
        write_private(fresh / "pg_hba.conf", HOST_RULES, user)
        write_private(self.directory / "password", password)
        fresh.rename(self.data)

    def _clear_up(self) -> None:
        """After a kill -9 of the postmaster: end what it left behind, which would keep the shared memory in use."""
        self._end_orphans()
        # No process works in this directory, so whatever pid the file names has been given to somebody else.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _end_orphans(self) -> bool:
        """End every Postgres process that still works in our data: a busy one outlives its postmaster for long."""
        orphans = processes_in(self.data, name="postgres")
        for orphan in orphans:
            end(orphan, signals=((SIGQUIT, 5.0),))
        return bool(orphans)

    def _launch(self, programs: Programs, user: ServerUser | None) -> bool:
        port = usable_port(read_number(self.directory / "port"))
        write_private(self.directory / "port", f"{port}\n")
        options = " ".join(f"-c {option}" for option in (*self.options, f"port={port}"))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # pg_ctl gives the server a session of its own; it inherits the log and nothing else from us.
            done = subprocess.run(
                [programs.directory / "pg_ctl", "start", "-s", "-w", "-t", str(START_TIMEOUT_S), "-D", self.data,
                 "-o", options],
                **run_as(user), stdout=descriptor, stderr=descriptor, timeout=START_TIMEOUT_S + 10, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalStackError(f"pg_ctl of {programs} cannot be run: {error}.", remedy=OTHER_DIRECTORY) from error
        finally:
            os.close(descriptor)
        return done.returncode == 0
