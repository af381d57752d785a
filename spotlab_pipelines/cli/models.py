"""`spotlab models`: the versions that may be served."""

from __future__ import annotations

import typer

from spotlab_pipelines.cli.shared import EXIT_CODES, Json, Scrape, database, read_settings, scrape_shared
from spotlab_pipelines.terminal import print_rows

app = typer.Typer(no_args_is_help=True, help="Model versions that may be served.", epilog=EXIT_CODES)


@app.command("list")
def models_list(as_json: Json = False) -> None:
    """List the registered versions: the champion, the challengers, then the others."""
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = read_settings()
    with database(settings) as engine:
        versions = ModelRegistry(engine, settings).versions()
    rows = [vars(version) for version in versions]
    if not as_json:
        shown = ("version", "role", "status", "feature_spec", "horizons_h", "metrics", "registered_by")
        rows = [{name: row[name] for name in shown} for row in rows]
    print_rows(rows, as_json=as_json, empty="No version is registered yet: `spotlab models bootstrap`.")


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
