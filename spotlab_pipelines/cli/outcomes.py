"""`spotlab outcomes`: what really happened, to our own instances and in public traces."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotlab_pipelines.cli.shared import (
    EXIT_CODES,
    AccountId,
    As,
    Json,
    acting_as,
    database,
    read_settings,
    wrong_usage,
)
from spotlab_pipelines.terminal import print_figures, print_rows, records

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.market.traces import TraceReport

IMPORT_EXAMPLES = f"""
Probes (Parquet; 1 = available):
spotlab outcomes import probes.parquet --name probes --time-column ts --region-column region --zone-column az
--type-column instance_type --product Linux/UNIX --available-when available=1 --failed-when available=0

Events of instances (CSV):
spotlab outcomes import events.csv --name events --time-column ts --region us-east-1 --zone-column az
--type-column instance_type --product Linux/UNIX --available-when event=created --available-when event=running
--failed-when event=not_running --ignore-when event=create_failed --ignore-when event=deleted
--kind created=launch --kind running=running --kind not_running=interruption

Running or not, every 34 s, from a start that only you know (JSON):
spotlab outcomes import v100.json --name v100 --time-column "#" --time-unit 34s --start 2023-04-22T00:00Z
--region us-west-2 --zone us-west-2b --type p3.2xlarge --product Linux/UNIX
--available-when data=1 --failed-when data=0 --kind running

Added and removed nodes (CSV without a line of names):
spotlab outcomes import p3.csv --name p3 --columns ms,event,node --time-column ms --time-unit ms
--start 2022-01-01T00:00Z --region us-east-1 --zone use1-az1 --type p3.2xlarge --product Linux/UNIX
--available-when event=add --failed-when event=remove --kind add=launch --kind remove=interruption

