"""The decisions of an evaluation as a table that a person reads; every column of them is in `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spotlab_pipelines.terminal import console, exact, visible

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from spotlab_pipelines.accounts.registry import Account

WIDTH = 140
"""Columns of a page or a file that the table is written to."""
DESTINATIONS = {"STAY": "stays", "FALLBACK_ON_DEMAND": "on-demand", "SKIP": "unknown"}
STYLES = {"STAY": "green", "SWITCH": "cyan", "FALLBACK_ON_DEMAND": "yellow", "SKIP": "red"}


def account_title(account: Account) -> str:
    """The title of an account's table."""
    return f"{account.account_id} {account.name} ({account.environment}, owned by {account.owner_email})"


def print_decisions(account: Account, decisions: pd.DataFrame, window_start: datetime) -> None:
    """Print an account's decisions of one window, and the command that shows how they were logged."""
    title = account_title(account)
    console(WIDTH).print(decisions_table(title, decisions, watched=account.environment == "PROD"))
    show = f"spotlab experiments show {account.account_id} --window {exact(window_start)}"
    print(f"As logged, row by row: {show}")


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
    # Three lines a row rather than six columns: a decision has to be seen on a terminal of 100 columns too.
    for name in (
        "instance\nfrom pool\n→ to pool",
        "interrupted within\n1 h / 6 h / 12 h, in %\nUSD/h: now → then",
        "version\nrole, shadow or not",
    ):
        table.add_column(name, overflow="fold")
    table.add_column("decision\nreason", overflow="fold", min_width=18)
    acting = decisions[decisions["acting"]].set_index("instance_id")["decision"]
    previous = None
    for row in cast("Iterable[Any]", decisions.itertuples(index=False)):
        if previous is not None and previous != row.instance_id:
            table.add_section()
        says_the_same = not row.acting and row.decision == acting.get(row.instance_id)
        table.add_row(
            Text(
                ("" if previous == row.instance_id else f"{row.instance_id}\n")
                + f"{_pool(row.from_pool)}\n→ {DESTINATIONS.get(row.decision) or _pool(row.to_pool)}"
            ),
            f"{_probabilities(row)}\n{_costs(row)}",
            Text(f"{row.model_version}\n{_part(row, watched=watched)}"),
            f"[{STYLES[row.decision]}]{row.decision}[/]" + ("" if says_the_same else f"\n{escape(row.reason)}"),
            style=None if row.acting else "dim",
        )
        previous = row.instance_id
    return table


def missing(value: Any) -> bool:
    """Whether there is no such figure: None, or nan."""
    return value is None or value != value


def _pool(pool_id: str) -> str:
    """The product is only worth its width where it is not Linux."""
    return pool_id.removesuffix(":Linux/UNIX")


def _probabilities(row: Any) -> str:
    values = (row.p_current_1h, row.p_current_6h, row.p_current_12h)
    if missing(values[0]):
        return "none: on-demand" if row.decision != "SKIP" else "unknown"
    return " / ".join(_percent(value) for value in values)


def _percent(probability: float) -> str:
    """A probability in %, to two digits; one that would read 0.00 is not taken for none."""
    percent = 100 * probability
    return "<0.01" if 0 < percent < 0.005 else f"{percent:.2f}"


def _costs(row: Any) -> str:
    now, then = row.from_cost_usd_per_hour, row.to_cost_usd_per_hour
    if missing(now):
        return "unknown"
    return f"{now:.4f} → {now if missing(then) else then:.4f}"


def _part(row: Any, *, watched: bool) -> str:
    """The version's role, and what becomes of its decision. Nothing acts on an instance yet."""
    if not row.acting:
        return f"{row.model_role}, shadow"
    return f"{row.model_role}, {'only logged' if row.shadow or watched else 'decides'}"
