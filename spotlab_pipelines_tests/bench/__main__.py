"""Run every benchmark, print the table, write it to docs/benchmarks.md; exit 1 if a figure misses its limit."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from spotlab_pipelines.settings import PROJECT_ROOT
from spotlab_pipelines_tests.bench import account_run, advisor, evaluation, features, startup
from spotlab_pipelines_tests.bench.measure import Figure

PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Take all figures, one module after the other."""
    figures: list[Figure] = []
    for module in (startup, advisor, features, evaluation, account_run):
        print(f"measuring {module.__name__.rsplit('.', 1)[-1]} ...", file=sys.stderr)
        figures += module.figures()
    Console(width=160).print(_table(figures))
    PAGE.write_text(_page(figures))
    return 0 if all(figure.passes for figure in figures) else 1


def _cells(figure: Figure) -> list[str]:
    limit = "" if figure.limit is None else f"≤ {figure.limit:g}"
    verdict = "" if figure.limit is None else ("yes" if figure.passes else "NO")
    return [
        figure.name,
        _amount(figure, figure.measured_s),
        figure.floor,
        _amount(figure, figure.floor_s),
        f"{figure.ratio:.2f}",
        limit,
        verdict,
        figure.note,
    ]


def _amount(figure: Figure, value: float) -> str:
    return f"{1000 * value:,.1f}" if figure.unit == "ms" else f"{value:,.1f} {figure.unit}"


HEADINGS = ["what", "ms", "floor", "floor ms", "ratio", "limit", "within", "note"]


def _table(figures: list[Figure]) -> Table:
    table = Table(*HEADINGS, title="Benchmarks")
    for figure in figures:
        table.add_row(*_cells(figure))
    return table


def _page(figures: list[Figure]) -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(_cells, figures)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        "# Benchmarks\n\n"
        "Written by `make bench`, never by hand. Each figure is the best of several rounds, its floor taken in the\n"
        "same run on the same machine; the ratio is what counts.\n\n"
        f"Taken {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, Python {platform.python_version()}.\n\n"
        f"{table}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
