"""`spotlab models`: the versions that may be served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotlab_pipelines.cli.shared import (
    EXIT_CODES,
    As,
    Json,
    Scrape,
    acting_as,
    database,
    read_settings,
    scrape_shared,
)
from spotlab_pipelines.terminal import print_rows, visible

if TYPE_CHECKING:
    from spotlab_pipelines.inference.registry import ModelRegistry

Version = Annotated[str, typer.Argument(metavar="VERSION", help="A registered version, such as logistic/1.")]

SHOWN_METRICS = ("auc", "brier_skill")

app = typer.Typer(no_args_is_help=True, help="Model versions that may be served.", epilog=EXIT_CODES)


@app.command("list")
def models_list(as_json: Json = False) -> None:
    """List the registered versions: the champion, the challengers, then the others, and what each learned from.

    auc and brier_skill are those of the fit, out of fold. Notes where MLflow differs, and whose files do.
    """
    from spotlab_pipelines.errors import StoreUnavailable
    from spotlab_pipelines.inference.mlflow_differences import mlflow_differences
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.training.unseen import learned_from

    settings = read_settings()
    learned: dict[str, str] = {}
    with database(settings) as engine:
        registry = ModelRegistry(engine, settings)
        versions = registry.versions()
        try:
            notes = mlflow_differences(settings, registry)
            learned = learned_from(settings, versions)
        except StoreUnavailable as error:
            # What may be served is known without it.
            notes = [f"What MLflow shows is not known: {error}"]
        notes += registry.faults()
    rows = [vars(version) | {"learned_from": learned.get(version.version)} for version in versions]
    if not as_json:
        rows = [_shown(row) for row in rows]
    print_rows(rows, as_json=as_json, empty="No version is registered yet: `spotlab models bootstrap`.")
    for note in notes:
        typer.echo(f"note: {visible(note)}", err=True)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A version for a terminal; who registered it and all metrics of its fit are for --json and MLflow."""
    from spotlab_pipelines.settings import HORIZONS_H

    named = {name: row[name] for name in ("version", "role", "status", "feature_spec", "learned_from")}
    at = "/".join(map(str, HORIZONS_H))
    for name in SHOWN_METRICS:
        figures = [row["metrics"].get(f"{name}_{hours}h") for hours in HORIZONS_H]
        known = any(figure is not None for figure in figures)
        told = "/".join("-" if figure is None else f"{figure:.3f}" for figure in figures)
        named[f"{name}, {at} h"] = told if known else None
    return named


@app.command("approve")
def models_approve(
    version: Version,
    challenger: Annotated[
        bool, typer.Option("--challenger", help="Score it in shadow in every evaluation from the next on.")
    ] = False,
    as_user: As = None,
) -> None:
    """Allow a version to be served. Unless a challenger, it is scored only where an instance is assigned to it."""
    with _registry(as_user) as (registry, actor):
        row = registry.approve(version, role="challenger" if challenger else "none", actor=actor)
    print(f"{row.version} is approved{' as a challenger' if challenger else ''}.")


@app.command("promote")
def models_promote(
    version: Version,
    override: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Promote it whatever verdict and calibration say; the reason is audited."),
    ] = None,
    as_user: As = None,
) -> None:
    """Make an approved version the champion; the champion of before goes on as a challenger.

    The latest verdict against the present champion must be to promote it, and its calibration acceptable.
    """
    with _registry(as_user) as (registry, actor):
        row = registry.promote(version, actor=actor, override=override)
    print(f"{row.version} is the champion.")


@app.command("retire")
def models_retire(version: Version, as_user: As = None) -> None:
    """Stop serving a version; what it predicted stays on record. A champion that could serve stays."""
    with _registry(as_user) as (registry, actor):
        registry.retire(version, actor=actor)
    print(f"{version} is retired.")


@contextmanager
def _registry(as_user: str | None) -> Iterator[tuple[ModelRegistry, str | None]]:
    """The registry, and who acts."""
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = read_settings()
    with database(settings) as engine:
        yield ModelRegistry(engine, settings), acting_as(engine, as_user)


@app.command("bootstrap")
def models_bootstrap(scrape: Scrape = True, as_json: Json = False) -> None:
    """Fit and register the first versions where there are none; otherwise nothing is done."""
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.defs.run import open_instance
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.training.first_models import register_first_models

    settings = read_settings()
    with database(settings) as engine:
        if scrape:
            with open_instance() as instance:
                scrape_shared(instance)
        sessions = AccountSessions.of(settings, engine)
        registered = register_first_models(
            settings, engine, sessions, connect_redis(settings), ModelRegistry(engine, settings),
            progress=lambda text: typer.echo(text, err=True),
        )  # fmt: skip
    print_rows([vars(report) for report in registered], as_json=as_json, empty="Nothing was registered.")
