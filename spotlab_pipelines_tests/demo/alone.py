"""One demo at a time on a data directory: two would register the same accounts and stop each other's stores."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local.directories import OTHER_DIRECTORY, make_data_dir


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this demo; a crash of its holder gives it back.

    Raises:
        LocalStackError: another demo has it, or it cannot be written.
    """
    make_data_dir(data_dir)
    path = data_dir / "demo.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalStackError(f"{path} cannot be opened: {error.strerror}.", remedy=OTHER_DIRECTORY) from error
    try:
        _take(descriptor, data_dir)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode() or "just begun"
        raise LocalStackError(
            f"Another `make demo` or `make dev` is running on {data_dir} (process {holder}).",
            remedy="Wait for its end, or set SPOTLAB_DATA_DIR to another directory.",
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
