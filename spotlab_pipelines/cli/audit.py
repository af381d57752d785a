"""`spotlab audit`: who did what, when, with which outcome."""

from __future__ import annotations

from typing import Annotated

import typer

from spotlab_pipelines.cli.shared import Json, OnlyAccount, acting_as, database, read_settings
from spotlab_pipelines.terminal import print_rows

LISTED = ("at", "actor", "action", "account_id", "subject", "outcome")


def audit(
    account: OnlyAccount = None,
    action: Annotated[str | None, typer.Option(help="Only this kind of act, such as approve_model.")] = None,
    by: Annotated[str | None, typer.Option(metavar="EMAIL", help="Only what this user did.")] = None,
    limit: Annotated[int, typer.Option(help="How many, latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the audit log, latest first; --json has reasons and details too."""
    from spotlab_pipelines.database.audit import list_entries

    with database(read_settings()) as engine:
        actor = acting_as(engine, by)
        rows = list_entries(engine, account_id=account, action=action, actor=actor, limit=limit)
    if not as_json:
        # A terminal's width: the whole rows are for scripts.
        rows = [{name: row[name] for name in LISTED} for row in rows]
    print_rows(rows, as_json=as_json, empty="Nothing of the kind is on record.")
