"""What the demo prints: progress, a table of decisions per account, a line per store, and how to look further."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.database.redis import connect_redis
from spotlab_pipelines.defs.run import RunOutcome
from spotlab_pipelines.experiments.queries import latest_decisions, row_counts
from spotlab_pipelines.settings import Settings

DESTINATIONS = {"STAY": "stays", "FALLBACK_ON_DEMAND": "on-demand", "SKIP": "unknown"}
STYLES = {"STAY": "green", "SWITCH": "cyan", "FALLBACK_ON_DEMAND": "yellow", "SKIP": "red"}


def console() -> Console:
    """A console wide enough for the decisions where the output is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=172)


def decisions_table(title: str, decisions: pd.DataFrame) -> Table:
    """The decisions of one evaluation, a line per instance and version; the version that acts comes first.

    A version in shadow gives its reason only where it decides otherwise.

    Args:
        decisions: as `experiments.queries.latest_decisions` gives them.
    """
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", show_lines=False)
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
            f"{_pool(row.from_pool)}\n→ {DESTINATIONS.get(row.decision) or _pool(row.to_pool)}",
            _probabilities(row),
            _costs(row),
            f"{row.model_version}\n{_part(row)}",
            f"[{STYLES[row.decision]}]{row.decision}[/]" + ("" if says_the_same else f"\n{row.reason}"),
            style=None if row.acting else "dim",
        )
        previous = row.instance_id
    return table


def print_decisions(screen: Console, engine: sa.Engine, account: Account, outcome: RunOutcome) -> None:
    """An account's decisions of this evaluation, or the one line that says why there are none."""
    title = f"{account.account_id} {account.name} ({account.environment}, owned by {account.owner_email})"
    if outcome.success:
        decisions = latest_decisions(engine, account.account_id, outcome.window_start)
        screen.print("", decisions_table(title, decisions))
    else:
        screen.print(f"\n[red]{title}: {outcome.failed_step} failed: {outcome.error}[/]")


def print_stores(screen: Console, settings: Settings, engine: sa.Engine) -> None:
    """A line per store with what it holds now."""
    tables = row_counts(engine)
    keys = Counter(key.partition(b":")[0].decode() for key in connect_redis(settings).scan_iter(count=1000))
    files = list(Path(settings.archive_location).rglob("*.parquet"))
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    artifacts = sum(path.is_file() for path in settings.mlruns_dir.rglob("*"))
    screen.print("\n[bold]What the stores hold now[/]", highlight=False)
    for store, held in (
        ("Postgres", ", ".join(f"{tables[name]:,} {name}" for name in sorted(tables))),
        ("Redis", ", ".join(f"{count:,} {kind}" for kind, count in sorted(keys.items()))),
        ("Archive", f"{len(files):,} Parquet files, {size_mb:.1f} MB in {settings.archive_location}"),
        ("MLflow", f"{tables['tracking_runs']:,} runs of (account, version), {artifacts:,} artifact files in mlruns/"),
    ):
        screen.print(f"  [bold]{store:9}[/] {held}", highlight=False)


def _pool(pool_id: str) -> str:
    """The product is only worth its width where it is not Linux."""
    return pool_id.removesuffix(":Linux/UNIX")


def _probabilities(row: Any) -> str:
    values = (row.p_current_1h, row.p_current_6h, row.p_current_12h)
    if pd.isna(values[0]):
        return "none: on-demand" if row.decision != "SKIP" else "unknown"
    return " / ".join(f"{100 * value:.2f}" for value in values)


def _costs(row: Any) -> str:
    now, then = row.from_cost_usd_per_hour, row.to_cost_usd_per_hour
    if pd.isna(now):
        return "unknown"
    return f"{now:.4f} → {now if pd.isna(then) else then:.4f}"


def _part(row: Any) -> str:
    """The version's role, and whether the row could ever be acted on."""
    if not row.acting:
        return f"{row.model_role}, shadow"
    return f"{row.model_role}, {'only logged' if row.shadow else 'acts'}"
