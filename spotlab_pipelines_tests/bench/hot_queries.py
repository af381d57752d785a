"""What each hot query takes over a log of 1,000,000 rows, and by which index; none may read a large table through."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from spotlab_pipelines.database.engine import disconnect
from spotlab_pipelines.database.migrate import ensure_databases, upgrade
from spotlab_pipelines.local import down, up
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.measure import Section
from spotlab_pipelines_tests.experiments.hot_queries import QUERIES, HotQuery
from spotlab_pipelines_tests.experiments.large_log import Laboratory, fill
from spotlab_pipelines_tests.experiments.plans import LARGE, plans

ROWS, ROUNDS = 1_000_000, 3
HEADINGS = ("query", "function", "ms", "indexes", "reads through")


def section() -> Section:
    """Every hot query, the best of three, on stores of its own."""
    folder = Path(tempfile.mkdtemp(prefix="spotlab-bench-"))
    folder.chmod(0o711)
    settings = Settings(data_dir=folder)
    try:
        up(settings)
        ensure_databases(settings)
        upgrade(settings)
        started = time.perf_counter()
        laboratory = fill(settings, rows=ROWS)
        filled_s = time.perf_counter() - started
        print(f"filled {ROWS:,} log rows in {filled_s:.0f} s", file=sys.stderr)
        rows, passes = zip(*(_measured(laboratory, hot) for hot in QUERIES), strict=True)
        disconnect(laboratory.owner)
    finally:
        down(settings)
        shutil.rmtree(folder, ignore_errors=True)
    note = (
        f"{ROWS:,} rows of `experiment_logs`, filled in {filled_s:.0f} s. Planning and execution in Postgres, all "
        f"statements of a query, best of {ROUNDS}. What must not be read through: {', '.join(LARGE)}."
    )
    return Section(HEADINGS, rows, all(passes), note)


def _measured(laboratory: Laboratory, hot: HotQuery) -> tuple[tuple[str, ...], bool]:
    rounds = [plans(laboratory, hot, execute=True) for _ in range(ROUNDS)]
    ms = min(sum(plan.ms for plan in found) for found in rounds)
    indexes = sorted(frozenset().union(*(plan.indexes for found in rounds for plan in found)))
    through = sorted({table for found in rounds for plan in found for table in plan.read_through})
    row = (hot.name, hot.query or "SQL of the API", f"{ms:,.2f}", ", ".join(indexes), ", ".join(through) or "nothing")
    return row, not through