{EXIT_CODES}
"""

IMPORTED = {
    "stored": "whether it was stored now; the same trace is stored once",
    "content_id": "the hash of its observations, whatever the file looks like",
    "rows": "observations, each counted once",
    "pools": "of region, type, zone and product",
    "available": "observations that found capacity",
    "failed": "observations that found none",
    "repeated": "rows of the file that say once more what another one does",
    "both_at_once": "times at which a pool is told to be both available and failed",
    "first": "time of the first observation, in UTC",
    "last": "and of the last",
}

app = typer.Typer(no_args_is_help=True, help="What really happened to instances and pools.", epilog=EXIT_CODES)


@app.command("import", epilog=IMPORT_EXAMPLES)
def outcomes_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .parquet, .csv, .json or .jsonl file.")],
    name: Annotated[str, typer.Option(help="What the trace is called from now on.")],
    time_column: Annotated[str, typer.Option(help="The column of times; # for the row's number, from 0.")],
    available_when: Annotated[
        list[str], typer.Option(metavar="COLUMN=VALUE", help="Such a row says that the pool had capacity; repeatable.")
    ],
    failed_when: Annotated[
        list[str], typer.Option(metavar="COLUMN=VALUE", help="Such a row says that it had none; repeatable.")
    ],
    ignore_when: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Such a row says nothing; repeatable.")
    ] = None,
    region_column: Annotated[str | None, typer.Option(help="The column of regions.")] = None,
    region: Annotated[str | None, typer.Option(help="The region of all rows.")] = None,
    zone_column: Annotated[str | None, typer.Option(help="The column of zones: ids, or the trace's own names.")] = None,
    zone: Annotated[str | None, typer.Option(help="The zone of all rows.")] = None,
    type_column: Annotated[str | None, typer.Option(help="The column of instance types.")] = None,
    instance_type: Annotated[str | None, typer.Option("--type", help="The instance type of all rows.")] = None,
    product_column: Annotated[str | None, typer.Option(help="The column of product descriptions.")] = None,
    product: Annotated[str | None, typer.Option(help="The product of all rows, such as Linux/UNIX.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[VALUE=]KIND",
            help="What was observed: probe, launch, running or interruption; of all rows, or of those with a value of "
            "the column that tells available from failed. Default: probe.",
        ),
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="The unit of times that are numbers: s, ms, us, or a step such as 34s.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The zone of times that name none, such as UTC or America/Los_Angeles.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="When times that are numbers begin, with a zone; else 1970.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="The names of a CSV file's columns, if it names none.")
    ] = None,
    as_user: As = None,
    as_json: Json = False,
) -> None:
    """Take a public trace as labelled history of pools, to train and test on.

    Every value of the column that says what happened has to be stated as available, failed or ignored; nothing is
    guessed. A row that cannot be read is named, and then nothing is stored. The same observations are stored once.
    """
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.trace_statement import Told, TraceStatement, check_statement
    from spotlab_pipelines.market.traces import import_trace

    kinds = [text.rpartition("=") for text in kind or []]
    if len({value for value, *_ in kinds}) < len(kinds):
        raise typer.BadParameter("expected one --kind for all rows, and one for each value")
    statement = TraceStatement(
        time=time_column,
        region=Told(region_column, region),
        zone=Told(zone_column, zone),
        instance_type=Told(type_column, instance_type),
        product=Told(product_column, product),
        available=_pairs(available_when),
        failed=_pairs(failed_when),
        ignored=_pairs(ignore_when or []),
        kind=next((said for _, equals, said in kinds if not equals), "probe"),
        kinds={value: said for value, equals, said in kinds if equals},
        time_unit=time_unit,
        time_zone=time_zone,
        start=None if start is None else _instant(start),
    )
    with wrong_usage():
        check_statement(statement)
    settings = read_settings()
    with database(settings) as engine:
        report = import_trace(
            engine, Archive(settings.archive_location), file, name, statement,
            columns=[] if columns is None else columns.split(","), actor=acting_as(engine, as_user),
        )  # fmt: skip
    if as_json:
        print_rows([vars(report)], as_json=True, empty="")
    else:
        print_figures([(report.name, vars(report) | {"content_id": report.content_id[:12]})], IMPORTED)
    for doubt in _doubts(report):
        typer.echo(f"note: {doubt}", err=True)


def _doubts(report: TraceReport) -> list[str]:
    """What whoever imports a trace should look at, a sentence each."""
    told = []
    if report.both_at_once:
        told.append(
            f"{report.both_at_once} times a pool is told to be available and to have failed at one instant; the failure"
            " counts as the later: the pool was not available then."
        )
    if 2 * report.failed > report.rows:
        told.append(
            f"{report.failed} of {report.rows} observations failed, more than half; see whether --available-when and"
            " --failed-when are the right way round."
        )
    return told


@app.command("resolve")
def outcomes_resolve(
    account_id: AccountId,
    read: Annotated[
        bool, typer.Option("--read/--no-read", help="First read the account's fleet and interruptions from AWS.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Learn what became of an account's logged instances, and count it. Dagster does so every hour."""
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.experiments.learning import learn_outcomes
    from spotlab_pipelines.experiments.outcomes import resolve_outcomes

    settings = read_settings()
    with database(settings) as engine:
        get_account(engine, account_id)
        if read:
            report = learn_outcomes(AccountSessions.of(settings, engine), engine, account_id)
        else:
            report = resolve_outcomes(engine, account_id, datetime.now(UTC))
    print_rows([vars(report)], as_json=as_json, empty="")


@app.command("list")
def outcomes_list(
    account_id: AccountId,
    limit: Annotated[int, typer.Option(help="At most so many rows.")] = 50,
    as_json: Json = False,
) -> None:
    """List what became of an account's logged instances, the latest window first."""
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.experiments.outcomes import list_outcomes

    with database(read_settings()) as engine:
        get_account(engine, account_id)
        outcomes = list_outcomes(engine, account_id, limit)
    if not as_json:
        outcomes = _shown(outcomes)
    print_rows(records(outcomes), as_json=as_json, empty="Nothing is resolved yet: `spotlab outcomes resolve ACCOUNT`.")


def _shown(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: how each instance ended and when, or until when it was seen running; all else is JSON's."""
    ended = outcomes["ended_by"].radd("ended by ").fillna("seen running")
    return outcomes[["window_start", "instance_id", "instance_type"]].assign(
        outcome=ended.mask(outcomes["interrupted_at"].notna(), "interrupted"),
        at=outcomes["interrupted_at"].fillna(outcomes["watched_until"]),
        source=outcomes["source"],
    )


def _pairs(stated: list[str]) -> tuple[tuple[str, str], ...]:
    for text in stated:
        if "=" not in text:
            raise typer.BadParameter(f"expected COLUMN=VALUE, got {text!r}")
    return tuple((column, value) for column, _, value in (text.partition("=") for text in stated))


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected a time such as 2023-04-22T00:00Z, got {text!r}") from None
