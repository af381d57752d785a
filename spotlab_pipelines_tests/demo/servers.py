"""The servers of `make dev`: Dagster and MLflow, started on free ports only, and ended together.

Each server is the leader of a process group of its own, so that Ctrl-C in the terminal reaches the runner alone, which
then ends exactly what it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.demo.signals import postponed

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0


def require_free(port: int, *, setting: str, what: str) -> None:
    """Raise LocalStackError if something already listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise LocalStackError(
                f"Port {port}, meant for {what}, is taken.", remedy=f"Free it, or set {setting} to another port."
            ) from None


@dataclass
class Servers:
    """The processes that this runner has started."""

    log_dir: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: list[str], *, url: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a server and wait until it answers; see `await_answer`."""
        self.launch(name, command, environment=environment)
        self.await_answer(name, url)

    def launch(self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a server."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("ab") as output, postponed():
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=PROJECT_ROOT,
                start_new_session=True,
            )

    def await_answer(self, name: str, url: str) -> None:
        """Wait until a server that was launched answers.

        Raises:
            LocalStackError: it ends, or does not answer in time; the message names its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.processes[name].poll() is not None:
                raise LocalStackError(f"{name} ended as it started.", remedy=f"Its log says why: {self._log(name)}")
            if answers(url):
                return
            time.sleep(0.2)
        raise LocalStackError(f"{name} does not answer at {url}.", remedy=f"Its log: {self._log(name)}")

    def _log(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def wait(self) -> str:
        """Block until one of the servers ends by itself; return its name."""
        while True:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    return name
            time.sleep(0.5)

    def stop(self) -> None:
        """End every process group that was started here, the youngest first, and whoever left his group."""
        descendants = [child for process in self.processes.values() for child in _children(process)]
        for process in reversed(self.processes.values()):
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _signal_group(process, signal.SIGKILL)
        for left in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def answers(url: str) -> bool:
    """Whether an HTTP server answers at all."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  the URL is ours
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def dagster_command(settings: Settings) -> list[str]:
    """Webserver, daemon and code location, as `dagster dev` starts them."""
    return [
        str(Path(sys.executable).with_name("dagster")),
        "dev",
        "--workspace",
        str(PROJECT_ROOT / "workspace.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.dagster_port),
    ]


def mlflow_command(settings: Settings) -> list[str]:
    """MLflow's UI; the database's URL travels in the environment, where no process list shows it."""
    return [
        str(Path(sys.executable).with_name("mlflow")),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.mlflow_port),
        "--workers",
        "1",
        "--allowed-hosts",
        f"localhost:{settings.mlflow_port},127.0.0.1:{settings.mlflow_port}",
    ]


def server_environment(settings: Settings) -> dict[str, str]:
    """The environment of the servers: ours, where Dagster finds itself, and what keeps MLflow small and quiet."""
    from spotlab_pipelines.database.engine import database_url

    return {
        **os.environ,
        "DAGSTER_HOME": str(PROJECT_ROOT),
        # dagster.yaml turns telemetry off; without this, its folders are made in DAGSTER_HOME all the same.
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "MLFLOW_BACKEND_STORE_URI": database_url(settings, "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes below it. psutil knows them by pid and start time, so that none is mistaken for another later."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
