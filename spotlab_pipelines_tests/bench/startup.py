"""How long a person waits before anything happens: `spotlab --help`, and loading the code location."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from spotlab_pipelines_tests.bench.measure import Figure, best_of

ROUNDS = 7


def figures() -> list[Figure]:
    """Wall times of whole processes, best of seven."""
    spotlab = str(Path(sys.executable).with_name("spotlab"))
    help_s, nothing_s = best_of(ROUNDS, lambda: _process(spotlab, "--help"), lambda: _python("pass"))
    location_s, dagster_s = best_of(
        ROUNDS,
        lambda: _python("from spotlab_pipelines.definitions import defs; defs.get_repository_def()"),
        lambda: _python("import dagster"),
    )
    return [
        Figure("spotlab --help", help_s, "python -c pass", nothing_s, None, "at most 0.5 s asked for"),
        Figure("spotlab --help against its 0.5 s", help_s, "0.5 s", 0.5, 1.0),
        Figure("loading the code location", location_s, "import dagster", dagster_s, 2.2),
    ]


def _python(code: str) -> None:
    _process(sys.executable, "-c", code)


def _process(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
