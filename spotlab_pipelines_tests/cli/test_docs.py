"""The documentation is complete: every setting, command and feature is in it, with the words the code has."""

from __future__ import annotations

import pytest
import typer

from spotlab_pipelines.cli import app
from spotlab_pipelines.features.specs import SPECS
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.write_docs import helps, pages


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    text = (PROJECT_ROOT / "docs" / "settings.md").read_text()
    assert f"`SPOTLAB_{name.upper()}`" in text
    description = Settings.model_fields[name].description
    assert description
    assert description in text


def test_every_command_is_documented() -> None:
    text = (PROJECT_ROOT / "docs" / "cli.md").read_text()
    for name, _ in helps(typer.main.get_command(app), "spotlab"):
        assert f"## {name}\n" in text


@pytest.mark.parametrize("version", list(SPECS))
def test_every_feature_of_every_spec_is_documented(version: str) -> None:
    text = (PROJECT_ROOT / "docs" / "features.md").read_text()
    section = text.partition(f"\n## {version}\n")[2].partition("\n## ")[0]
    for feature in SPECS[version].features:
        assert f"| `{feature.name}` | {feature.formula} |" in section
        assert not feature.indicator or f"`{feature.indicator}` = 1" in section


def test_the_pages_are_what_make_docs_writes() -> None:
    stale = [str(path.relative_to(PROJECT_ROOT)) for path, text in pages().items() if path.read_text() != text]
    assert stale == [], "run `make docs`"
