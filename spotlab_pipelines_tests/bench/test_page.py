"""The page of benchmarks: one section can be taken anew, and a query that reads a large table through fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT
from spotlab_pipelines_tests.bench import __main__ as bench
from spotlab_pipelines_tests.bench import hot_queries
from spotlab_pipelines_tests.bench.measure import Figure, Section, of_figures
from spotlab_pipelines_tests.experiments.hot_queries import QUERIES
from spotlab_pipelines_tests.experiments.plans import Plan


def section(ms: str, *, passes: bool = True) -> Section:
    return Section(("what", "ms"), (("a thing", ms),), passes)


def test_a_section_that_is_not_run_keeps_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(bench, "SECTIONS", {"one": lambda: section("1"), "two": lambda: section("2")})
    assert bench.main([], page) == 0
    before = bench.read_sections(page.read_text())
    assert list(before) == ["one", "two"]
    bench.SECTIONS["two"] = lambda: section("3", passes=False)
    assert bench.main(["two"], page) == 1
    after = bench.read_sections(page.read_text())
    assert after["one"] == before["one"]
    assert after["two"] == before["two"].replace("| a thing | 2 |", "| a thing | 3 |")
    assert bench.main(["three"], page) == 2


def test_the_page_holds_every_section() -> None:
    assert list(bench.read_sections((PROJECT_ROOT / "docs" / "benchmarks.md").read_text())) == list(bench.SECTIONS)


def test_a_figure_beyond_its_limit_fails_its_section() -> None:
    good, bad = (Figure("a", measured, "b", 1.0, 2.0) for measured in (2.0, 2.1))
    assert of_figures([good]).passes
    assert not of_figures([good, bad]).passes


@pytest.mark.parametrize(("through", "passes"), [((), True), (("experiment_logs",), False)])
def test_a_query_that_reads_a_large_table_through_fails(
    monkeypatch: pytest.MonkeyPatch, through: tuple[str, ...], passes: bool
) -> None:
    plan = Plan("", frozenset({"ix"}), through, 1.5)
    monkeypatch.setattr(hot_queries, "plans", lambda *_, **__: [plan, plan])
    row, passed = hot_queries._measured(None, QUERIES[0])  # type: ignore[arg-type]
    assert (row[2:4], passed) == (("3.00", "ix"), passes)
