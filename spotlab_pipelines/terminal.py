"""How the command line talks: progress and errors in lines on stderr, results as a table or as JSON on stdout."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from spotlab_pipelines import errors

if TYPE_CHECKING:
    from rich.console import Console

SHORT, FOLDED = 28, 16
"""Letters of a cell that is not folded where a longer one is left so many."""
EXACT = 2.0**53
"""Whole numbers up to here are counts as likely as not, and shown digit by digit."""
PERMANENT, USAGE, TRANSIENT, PROBLEMS = 1, 2, 3, 4


def progress(step: str, state: str) -> None:
    """Report a step of a longer work."""
    typer.echo(f"{step}: {state}", err=True)


def records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a DataFrame, for `print_rows`; what is missing (NaN, NaT) becomes None, JSON's null."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def visible(text: str) -> str:
    """Text in which what a terminal would obey or hide shows as an escape: controls, directions, zero width.

    Names and addresses come from people, errors quote them, and rows may be older than the rules of today.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def complain(error: errors.SpotLabError) -> int:
    """Report an error in one line; return the exit code that belongs to it."""
    typer.echo(f"spotlab: {visible(' '.join(str(error).split()))}", err=True)
    return TRANSIENT if isinstance(error, errors.TransientError) else PERMANENT


def unwritable(error: OSError) -> errors.LocalStackError | None:
    """Our error for a file that a library could not read or write; None if it is of another kind, such as a socket's.

    Artifacts are written by MLflow and Dagster, which pass on what the operating system says.
    """
    if error.filename is None:
        return None
    return errors.LocalStackError(
        f"{error.filename} cannot be used: {error.strerror}.",
        remedy="Give this user the right to it, or set SPOTLAB_MLRUNS_DIR or SPOTLAB_DATA_DIR to another place.",
    )


def print_json(value: Any) -> None:
    """Print a value as JSON; times and ids as text."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


def print_rows(rows: list[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows of the same columns as a table, or as JSON; `empty` is the sentence for none."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(empty)
        return
    from rich.table import Column, Table
    from rich.text import Text

    screen = console()
    cells = [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(rows[0], *cells, strict=True)]
    # Where there is room, long texts alone are folded: ids and times are copied from here.
    room = sum(width if width <= SHORT else FOLDED for width in widths) + 3 * len(widths) + 1 <= screen.width
    # Folded, not cut: half an id is no use to anybody.
    columns = (
        Column(name, overflow="fold", no_wrap=room and width <= SHORT)
        for name, width in zip(rows[0], widths, strict=True)
    )
    table = Table(*columns, header_style="bold")
    for row in cells:
        # As Text: in a plain string rich would look for markup, and "[/eu]" in somebody's name would end the listing.
        table.add_row(*(Text(cell) for cell in row))
    screen.print(table)


def print_figures(columns: list[tuple[str, dict[str, Any]]], meanings: dict[str, str]) -> None:
    """Print figures as a table that fits a terminal: a line for each of `meanings`, a column for each of `columns`."""
    print_rows(
        [
            {"figure": name} | {title: figures.get(name) for title, figures in columns} | {"what it is": meaning}
            for name, meaning in meanings.items()
        ],
        as_json=False,
        empty="",
    )


def console(width: int = 10_000) -> Console:
    """The console for tables; into a pipe or a file it is `width` wide, so that nothing is cut to a terminal's."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=width)


def exact(time: datetime) -> str:
    """A time to the microsecond, as the options of the command line take it."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        if value.is_integer() and abs(value) < EXACT:
            return f"{value:.0f}"
        return f"{value:.4g}"
    if isinstance(value, datetime):
        # To the second, in UTC: a terminal's width; JSON has all of it.
        return f"{value.astimezone(UTC) if value.tzinfo else value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return ", ".join(f"{visible(str(name))} {_cell(each)}" for name, each in value.items())
    return ", ".join(map(_cell, value)) if isinstance(value, list | tuple) else visible(str(value))
