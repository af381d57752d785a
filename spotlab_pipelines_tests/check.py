"""The part of `make check` that needs the project's own code: Dagster definitions and migration drift.

Definitions are loaded and validated, `workspace.yaml` and `pyproject.toml` must name the same code location, and the
migrations, run on an empty Postgres, must give exactly the tables that the code declares.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

from spotlab_pipelines.settings import PROJECT_ROOT, Settings


def main() -> int:
    """Run the checks; return the number of problems, each printed in one line."""
    problems = [*definition_problems(), *drift_problems()]
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    if not problems:
        print("Definitions load, migrations match the tables.")
    return min(len(problems), 1)


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
