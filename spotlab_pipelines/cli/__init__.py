"""`spotlab`: the services of the rooms, by hand. One module per noun; here they are put together and run.

Each command imports its room when it runs and holds no logic itself.

Exit codes: 0 done; 1 a permanent error, someone has to change something; 2 wrong usage; 3 a transient error, try
again; 4 the doctor found problems. An error is one line on stderr; `spotlab --traceback …` shows where it came from.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from spotlab_pipelines.cli import (
    accounts,
    audit,
    experiments,
    market,
    model_packages,
    model_show,
    models,
    outcomes,
    scorecards,
    stores,
    traces,
    training,
    users,
)
from spotlab_pipelines.cli.shared import EXIT_CODES
from spotlab_pipelines.terminal import PERMANENT, complain, unwritable

app = typer.Typer(
    help="SpotLab: predict EC2 Spot interruptions, place instances, compare models.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(stores.up)
app.command()(stores.down)
app.command()(stores.doctor)
app.command()(experiments.evaluate)
app.command(epilog=experiments.REPLAY_CODES)(experiments.replay)
app.command()(audit.audit)
app.add_typer(accounts.app, name="accounts")
app.add_typer(users.app, name="users")
app.add_typer(experiments.app, name="experiments")
app.add_typer(market.app, name="market")
models.app.command("show")(model_show.models_show)
models.app.command("scorecard")(scorecards.models_scorecard)
models.app.command("compare")(scorecards.models_compare)
models.app.command("conform")(model_packages.conform)
models.app.command("register")(model_packages.register)
models.app.command("train")(training.models_train)
models.app.command("recalibrate")(training.models_recalibrate)
models.app.command("backtest")(training.models_backtest)
app.add_typer(models.app, name="models")
outcomes.app.command("traces")(traces.outcomes_traces)
outcomes.app.command("remove")(traces.outcomes_remove)
app.add_typer(outcomes.app, name="outcomes")


@app.callback()
def _all(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    """`run` looks for --traceback itself."""


def main() -> None:
    """Entry point of the `spotlab` program."""
    # With nobody to take them, warnings of libraries (a line for each try to reach Postgres, say) go to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    from spotlab_pipelines.errors import SpotLabError

    try:
        require_text(arguments)
        app(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else PERMANENT
    except SpotLabError as error:
        if "--traceback" in arguments:
            raise
        return complain(error)
    except OSError as error:
        known = unwritable(error)
        if known is None or "--traceback" in arguments:
            raise
        return complain(known)
    return 0


def require_text(arguments: Sequence[str]) -> None:
    """Refuse an argument that is not text in UTF-8: Python passes its bytes on as letters that no store takes."""
    from spotlab_pipelines.errors import InvalidInput

    for argument in arguments:
        if "\0" in argument or any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise InvalidInput(f"Expected arguments of Unicode text, got {argument!r}.", remedy="Type it in UTF-8.")
