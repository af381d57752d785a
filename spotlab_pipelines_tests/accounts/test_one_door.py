"""boto3 and botocore are imported in sessions.py alone.

ruff's banned imports, which `make check` runs, say so where somebody writes it. Files that may import Dagster or MLflow
are free of that rule as a whole, so the last word is the scan of every file here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT

RUFF = Path(sys.executable).with_name("ruff")
PACKAGE = PROJECT_ROOT / "spotlab_pipelines"
DOOR = PACKAGE / "accounts" / "sessions.py"
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


def aws_imports(code: str) -> list[str]:
    """The modules of boto3 and botocore that some code imports, in whatever way."""
    found = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                found += [each.name for each in names]
            case ast.ImportFrom(module=str(module)):
                found.append(module)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(module)), *_]
            ) if name in ("import_module", "__import__"):
                found.append(module)
    return [name for name in found if name.partition(".")[0] in ("boto3", "botocore", "aiobotocore", "s3transfer")]


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
    assert {path for path in files if aws_imports(path.read_text())} == {DOOR}
