"""Writes docs/settings.md, cli.md, features.md, indexes.md and schema.sql, each from the code: `make docs`.

The texts are the settings' descriptions, the commands' own help and the feature specs; nothing else is written here.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from spotlab_pipelines.cli import app
from spotlab_pipelines.database.indexes import REASONS
from spotlab_pipelines.features.feature import CLOCK, OBSERVATIONS, Feature, FeatureSpec
from spotlab_pipelines.features.specs import SPECS
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.database.schema import schema_sql

WIDTH = 100
SETTINGS_INTRODUCTION = """# Settings

Every setting is an environment variable; there is no configuration file. A malformed value stops every command with a
line that names the variable. AWS's own variables (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, …) are read by AWS's library.
`make docs` writes this page from `spotlab_pipelines/settings.py`.

| variable | type | default | what it does |
|---|---|---|---|
"""
CLI_INTRODUCTION = """# The command line

`spotlab` runs the services of the rooms by hand. `make docs` writes this page from the commands' own help.
"""
FEATURES_INTRODUCTION = """# What a model sees

A feature spec is a named, ordered list of features; a model is fitted on one, and scored on it. A spec never changes
once a model was fitted on it. Every value is finite and in its range, or the pool is refused by name. An optional
feature that is missing has its neutral value, and its indicator is 1. Nothing that was observed, known or priced after
the instant is looked at. `make docs` writes this page from `spotlab_pipelines/features/specs.py`.
"""
FEATURES_HEADINGS = ("feature", "formula", "range", "unit", "source", "since", "if missing")
INDEXES_INTRODUCTION = """# Indexes

Each index earns its place by a query of the code, named as module:function below `spotlab_pipelines`; one marked as a
rule is there to enforce it. What is not listed belongs to a primary key or a unique constraint. A test runs the queries
over 100,000 log rows and sees that they use them; [benchmarks.md](benchmarks.md) has the times over 1,000,000.
`make docs` writes this page from `spotlab_pipelines/database/indexes.py`.

| index | query | what it looks for |
|---|---|---|
"""
DEFAULTS = {"data_dir": "a directory per checkout, in /var/lib/spotlab or ~/.local/share/spotlab"}


def settings_page() -> str:
    """docs/settings.md."""
    rows = [
        f"| `SPOTLAB_{name.upper()}` | {_type(field.annotation)} | {_default(name, field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return SETTINGS_INTRODUCTION + "".join(rows)


def cli_page() -> str:
    """docs/cli.md."""
    return CLI_INTRODUCTION + "".join(
        f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in helps(typer.main.get_command(app), "spotlab")
    )


def indexes_page() -> str:
    """docs/indexes.md."""
    return INDEXES_INTRODUCTION + "".join(
        f"| `{name}` | `{each.query}`{' (a rule)' if each.rule else ''} | {each.why} |\n"
        for name, each in REASONS.items()
    )


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """The name and the help of a command and of all below it."""
    context = command.context_class(command, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
    for child in getattr(command, "commands", {}).values():
        yield from helps(child, f"{name} {child.name}")


def features_page() -> str:
    """docs/features.md."""
    return FEATURES_INTRODUCTION + "".join(_spec_section(spec) for spec in SPECS.values())


def _spec_section(spec: FeatureSpec) -> str:
    needs = [
        name
        for name, needed in (("prices and the Advisor", spec.needs_market), ("observations", spec.needs_observations))
        if needed
    ]
    lines = [FEATURES_HEADINGS, ("---",) * len(FEATURES_HEADINGS), *map(_feature_cells, spec.features)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"\n## {spec.version}\n\n{len(spec.features)} features; needs {' and '.join(needs)}.\n\n{table}\n"


def _feature_cells(feature: Feature) -> tuple[str, ...]:
    def bound(value: float) -> str:
        return f"{value:.4g}".replace("inf", "∞").replace("-", "−")

    missing = "pool excluded" if feature.source not in (CLOCK, OBSERVATIONS) else "never"
    if feature.indicator:
        missing = f"{bound(feature.neutral)}, and `{feature.indicator}` = 1"
    elif feature.unit == "0 or 1":
        missing = "never"
    return (
        f"`{feature.name}`",
        feature.formula,
        f"{bound(feature.minimum)} … {bound(feature.maximum)}",
        feature.unit,
        feature.source,
        feature.since,
        missing,
    )


def pages() -> dict[Path, str]:
    """The pages and what should be in them."""
    docs = PROJECT_ROOT / "docs"
    return {
        docs / "settings.md": settings_page(),
        docs / "cli.md": cli_page(),
        docs / "features.md": features_page(),
        docs / "indexes.md": indexes_page(),
        docs / "schema.sql": schema_sql(),
    }


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return " or ".join(_type(part) for part in get_args(annotation) if part is not types.NoneType)
    names = {"SecretStr": "secret text", "str": "text", "int": "whole number", "float": "number", "Path": "path"}
    name = getattr(get_origin(annotation) or annotation, "__name__", "text")
    return names.get(name, "comma-separated list" if name == "tuple" else name)


def _default(name: str, field: Any) -> str:
    if name in DEFAULTS:
        return DEFAULTS[name]
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, Path):
        value = value.relative_to(PROJECT_ROOT)
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def main() -> None:
    """Write the pages that have changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written: {path.relative_to(PROJECT_ROOT)}")


if __name__ == "__main__":
    main()
