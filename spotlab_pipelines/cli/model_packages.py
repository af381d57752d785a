"""`spotlab models conform` and `spotlab models register`: models of a user's own package."""

from __future__ import annotations

from typing import Annotated

import typer

from spotlab_pipelines.cli.shared import As, Json, acting_as, database, read_settings
from spotlab_pipelines.terminal import PERMANENT, print_rows

Spec = Annotated[str | None, typer.Option(help="The feature spec it reads. Default: what its class declares.")]


def conform(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An installed entry point, or a version. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask models whether they do what any served model must do; ends with 1 if one does not.

    Models are those of the entry points `spotlab.models` of installed packages, and the versions that are not retired.
    """
    from spotlab_pipelines.inference.examining import examine, names_of_all
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = read_settings()
    with database(settings) as engine:
        registry = ModelRegistry(engine, settings)
        found = {each: examine(registry, each) for each in ([name] if name else names_of_all(registry))}
    rows = [
        {"model": model, "check": each.name, "passed": each.passed, "problem": each.problem}
        for model, of_model in found.items()
        for each in of_model
    ]
    print_rows(rows, as_json=as_json, empty="No package declares a model, and no version is registered.")
    if not all(row["passed"] for row in rows):
        raise typer.Exit(PERMANENT)


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed entry point of the group spotlab.models.")],
    spec: Spec = None,
    family: Annotated[str | None, typer.Option(help="Family of the version. Default: the entry point's name.")] = None,
    data: Annotated[str, typer.Option(help="What it was fitted on, in a sentence.")] = "",
    fingerprint: Annotated[str | None, typer.Option(help="SHA-256 of the data it was fitted on.")] = None,
    as_user: As = None,
) -> None:
    """Register the model of an installed package as a candidate; `spotlab models approve` lets it be served."""
    from spotlab_pipelines.inference.card import Notes
    from spotlab_pipelines.inference.conformance import probe
    from spotlab_pipelines.inference.packages import make_model
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = read_settings()
    with database(settings) as engine:
        actor = acting_as(engine, as_user)
        estimator, feature_spec = make_model(name, spec)
        row = ModelRegistry(engine, settings).register(
            estimator,
            family=family or name,
            feature_spec=feature_spec,
            example=probe(feature_spec).head(5),
            params={"entry_point": name} | ({"data": data} if data else {}),
            metrics={},
            registered_by=f"spotlab models register {name}",
            fingerprint=fingerprint,
            notes=Notes(data=data),
            entry_point=name,
            actor=actor,
        )
    print(f"{row.version} is a candidate.")
