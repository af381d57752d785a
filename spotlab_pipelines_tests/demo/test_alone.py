"""Two demos on one data directory: the second says so and leaves the first alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spotlab_pipelines_tests.demo.__main__ import main
from spotlab_pipelines_tests.demo.alone import alone

HOLD = """
import sys, pathlib
from spotlab_pipelines_tests.demo.alone import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_demo_is_one_line_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spotlab_pipelines.settings import get_settings
    from spotlab_pipelines_tests.demo import signals

    monkeypatch.setenv("SPOTLAB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(signals, "end_on_signals", lambda: None)
    get_settings.cache_clear()
    with alone(tmp_path / "data"):
        assert main([]) == 1
    get_settings.cache_clear()
    answer = capsys.readouterr()
    (line,) = answer.err.splitlines()
    assert line.startswith("make demo: Another ")
    assert f"process {os.getpid()}" in line
    assert "SPOTLAB_DATA_DIR" in line
    assert answer.out == ""
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["demo.lock"]


def test_a_demo_that_was_killed_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with alone(tmp_path):
        pass
