"""boto3 and botocore are imported in sessions.py alone.

ruff's banned imports say so where somebody writes it. Files that may import Dagster or MLflow are free of that rule as
a whole, so the last word is a scan of every file. `make check` runs both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT
from spotlab_pipelines_tests import check
from spotlab_pipelines_tests.check import DOOR, PACKAGE, aws_imports, door_problems

RUFF = Path(sys.executable).with_name("ruff")
USES = [
    "import boto3",
    "import boto3.session",
    "from boto3 import client",
    "from boto3.session import Session",
    "import botocore",
    "import botocore.session as other",
    "from botocore.config import Config",
    "from botocore import session",
    "def inside():\n    import boto3",
]


def refused_by_ruff(code: str, file: str) -> bool:
    """Whether ruff refuses this code in this file for a banned import."""
    command = [RUFF, "check", "--no-cache", "--output-format=concise", "--stdin-filename", file, "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert done.returncode in (0, 1), done.stderr
    return "TID251" in done.stdout


@pytest.mark.parametrize("code", USES)
@pytest.mark.parametrize("file", ["market/prices.py", "accounts/validation.py", "cli.py"])
def test_another_use_fails_the_lint(code, file):
    assert refused_by_ruff(code, f"spotlab_pipelines/{file}")


def test_the_one_door_is_open_and_make_check_runs_the_lint():
    assert not refused_by_ruff("import boto3\nimport botocore.session", "spotlab_pipelines/accounts/sessions.py")
    assert "ruff check ." in (PROJECT_ROOT / "Makefile").read_text()


@pytest.mark.parametrize("code", [*USES, "importlib.import_module('boto3')", "__import__('botocore.session')"])
def test_the_scan_sees_every_way_of_importing(code):
    assert aws_imports(code)


def test_no_other_file_imports_boto3_or_botocore():
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    assert {path for path in files if aws_imports(path.read_text())} == {PACKAGE / DOOR}
    assert door_problems() == []


@pytest.mark.parametrize("file", ["defs/market.py", "training/history.py", "accounts/other.py", "new/sessions.py"])
def test_make_check_names_another_file_wherever_it_is(tmp_path, file):
    package = tmp_path / "spotlab_pipelines"
    for path in (package / DOOR, package / file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def inside():\n    import botocore.session\n")
    (problem,) = door_problems(package)
    assert f"{file} imports botocore.session" in problem


def test_make_check_fails_by_it(monkeypatch):
    monkeypatch.setattr(check, "door_problems", lambda: ["another door"])
    monkeypatch.setattr(check, "definition_problems", list)
    monkeypatch.setattr(check, "drift_problems", list)
    assert check.main() == 1
    assert "python -m spotlab_pipelines_tests.check" in (PROJECT_ROOT / "Makefile").read_text()
