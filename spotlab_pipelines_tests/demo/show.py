"""What the demo prints: progress, a table of decisions per account, a line per store, and how to look further."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.report import AccessReport
from spotlab_pipelines.cli.decisions import account_title, decisions_table
from spotlab_pipelines.defs.run import RunOutcome
from spotlab_pipelines.experiments.as_of import PastEvaluation
from spotlab_pipelines.experiments.page_text import PAST
from spotlab_pipelines.experiments.pages import EXPERIMENT
from spotlab_pipelines.experiments.queries import latest_decisions
from spotlab_pipelines.inference.mlflow_store import mlflow_client, ui_page
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.terminal import visible
from spotlab_pipelines_tests.demo.holdings import Holdings
from spotlab_pipelines_tests.demo.stage import Judgement


def print_decisions(screen: Console, engine: sa.Engine, account: Account, outcome: RunOutcome) -> None:
    """An account's decisions of this evaluation, or the one line that says why there are none."""
    title = account_title(account)
    if outcome.success:
        decisions = latest_decisions(engine, account.account_id, outcome.window_start)
        screen.print("", decisions_table(title, decisions, watched=account.environment == "PROD"))
    else:
        screen.print(f"\n[red]{escape(title)}: {escape(str(outcome.failure()))}[/]", highlight=False)


def print_past(screen: Console, past: Sequence[PastEvaluation]) -> None:
    """A line about the past windows, and what stood in for what was not known then."""
    if not past:
        screen.print("      The accounts have a past from an earlier demo.", highlight=False)
        return
    accounts = len({each.account_id for each in past})
    rows, since = sum(each.rows_written for each in past), min(each.window_start for each in past)
    stood_in = ", ".join(sorted({source for each in past for source in each.first_known}))
    screen.print(
        f"      {len(past)} windows of {accounts} accounts since {since:%Y-%m-%d %H:%M} UTC,"
        f" {rows:,} rows in the log; not known then, so the first scrape stood in: {stood_in or 'nothing'}.",
        highlight=False,
        soft_wrap=True,
    )


def print_stores(screen: Console, settings: Settings, before: Holdings, now: Holdings) -> None:
    """A line per store: what it holds, and in brackets what this run added."""
    before_files, files = sum(before.archive.values()), sum(now.archive.values())
    new_mb, mb = (now.archive_bytes - before.archive_bytes) / 1e6, now.archive_bytes / 1e6
    archive = f"{files:,} ({files - before_files:+,}) Parquet files, {mb:.1f} ({new_mb:+.1f}) MB"
    screen.print("\n[bold]What the stores hold now, and in brackets what this run added[/]", highlight=False)
    for store, held in (
        ("Postgres", _grown(before.postgres, now.postgres)),
        ("Redis", f"{_grown(before.redis, now.redis)}; {now.redis_writes - before.redis_writes:,} values were set"),
        ("Archive", f"{archive}: {_grown(before.archive, now.archive)}; in {settings.archive_location}"),
        ("MLflow", _grown(before.mlflow, now.mlflow)),
    ):
        screen.print(f"  [bold]{store:9}[/] {escape(held)}", highlight=False, soft_wrap=True)


def print_access(screen: Console, accounts: list[Account], reports: list[AccessReport]) -> None:
    """A line per account: what validation found at AWS, and what SpotLab therefore does."""
    screen.print("\n[bold]Access to the accounts, as tried out at AWS[/]", highlight=False)
    for account, report in zip(accounts, reports, strict=True):
        if report.verdict == "ok":
            regions = ", ".join(each.region for each in report.regions)
            allowed = f"{len(report.permissions)} permissions in {regions}"
            found = f"opens with its external id, stays shut without one and with a wrong one; {allowed}"
        else:
            consequence = "refused, not evaluated" if report.verdict == "lax" else "skipped from now on"
            found = f"{consequence}: {report.reason}"
        verdict = f"[{'green' if report.verdict == 'ok' else 'red'}]{report.verdict:6}[/]"
        screen.print(
            f"  {account.account_id} {escape(visible(account.name)):12} {verdict} {escape(found)}",
            highlight=False,
            soft_wrap=True,
        )


