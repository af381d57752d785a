"""`spotlab evaluate` and `spotlab experiments`: what was evaluated and decided."""

from __future__ import annotations

from typing import Annotated

import typer

from spotlab_pipelines.cli.shared import EXIT_CODES, Json, Scrape, database, read_settings, scrape_shared
from spotlab_pipelines.terminal import print_rows, progress, records

LISTED = ["account_id", "environment", "window_start", "step", "state", "failed_at_step", "error"]

app = typer.Typer(no_args_is_help=True, help="What was evaluated and decided.", epilog=EXIT_CODES)


def evaluate(
    account: Annotated[str, typer.Argument(help="12-digit AWS account id.")],
    scrape: Scrape = True,
    as_json: Json = False,
) -> None:
    """Evaluate one account now, through Dagster: scrape, predict, decide, log. Prints the decisions."""
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import evaluate_account, open_instance
    from spotlab_pipelines.experiments.queries import latest_decisions

    with database(read_settings()) as engine:
        get_account(engine, account)
        with open_instance() as instance:
            if scrape:
                scrape_shared(instance)
            outcome = evaluate_account(instance, defs, account, progress=progress)
        if not outcome.success:
            raise outcome.failure()
        decisions = latest_decisions(engine, account, outcome.window_start)
    print_rows(records(decisions), as_json=as_json, empty="The account has no running instances.")


@app.command("list")
def experiments_list(
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    limit: Annotated[int, typer.Option(help="How many, latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the evaluations, latest first."""
    from spotlab_pipelines.experiments.queries import list_experiments

    with database(read_settings()) as engine:
        found = list_experiments(engine, account, limit)
    if not as_json:
        # A terminal's width: the whole rows are for scripts.
        found = found.assign(window_start=found["window_start"].dt.strftime("%Y-%m-%d %H:%M:%S"))[LISTED]
    print_rows(records(found), as_json=as_json, empty="Nothing was evaluated yet: `spotlab evaluate ACCOUNT`.")
