"""`spotlab evaluate` and `spotlab experiments`: what was evaluated and decided."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from spotlab_pipelines.cli.shared import (
    EXIT_CODES,
    AccountId,
    Json,
    OnlyAccount,
    Scrape,
    database,
    read_settings,
    scrape_shared,
)
from spotlab_pipelines.terminal import complain, exact, print_json, print_rows, progress, records, visible

if TYPE_CHECKING:
    from spotlab_pipelines.database.evaluations import EvaluationKey
    from spotlab_pipelines.experiments.as_of import PastEvaluation
    from spotlab_pipelines.experiments.replay import Replay

LISTED = ["account_id", "environment", "window_start", "step", "state", "failed_at_step", "error"]
SHOWN = ["id", "instance_id", "model_version", "model_role", "horizon_h", "p_current", "p_target", "decision", "reason"]
REPLAY_CODES = (
    "Exit codes: 0 identical; 1 something differs; 2 cannot be replayed, the reason is named, or wrong usage; 3 "
    "transient error, try again."
)
DIFFERENT, NOT_REPLAYED = 1, 2

app = typer.Typer(no_args_is_help=True, help="What was evaluated and decided.", epilog=EXIT_CODES)


def evaluate(
    account: AccountId,
    scrape: Scrape = True,
    as_of: Annotated[
        str | None, typer.Option(help="Evaluate the window of this past instant, ISO 8601 with a zone; see below.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="With --as-of: distance to the next instants, such as 30m, 1d. Default: 6h.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="With --as-of: how many instants, the first one included. Default: 1.")
    ] = None,
    first_known: Annotated[
        bool,
        typer.Option("--first-known", help="Before the first scrape of Advisor or catalogue let that one stand in."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate one account now, through Dagster: scrape, predict, decide, log. Prints the decisions.

    With --as-of it is a past window that is evaluated and logged, marked as retrospective: market and fleet are those
    known then, steering, versions and settings those of now. Scraping means here what AWS still tells of the past:
    ended Spot instances and 90 days of prices. What is logged already stays as it is.
    """
    if as_of is not None:
        when = instants(as_of, every or "6h", count or 1)
        past = evaluate_as_of(account, when, scrape=scrape, first_known=first_known)
        print_rows([vars(each) for each in past], as_json=as_json, empty="Nothing was evaluated.")
        return
    if first_known or every or count:
        raise typer.BadParameter("--first-known, --every and --count belong to --as-of.")
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.cli.decisions import print_decisions
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import evaluate_account, open_instance
    from spotlab_pipelines.experiments.queries import latest_decisions

    with database(read_settings()) as engine:
        found = get_account(engine, account)
        with open_instance() as instance:
            if scrape:
                scrape_shared(instance)
            outcome = evaluate_account(instance, defs, account, progress=progress)
        if not outcome.success:
            raise outcome.failure()
        decisions = latest_decisions(engine, account, outcome.window_start)
    if as_json or decisions.empty:
        print_rows(records(decisions), as_json=as_json, empty="The account has no running instances.")
    else:
        print_decisions(found, decisions, outcome.window_start)


