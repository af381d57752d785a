"""What people wrote is printed as they wrote it: no markup, no crash, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.terminal import complain, print_rows, visible


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
