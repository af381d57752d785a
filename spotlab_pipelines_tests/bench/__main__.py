"""Run every benchmark, or those that are named, print their tables and write them to docs/benchmarks.md.

Exit code 1 if a figure misses its limit or a query reads a large table through. A section that is not run keeps the
text it has.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spotlab_pipelines.settings import PROJECT_ROOT
from spotlab_pipelines_tests.bench import (
    account_run,
    advisor,
    archive,
    evaluation,
    features,
    hot_queries,
    outcomes,
    scoring,
    scrape,
    startup,
    verdicts,
)
from spotlab_pipelines_tests.bench.measure import Section, of_figures

PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `make bench`, never by hand. Each figure is the best of several rounds, its floor taken in the
same run on the same machine; the ratio is what counts.
"""
SECTIONS: dict[str, Callable[[], Section]] = {
    "startup": lambda: of_figures(startup.figures()),
    "advisor": lambda: of_figures(advisor.figures()),
    "features": lambda: of_figures(features.figures()),
    "scoring": lambda: of_figures(scoring.figures()),
    "evaluation": lambda: of_figures(evaluation.figures()),
    "account_run": lambda: of_figures(account_run.figures()),
    "archive": lambda: of_figures(archive.figures()),
    "scrape": lambda: of_figures(scrape.figures()),
    "hot_queries": hot_queries.section,
    "outcomes": lambda: of_figures(outcomes.figures()),
    "verdicts": verdicts.section,
}


def main(wanted: list[str], page: Path = PAGE) -> int:
    """Take the figures of the named sections, or of all, one section after the other."""
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        print(f"bench: expected some of {', '.join(SECTIONS)}, got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    texts = read_sections(page.read_text() if page.exists() else "")
    passes = []
    for name in wanted or SECTIONS:
        print(f"measuring {name} ...", file=sys.stderr)
        section = SECTIONS[name]()
        Console(width=160).print(_table(name, section))
        texts[name] = section_text(section)
        passes.append(section.passes)
    page.write_text(page_text(texts))
    return 0 if all(passes) else 1


def read_sections(text: str) -> dict[str, str]:
    """The sections of a page as it is, by name."""
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def page_text(texts: dict[str, str]) -> str:
    """The page: the sections in their order, those that nobody took yet left out."""
    return INTRODUCTION + "".join(f"\n## {name}\n\n{texts[name]}\n" for name in SECTIONS if name in texts)


def section_text(section: Section) -> str:
    """A section without its heading: when and where it was taken, and its table."""
    taken = f"Taken {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, Python {platform.python_version()}."
    lines = [section.headings, ["---"] * len(section.headings), *section.rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (taken, section.note, table) if part)


def _table(name: str, section: Section) -> Table:
    table = Table(*section.headings, title=name)
    for row in section.rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
