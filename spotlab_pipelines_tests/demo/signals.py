"""Signals of the demo: which end it, and when they may not: while something is started, and while all is stopped.

Both halves of "Ctrl-C ends all it started" live here; what is ended is servers.py's and the stores'.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does; SIGHUP stays ignored if our caller says so (nohup).

    SIGINT is set as well: a shell starts background jobs with SIGINT ignored, Dagster gives SIGTERM the same treatment
    as SIGINT, and every child inherits what is ignored. Such a job could only be ended by SIGKILL.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore every ending signal: a second Ctrl-C must not leave half of it running."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def postponed() -> Iterator[None]:
    """Note an ending signal and act on it after the block: what is started inside is known before it can be ended."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {
        number: signal.signal(number, note) for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
