"""The folders, owners and secret files of the embedded stores, and the lock under which they are started and stopped.

Servers refuse to run as root, so as root they get an unprivileged user. Only folders made here ever change their owner
or mode: a parent that was there before is never touched, because it may protect something else.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotlab_pipelines.errors import LocalStackError

LOCK_TIMEOUT_S = 180.0
UNPRIVILEGED = ("postgres", "nobody")
OTHER_DIRECTORY = "Set SPOTLAB_DATA_DIR to another directory."


@dataclass(frozen=True)
class ServerUser:
    """The unprivileged user that servers run as when we are root."""

    name: str
    uid: int
    gid: int


def server_user(directory: Path) -> ServerUser | None:
    """As whom a server of `directory` runs: ourselves (None), or as root its owner, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return None
    if directory.exists() and directory.stat().st_uid != 0:
        owner = directory.stat()
        return ServerUser(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise LocalStackError(
        f"Postgres and Redis do not run as root, and there is no user {' or '.join(UNPRIVILEGED)} to run them.",
        remedy="Create one of them, or run as another user.",
    )


def run_as(user: ServerUser | None) -> dict[str, Any]:
    """Arguments for `subprocess` that run a program as `user`, with an environment that holds nothing of ours."""
    arguments: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        "cwd": "/",
    }
    if user is not None:
        arguments |= {"user": user.uid, "group": user.gid, "extra_groups": []}
    return arguments


def make_data_dir(directory: Path) -> None:
    """Create the data directory and its missing parents; as root, others may pass through the new ones, not list them.

    Raises:
        LocalStackError: it cannot be created or written.
    """
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                path.chmod(0o711)
        if not directory.is_dir():
            raise NotADirectoryError(20, "is not a directory")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "may not be written by this user")
    except OSError as error:
        raise LocalStackError(
            f"The data directory {directory} cannot be used: {error.strerror}.", remedy=OTHER_DIRECTORY
        ) from error


def make_server_dir(directory: Path, user: ServerUser | None) -> None:
    """Create a server's own folder, mode 0700, owned by the user that the server runs as.

    Raises:
        LocalStackError: the user cannot get there, or the folder belongs to someone else.
    """
    if user is not None:
        closed = first_closed_directory(directory.parent, user)
        if closed is not None:
            raise LocalStackError(
                f"As root, the stores run as {user.name}, who cannot enter {closed}.",
                remedy="Set SPOTLAB_DATA_DIR to a directory that every user can reach, such as one below /var/lib.",
            )
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        owner = directory.stat().st_uid
        if user is not None and owner != user.uid:
            os.chown(directory, user.uid, user.gid)
        elif user is None and owner != os.geteuid():
            raise LocalStackError(f"{directory} belongs to another user (uid {owner}).", remedy=OTHER_DIRECTORY)
        directory.chmod(0o700)
    except OSError as error:
        raise LocalStackError(f"{directory} cannot be used: {error.strerror}.", remedy=OTHER_DIRECTORY) from error


def first_closed_directory(directory: Path, user: ServerUser) -> Path | None:
    """The first directory on the way from / to `directory` that `user` cannot enter, tried out as that user."""
    way = [*reversed(directory.resolve().parents), directory.resolve()]
    script = 'for directory; do cd -- "$directory" 2>/dev/null || { printf %s "$directory"; exit 1; }; done'
    try:
        tried = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *map(str, way)],
            **run_as(user), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalStackError(
            f"This root may not start programs as {user.name} ({error}).",
            remedy="Run as an ordinary user, or set SPOTLAB_DATABASE_URL and SPOTLAB_REDIS_URL.",
        ) from error
    return Path(tried.stdout) if tried.returncode else None


def own_copy(source: Path, parts: list[Path], *, target: Path, user: ServerUser) -> None:
    """Copy the folders `parts` of `source` to the new folder `target`, for `user` alone; whole or not at all."""
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for part in parts:
        shutil.copytree(source / part, fresh / part, symlinks=True)
    for path in (fresh, *fresh.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700 | (0o700 if path.is_dir() else 0))
    fresh.rename(target)


def write_private(path: Path, text: str, user: ServerUser | None = None) -> None:
    """Write a file that only its owner may read, in one step: after a crash the old content or the new is there."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if user is not None:
        os.chown(fresh, user.uid, user.gid)
    fresh.replace(path)


def new_secret() -> str:
    """192 random bits that need no quoting in a URL or a configuration file."""
    return secrets.token_urlsafe(24)


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the lock under which stores are started and stopped; a crash of its holder releases it.

    flock, not lockf: it belongs to the open file, so that two threads of one process exclude each other as well.

    Raises:
        LocalStackError: another process keeps it for longer than any start takes.
    """
    path = data_dir / "stores.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalStackError(f"{path} cannot be opened: {error.strerror}.", remedy=OTHER_DIRECTORY) from error
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LocalStackError(
                        f"Another process has held {path} for {LOCK_TIMEOUT_S:.0f} s.",
                        remedy="End the process that is starting or stopping the stores and try again.",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        # Unlock before closing: a child that was forked meanwhile has the same open file and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
