"""`spotlab outcomes traces` and `remove`: the public traces that were imported."""

from __future__ import annotations

from typing import Annotated

import typer

from spotlab_pipelines.cli.shared import As, Json, acting_as, database, read_settings
from spotlab_pipelines.terminal import print_rows, records

LISTED = ("trace", "rows", "pools", "failed", "first", "last", "imported_at")


def outcomes_traces(as_json: Json = False) -> None:
    """List the imported traces."""
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.trace_reading import list_traces

    traces = list_traces(Archive(read_settings().archive_location))
    if not as_json:
        # Each but the hash of the content, which is nothing to look at.
        traces = traces[list(LISTED)]
    print_rows(records(traces), as_json=as_json, empty="No trace was imported yet: `spotlab outcomes import`.")


def outcomes_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An imported trace: `spotlab outcomes traces`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_user: As = None,
    as_json: Json = False,
) -> None:
    """Remove an imported trace for good; asks first, and says which versions were fitted on it.

    They stay, and so do the examples that they learned from; but from the trace nobody can make these again.
    """
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.trace_reading import listed_traces
    from spotlab_pipelines.market.trace_removal import remove_trace
    from spotlab_pipelines.training.unseen import fitted_on

    settings = read_settings()
    archive = Archive(settings.archive_location)
    with database(settings) as engine:
        for each in listed_traces(archive, name):
            span = f"{each.first:%Y-%m-%d} to {each.last:%Y-%m-%d}"
            typer.echo(f"{name}: {each.rows} rows of {each.pools} pools, {span}.", err=True)
        versions, unknown = fitted_on(settings, ModelRegistry(engine, settings).versions(), name)
        typer.echo(f"Fitted on it: {', '.join(versions) or 'no version'}.", err=True)
        if unknown:
            typer.echo(f"Whether these were is not known: {', '.join(unknown)}.", err=True)
        if versions:
            typer.echo("They stay, but cannot be fitted again from it.", err=True)
        if not yes:
            typer.confirm("Remove it for good?", abort=True, err=True)
        removed = remove_trace(engine, archive, name, actor=acting_as(engine, as_user))
    if as_json:
        told = {"fitted_on_it": versions, "not_known_of": unknown}
        print_rows([vars(each) | told for each in removed], as_json=True, empty="")
    else:
        print(f"{name} is removed.")
