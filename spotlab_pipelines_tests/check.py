"""The part of `make check` that needs the project's own code: the door to AWS, Dagster definitions, migration drift.

Every file of the package is searched for imports of AWS's library, since ruff's ban of them is off as a whole where a
file may import Dagster or MLflow.

Definitions are loaded and validated, `workspace.yaml` and `pyproject.toml` must name the same code location, and the
migrations, run on an empty Postgres, must give exactly the tables that the code declares.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

from spotlab_pipelines.settings import PROJECT_ROOT, Settings

PACKAGE = PROJECT_ROOT / "spotlab_pipelines"
DOOR = Path("accounts", "sessions.py")
AWS_LIBRARIES = ("boto3", "botocore", "aiobotocore", "s3transfer")


def main() -> int:
    """Run the checks; return the number of problems, each printed in one line."""
    problems = [*door_problems(), *definition_problems(), *drift_problems()]
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    if not problems:
        print("One door to AWS, definitions load, migrations match the tables.")
    return min(len(problems), 1)


def door_problems(package: Path = PACKAGE) -> list[str]:
    """Which other files of the package than the one door use AWS's library."""
    return [
        f"{path.relative_to(package.parent)} imports {', '.join(found)}; all AWS access goes through {DOOR}."
        for path in sorted(package.rglob("*.py"))
        if path != package / DOOR and (found := aws_imports(path.read_text()))
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
    return [name for name in found if name.partition(".")[0] in AWS_LIBRARIES]


def definition_problems() -> list[str]:
    """What is wrong with the code location."""
    import dagster as dg

    from spotlab_pipelines.definitions import defs

    workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    module = workspace["load_from"][0]["python_module"]
    problems = []
    if module["location_name"] != project["code_location_name"]:
        problems.append("workspace.yaml and pyproject.toml name different code locations.")
    if module["module_name"] != project["code_location_target_module"]:
        problems.append("workspace.yaml and pyproject.toml load different modules.")
    try:
        dg.Definitions.validate_loadable(defs)
    except dg.DagsterError as error:
        problems.append(f"Dagster definitions do not load: {error}")
    return problems


def drift_problems() -> list[str]:
    """How the migrated schema differs from the declared tables, on a Postgres of its own."""
    from spotlab_pipelines.database.migrate import drift, ensure_databases, upgrade
    from spotlab_pipelines.local import down

    with tempfile.TemporaryDirectory(prefix="spotlab-check-") as folder:
        Path(folder).chmod(0o755)
        settings = Settings(data_dir=Path(folder) / "data", database_url=None, redis_url=None)
        try:
            ensure_databases(settings)
            upgrade(settings)
            return [f"Migrations differ from the tables: {difference}" for difference in drift(settings)]
        finally:
            down(settings)


if __name__ == "__main__":
    sys.exit(main())
