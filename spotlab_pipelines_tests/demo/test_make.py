"""`make` on a machine that lacks something: one line that says what, before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh clone, as far as make looks at it."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    return tmp_path


def python(folder: Path, script: str) -> Path:
    """A program that pretends to be some Python."""
    program = folder / "some-python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def complaint(checkout: Path, program: str | Path) -> str:
    """What `make demo` with this Python says, without make's own last line."""
    # Not as a part of the make that runs the tests, whose variables would get through.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    answer = subprocess.run(
        ["make", "demo", f"PYTHON={program}"],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode != 0
    assert "Installing" not in answer.stdout
    (line,) = [line for line in answer.stderr.splitlines() if not line.startswith("make: ***")]
    return line


def test_no_python(checkout: Path) -> None:
    assert "none was found" in complaint(checkout, "")
    assert "'/nowhere/python' was not found" in complaint(checkout, "/nowhere/python")


def test_another_python(checkout: Path) -> None:
    script = 'case "$1" in --version) echo Python 3.9.1;; *) exit 1;; esac'
    line = complaint(checkout, python(checkout, script))
    assert "Python 3.11 is needed" in line
    assert "Python 3.9.1" in line


def test_a_python_that_cannot_make_environments(checkout: Path) -> None:
    line = complaint(checkout, python(checkout, 'case "$2" in *ensurepip*) exit 1;; esac'))
    assert "python3.11-venv" in line


def test_an_environment_of_another_python(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(python(checkout, "exit 1"), checkout / ".venv" / "bin" / "python")
    assert "make clean" in complaint(checkout, python(checkout, "exit 0"))


def test_a_folder_in_which_nothing_can_be_made(checkout: Path) -> None:
    (checkout / ".venv").write_text("in the way")
    assert "cannot be written" in complaint(checkout, python(checkout, "exit 0"))
