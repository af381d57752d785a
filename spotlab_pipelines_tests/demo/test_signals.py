"""Ctrl-C, closing the terminal and kill end the demo; not while something is started, and not while all is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from dagster._utils.interrupts import capture_interrupts

from spotlab_pipelines_tests.demo.signals import ENDING, end_on_signals, postponed, undisturbed


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever the tests' own caller ignores, as nohup does, is not ignored here."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_ending_signal_interrupts(number: signal.Signals) -> None:
    end_on_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_what_the_caller_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_on_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", ENDING)
def test_nothing_disturbs_the_stopping(number: signal.Signals) -> None:
    end_on_signals()
    with undisturbed():
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_what_is_being_started_is_finished_first(number: signal.Signals) -> None:
    end_on_signals()
    started = []

    def start() -> None:
        with postponed():
            os.kill(os.getpid(), number)
            started.append("a server")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert started


def test_a_background_job_of_a_shell_can_be_ended_after_a_run_of_dagster() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_on_signals()
    with capture_interrupts():  # as every run does
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