@app.command("list")
def experiments_list(
    account: OnlyAccount = None,
    limit: Annotated[int, typer.Option(help="How many, latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the evaluations, latest first."""
    from spotlab_pipelines.experiments.queries import list_experiments

    with database(read_settings()) as engine:
        found = list_experiments(engine, account, limit)
    if not as_json:
        # A terminal's width: the whole rows are for scripts. The window is told as `show` and `replay` take it.
        found = found.assign(window_start=found["window_start"].map(exact))[LISTED]
    nothing = f"Nothing was evaluated yet of {account or 'any account'}: `spotlab evaluate ACCOUNT`."
    print_rows(records(found), as_json=as_json, empty=nothing)


@app.command("show")
def experiments_show(
    account: AccountId,
    window: Annotated[str | None, typer.Option(help="Start of its window, ISO 8601. Default: the latest.")] = None,
    as_json: Json = False,
) -> None:
    """Show one evaluation: what is on record of it, and the rows of the log with their ids, as `replay` takes them."""
    from spotlab_pipelines.database.evaluations import EvaluationKey
    from spotlab_pipelines.experiments.queries import evaluation_row, logged_rows

    start = None if window is None else instant(window)
    with database(read_settings()) as engine:
        evaluation = evaluation_row(engine, account, start)
        found = logged_rows(engine, EvaluationKey(account, evaluation["window_start"]))
    if as_json:
        print_json({"evaluation": evaluation, "rows": records(found)})
        return
    for version, why in evaluation["details"].get("failed_versions", {}).items():
        print(f"failed: {version}: {visible(why)}")
    for name, value in evaluation.items():
        if value not in (None, {}):
            print(f"{name}: {visible(str(value))}")
    print_rows(records(found[SHOWN]), as_json=False, empty="")


def replay(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT_ID", help="Id of a row of the log, or an account.")],
    window: Annotated[
        str | None, typer.Argument(metavar="[WINDOW]", help="With an account: replay its whole evaluation of it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute what was logged from the archive and the pinned model; say whether it is identical, bit for bit.

    Only what was recorded with the evaluation counts, never today's settings or roles. Writes nothing.
    """
    from spotlab_pipelines.errors import PermanentError

    wanted = experiment_wanted(experiment, window)
    try:
        replays = replayed(wanted)
    except PermanentError as error:
        complain(error)
        raise typer.Exit(NOT_REPLAYED) from None
    if as_json:
        print_json([shown(each) for each in replays])
    else:
        tell(replays)
    verdicts = {each.verdict for each in replays}
    if verdicts != {"identical"}:
        raise typer.Exit(DIFFERENT if "differs" in verdicts else NOT_REPLAYED)


def experiment_wanted(experiment: str, window: str | None) -> UUID | EvaluationKey:
    """What the arguments of `replay` name; ends the command where they name nothing."""
    from spotlab_pipelines.database.evaluations import EvaluationKey

    if window is not None:
        return EvaluationKey(experiment, instant(window))
    try:
        return UUID(experiment)
    except ValueError:
        raise typer.BadParameter(
            f"Expected the id of a row of the log, or an account and a window; got {experiment!r}."
        ) from None


def instant(text: str) -> datetime:
    """An instant from the command line: ISO 8601 with a time zone."""
    try:
        found = datetime.fromisoformat(text)
        if found.utcoffset() is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"Expected an ISO 8601 time with a zone, such as 2026-01-31T12:00:00+00:00; got {text!r}.")


def instants(first: str, every: str, count: int) -> list[datetime]:
    """The instants from `first` on, `every` (a number with m, h or d) apart."""
    found = re.fullmatch(r"([1-9]\d{0,4})([mhd])", every)
    if found is None:
        raise typer.BadParameter(f"Expected a distance such as 30m, 6h or 1d; got {every!r}.")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
    start, step = instant(first), timedelta(**{unit: int(found[1])})
    try:
        return [start + number * step for number in range(count)]
    except OverflowError:
        raise typer.BadParameter(f"{count} instants, {every} apart, lead beyond all calendars.") from None


def evaluate_as_of(account: str, at: list[datetime], *, scrape: bool, first_known: bool) -> list[PastEvaluation]:
    """Evaluate past windows of an account; with `scrape`, bring first what AWS still tells of them."""
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.experiments.as_of import bring_past, evaluate_past
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive

    settings = read_settings()
    with database(settings) as engine:
        archive, registry = Archive(settings.archive_location), ModelRegistry(engine, settings)
        if scrape:
            progress("what AWS still tells of the past", "started")
            sessions = AccountSessions.of(settings, engine)
            bring_past(settings, engine, sessions, archive, [account], at)
        return evaluate_past(
            settings, engine, archive, registry, [account], at, first_known=first_known, progress=progress
        )


def replayed(wanted: UUID | EvaluationKey) -> list[Replay]:
    """Replay a row of the log, or all rows of an evaluation."""
    from spotlab_pipelines.experiments.replay import replay_evaluation, replay_experiment
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive

    settings = read_settings()
    with database(settings) as engine:
        archive, registry = Archive(settings.archive_location), ModelRegistry(engine, settings)
        if isinstance(wanted, UUID):
            return replay_experiment(engine, archive, registry, wanted)
        return replay_evaluation(engine, archive, registry, wanted)


def tell(replays: list[Replay]) -> None:
    """Print the verdicts: a line each that says more than identical, and how many of which there are."""
    for each in replays:
        row = f"{each.instance_id} under {each.model_version} at {each.horizon_h} h"
        if each.verdict != "identical" or len(replays) == 1:
            print(f"{row}: {each.verdict}" + (f": {each.why}" if each.why else ""))
        for difference in each.differences:
            print(f"  {difference.field}: logged {difference.logged!r}, recomputed {difference.recomputed!r}")
    if len(replays) > 1:
        counts = {verdict: sum(each.verdict == verdict for each in replays) for verdict in ("identical", "differs")}
        told = [f"{count} {verdict}" for verdict, count in counts.items()]
        print(f"{len(replays)} rows: {', '.join(told)}, {len(replays) - sum(counts.values())} cannot be replayed.")


def shown(each: Replay) -> dict[str, Any]:
    """A replay for a script."""
    return vars(each) | {"differences": [vars(difference) for difference in each.differences]}
