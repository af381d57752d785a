"""Finding and ending the server processes of one data directory, and never anyone else's.

A process is ours if it works in our folder (both servers change into theirs); a pid alone proves nothing, because
after a kill -9 it may belong to somebody else by now. Zombies count as gone: in a container nobody may reap them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals

import psutil

from spotlab_pipelines.errors import LocalStackError

POLL_S = 0.02


@dataclass(frozen=True)
class Running:
    """A server that answers on 127.0.0.1."""

    pid: int
    port: int


def server_process(pid: int | None, *, name: str, directory: Path) -> psutil.Process | None:
    """The live process `pid` if it is called `name…` and works in `directory`, else None."""
    if pid is None or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and process.name().startswith(name) and _works_in(process, directory) else None
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise LocalStackError(
            f"Process {pid}, which {directory} names, belongs to another user.",
            remedy="Work as the user who started the stores, or set SPOTLAB_DATA_DIR to another directory.",
        ) from error


def processes_in(directory: Path, *, name: str) -> list[psutil.Process]:
    """Every live process called `name…` that works in `directory`: also those that outlived their killed parent."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        try:
            named = (process.info["name"] or "").startswith(name) and process.info["status"] != psutil.STATUS_ZOMBIE
            if named and _works_in(process, directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(process: psutil.Process, *, signals: tuple[tuple[Signals, float], ...]) -> None:
    """Send the signals one after the other, each with the seconds it gets to take effect, then SIGKILL.

    Raises:
        LocalStackError: it is still there.
    """
    for signal, patience_s in (*signals, (SIGKILL, 10.0)):
        try:
            process.send_signal(signal)
        except psutil.NoSuchProcess:
            return
        if wait_until(lambda: gone(process), patience_s):
            return
    raise LocalStackError(f"Process {process.pid} does not end, not even by SIGKILL.", remedy="Look at it with ps.")


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Poll until the condition holds; False if it does not within `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def usable_port(preferred: int | None) -> int:
    """`preferred` if it is free on 127.0.0.1, else a free one."""
    for port in (preferred or 0, 0):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return candidate.getsockname()[1]
    raise LocalStackError("No TCP port is free on 127.0.0.1.", remedy="Check the machine's network set-up.")


def answers(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def read_number(path: Path) -> int | None:
    """The number in a file's first line, or None if there is none: servers remove and rewrite such files any time."""
    try:
        return int(path.read_text().splitlines()[0])
    except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
        return None
    except PermissionError as error:
        raise LocalStackError(
            f"{path} belongs to another user.", remedy="Set SPOTLAB_DATA_DIR to another directory."
        ) from error


def log_tail(path: Path, lines: int = 3) -> str:
    """The last lines of a server's log, in one line."""
    try:
        kept = path.read_text(errors="replace").strip().splitlines()[-lines:]
    except OSError:
        kept = []
    return " / ".join(line.strip() for line in kept) or "its log is empty"


def _works_in(process: psutil.Process, directory: Path) -> bool:
    return Path(process.cwd()) == directory.resolve()
