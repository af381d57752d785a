"""What people wrote is printed as they wrote it: no markup, no crash, and nothing that a terminal would obey."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.terminal import complain, exact, print_figures, print_rows, visible


@pytest.mark.parametrize("name", ["prod [/eu]", "[red]alarm[/red]", ":warning: [link=http://example.org]x[/link]"])
def test_markup_in_somebodys_name_is_only_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": name, "regions": [name, "us-east-1"]}], as_json=False, empty="")
    assert capsys.readouterr().out.count(name) == 2


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\u202eb", r"a\u202eb"),
        ("a\u200bb", r"a\u200bb"),
        ("a\udcffb", r"a\udcffb"),
        ("a\r\nb", r"a\r\nb"),
        ("Zoë 東京", "Zoë 東京"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_an_escape(
    written: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visible(written) == shown
    print_rows([{"name": written}], as_json=False, empty="")
    assert shown in capsys.readouterr().out


def test_an_error_that_quotes_it_is_one_visible_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert complain(InvalidInput("no \x1b[31m\udcff \n here")) == 1
    assert capsys.readouterr().err == "spotlab: no \\x1b[31m\\udcff here\n"


def test_figures_dicts_and_times_are_written_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    print_rows([{"at": at, "auc": {"1 h": 0.6881777875}, "each": [0.30000004]}], as_json=False, empty="")
    out = capsys.readouterr().out
    for written in ("│ 2026-03-01 10:00:00 │", "│ 1 h 0.6882 │", "│ 0.3  │"):
        assert written in out
    assert exact(at) == "2026-03-01T10:00:00.123456Z"
    assert datetime.fromisoformat(exact(at)) == at.astimezone(UTC)


def test_figures_are_a_line_each_beside_what_they_mean(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures([("a/1", {"n": 1, "ece": 0.25}), ("b/1", {"n": 2})], {"n": "rows", "ece": "less is better"})
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["n", "1", "2", "rows"],
        ["ece", "0.25", "", "less is better"],
    ]


def test_ids_are_not_folded_where_long_texts_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    ids = {"account": "123456789012", "window": "2026-03-01T10:00:00.123456Z", "instance": "i-0123456789abcdef0"}
    row = ids | {"step": "fleet_instances", "state": "running", "why": "a long reason " * 20}
    print_rows([row], as_json=False, empty="")
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 10, "the reason is folded"
    assert all(each in out for each in ids.values())
