"""What the demo prints: progress, a table of decisions per account, a line per store, and how to look further."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pandas as pd
import sqlalchemy as sa
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.report import AccessReport
from spotlab_pipelines.defs.run import RunOutcome
from spotlab_pipelines.experiments.as_of import PastEvaluation
from spotlab_pipelines.experiments.queries import latest_decisions
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.terminal import visible
from spotlab_pipelines_tests.demo.holdings import Holdings
from spotlab_pipelines_tests.demo.stage import Judgement

DESTINATIONS = {"STAY": "stays", "FALLBACK_ON_DEMAND": "on-demand", "SKIP": "unknown"}
STYLES = {"STAY": "green", "SWITCH": "cyan", "FALLBACK_ON_DEMAND": "yellow", "SKIP": "red"}


def console() -> Console:
    """A console wide enough for the decisions where the output is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=172)


def decisions_table(title: str, decisions: pd.DataFrame, *, watched: bool = False) -> Table:
    """The decisions of one evaluation, a line per instance and version; the version that decides comes first.

    A version in shadow gives its reason only where it decides otherwise.

    Args:
        decisions: as `experiments.queries.latest_decisions` gives them.
        watched: the whole account is a PROD one, whose decisions are only logged.
    """
    table = Table(
        title=Text(visible(title)), title_justify="left", title_style="bold", header_style="bold", show_lines=False
    )
    for name in (
        "instance",
        "from pool\n→ to pool",
        "interrupted within\n1 h / 6 h / 12 h, in %",
        "USD per hour\nnow → then",
        "version\nrole, shadow or not",
    ):
        table.add_column(name, no_wrap=True)
    table.add_column("decision\nreason", overflow="fold", min_width=40)
    acting = decisions[decisions["acting"]].set_index("instance_id")["decision"]
    previous = None
    for row in cast("Iterable[Any]", decisions.itertuples(index=False)):
        if previous is not None and previous != row.instance_id:
            table.add_section()
        says_the_same = not row.acting and row.decision == acting.get(row.instance_id)
        table.add_row(
            row.instance_id if previous != row.instance_id else "",
            Text(f"{_pool(row.from_pool)}\n→ {DESTINATIONS.get(row.decision) or _pool(row.to_pool)}"),
            _probabilities(row),
            _costs(row),
            Text(f"{row.model_version}\n{_part(row, watched=watched)}"),
            f"[{STYLES[row.decision]}]{row.decision}[/]" + ("" if says_the_same else f"\n{escape(row.reason)}"),
            style=None if row.acting else "dim",
        )
        previous = row.instance_id
    return table


def print_decisions(screen: Console, engine: sa.Engine, account: Account, outcome: RunOutcome) -> None:
    """An account's decisions of this evaluation, or the one line that says why there are none."""
    title = f"{account.account_id} {account.name} ({account.environment}, owned by {account.owner_email})"
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
        f"  Up to {past} of the predictions of a version are of past windows: they show, but promote nobody.",
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
        (f"{where}.venv/bin/spotlab models scorecard logistic/1", "what a version was worth (likewise)"),
        (f"{where}make down", "stops the stores; the data stays"),
    ):
        screen.print(f"  {command:39} {what}", highlight=False, markup=False, soft_wrap=True)


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


def _pool(pool_id: str) -> str:
    """The product is only worth its width where it is not Linux."""
    return pool_id.removesuffix(":Linux/UNIX")


def _probabilities(row: Any) -> str:
    values = (row.p_current_1h, row.p_current_6h, row.p_current_12h)
    if pd.isna(values[0]):
        return "none: on-demand" if row.decision != "SKIP" else "unknown"
    return " / ".join(_percent(value) for value in values)


def _percent(probability: float) -> str:
    """A probability in %, to two digits; one that would read 0.00 is not taken for none."""
    percent = 100 * probability
    return "<0.01" if 0 < percent < 0.005 else f"{percent:.2f}"


def _costs(row: Any) -> str:
    now, then = row.from_cost_usd_per_hour, row.to_cost_usd_per_hour
    if pd.isna(now):
        return "unknown"
    return f"{now:.4f} → {now if pd.isna(then) else then:.4f}"


def _part(row: Any, *, watched: bool) -> str:
    """The version's role, and what becomes of its decision. Nothing acts on an instance yet."""
    if not row.acting:
        return f"{row.model_role}, shadow"
    return f"{row.model_role}, {'only logged' if row.shadow or watched else 'decides'}"
