"""`spotlab up`, `down` and `doctor`: the stores that everything runs on, and what is wrong with them."""

from __future__ import annotations

import typer

from spotlab_pipelines.cli.shared import Json, read_settings
from spotlab_pipelines.terminal import PROBLEMS, print_json, visible


def up() -> None:
    """Start the stores that are not configured elsewhere, create the databases, migrate them."""
    from spotlab_pipelines.database.migrate import current_revision, ensure_databases, require_current, upgrade
    from spotlab_pipelines.local import status
    from spotlab_pipelines.local import up as start

    settings = read_settings()
    started = start(settings).started
    created = ensure_databases(settings)
    upgrade(settings)
    for store in status(settings):
        print(f"{store.name}: {'started' if store.name in started else store.state} at {store.address}")
    print(f"databases: {', '.join(created) + ' created' if created else 'there'}")
    print(f"schema: revision {current_revision(require_current(settings))}")


def down() -> None:
    """Stop the embedded stores of the data directory, and nothing else; the data stays."""
    from spotlab_pipelines.local import down as stop

    stopped = stop(read_settings())
    print(f"stopped: {', '.join(stopped)}" if stopped else "No embedded store was running.")


def doctor(as_json: Json = False) -> None:
    """Check every setting and store, and say what is wrong and what to do. Nothing is started or changed."""
    from spotlab_pipelines.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            colour = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "FAIL": typer.colors.RED}[finding.state]
            typer.echo(f"{typer.style(f'{finding.state:4}', fg=colour)}  {finding.check}: {visible(finding.found)}")
            if finding.remedy is not None:
                typer.echo(f"      {visible(finding.remedy)}")
    if as_json:
        print_json([vars(finding) for finding in findings])
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(PROBLEMS)
