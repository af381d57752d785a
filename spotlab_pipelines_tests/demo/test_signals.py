"""Ctrl-C, closing the terminal and kill end the demo; not while something is started, and not while all is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from spotlab_pipelines_tests.demo.signals import ENDING, postponed, treat_as_interrupt, undisturbed


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_ending_signal_interrupts(number: signal.Signals) -> None:
    treat_as_interrupt(signal.SIGTERM, signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_what_the_caller_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    treat_as_interrupt(signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("number", ENDING)
def test_nothing_disturbs_the_stopping(number: signal.Signals) -> None:
    treat_as_interrupt(signal.SIGTERM, signal.SIGHUP)
    with undisturbed():
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_what_is_being_started_is_finished_first(number: signal.Signals) -> None:
    treat_as_interrupt(signal.SIGTERM, signal.SIGHUP)
    started = []

    def start() -> None:
        with postponed():
            os.kill(os.getpid(), number)
            started.append("a server")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert started