def print_scorecards(screen: Console, judgement: Judgement) -> None:
    """A line per version on what its predictions were worth, and what a comparison with the champion shows."""
    screen.print(
        "\n[bold]What the predictions within 6 h were worth, by what became of the instances[/]", highlight=False
    )
    table = Table(header_style="bold")
    for name in ("version", "predictions", "n with outcome", "events", "Brier skill [95 %]", "ROC-AUC", "verdict"):
        table.add_column(name, overflow="fold")
    verdicts = {each.second.version: each.verdict for each in judgement.comparisons}
    champions = {each.first.version for each in judgement.comparisons}
    for card in judgement.cards:
        row, verdict = card.row(), verdicts.get(card.version)
        skill = "none: both outcomes are needed"
        if card.skill is not None:
            skill = f"{card.skill.mean:+.3f} [{card.skill.low:+.3f}, {card.skill.high:+.3f}]"
        auc = "" if row["roc_auc"] is None else f"{row['roc_auc']:.3f}"
        said = "" if verdict is None else verdict.verdict
        table.add_row(
            Text(card.version), str(card.predictions), str(row["n"]), str(row["events"]), Text(skill), auc,
            "champion" if card.version in champions else said,
        )  # fmt: skip
    screen.print(table)
    for each in judgement.comparisons:
        screen.print(
            f"  {each.second.version} against {each.first.version}, a single look: {each.verdict.why}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    past = max((card.retrospective for card in judgement.cards), default=0)
    screen.print(
        f"  Up to {past} of the predictions of a version are of past windows. It was fitted on what was before them;"
        f" {PAST}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def print_failure(screen: Console, why: str) -> None:
    """One red line."""
    screen.print(f"  [red]✗[/] {escape(' '.join(why.split()))}", highlight=False, soft_wrap=True)


def how_to_look_further(screen: Console, market: Path | None) -> None:
    """The next things to try: only what works now that all is stopped again."""
    recording = "" if market is None else f" MARKET={shlex.quote(str(market))}"
    # The command line finds data that lies elsewhere only if it is told where.
    data_dir = os.environ.get("SPOTLAB_DATA_DIR")
    where = "" if data_dir is None else f"SPOTLAB_DATA_DIR={shlex.quote(data_dir)} "
    screen.print("\n[bold]How to look further[/]")
    for command, what in (
        (f"make dev{recording}", "the Dagster UI, MLflow and the local AWS on this same data, until Ctrl-C"),
        (f"make demo{recording}", "once more: a second evaluation of the same accounts"),
        (f"{where}.venv/bin/spotlab experiments list", "every evaluation so far (starts the stores, which stay up)"),
        (f"{where}.venv/bin/spotlab models list", "what may be served (likewise)"),
        (f"{where}.venv/bin/spotlab models scorecard advisor-rate/1", "what a version was worth (likewise)"),
        (f"{where}make down", "stops the stores; the data stays"),
    ):
        screen.print(f"  {command:53} {what}", highlight=False, markup=False, soft_wrap=True)


def versions_page(settings: Settings) -> str:
    """Where MLflow's UI shows the versions beside each other; its list of experiments before there are scorecards."""
    found = mlflow_client(settings).get_experiment_by_name(EXPERIMENT)
    return ui_page(settings, "experiments" if found is None else f"experiments/{found.experiment_id}/runs")


class Told:
    """Something under way on the screen: called with a step and its state; `fail` makes its end a red one."""

    def __init__(self, what: str, status: Status) -> None:
        self.what, self.status = what, status
        self.failure: str | None = None

    def __call__(self, step: str, state: str) -> None:
        self.status.update(escape(f"{self.what}: {step} {state}"))

    def fail(self, why: str) -> None:
        """It is over, and this is what went wrong."""
        self.failure = why


@contextmanager
def told(screen: Console, what: str) -> Iterator[Told]:
    """Show that something is under way, the step it is at, how long it took, and whether it went well."""
    began = time.monotonic()
    with screen.status(f"{escape(what)} ...") as status:
        telling = Told(what, status)
        try:
            yield telling
        except BaseException:
            screen.print(f"  [red]✗[/] {escape(what)}")
            raise
    took = f"{escape(what)} ({time.monotonic() - began:.1f} s)"
    if telling.failure is None:
        screen.print(f"  [green]✓[/] {took}")
    else:
        print_failure(screen, f"{what} ({time.monotonic() - began:.1f} s): {telling.failure}")


def _grown(before: dict[str, int], now: dict[str, int]) -> str:
    """Each count, and in brackets by how much it has grown since; what there is none of is left out."""
    parts = []
    for kind, count in now.items():
        change = count - before.get(kind, 0)
        if count or change:
            parts.append(f"{count:,}{f' ({change:+,})' if change else ''} {kind}")
    return ", ".join(parts) or "nothing"
