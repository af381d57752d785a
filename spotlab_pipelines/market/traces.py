"""Public traces of pools, as labelled history: imported once each, on record, and kept apart from live observations.

A trace lies in the archive like a scrape, under the kind `pool_traces`, its name in each row. What its columns mean is
stated by whoever imports it (trace_statement.py). Reading them is trace_reading.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import acting, check_rights
from spotlab_pipelines.database.audit import record as put_on_record
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import AuditEntry
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.frames import POOL_KEY, text
from spotlab_pipelines.market.layout import POOL_TRACES
from spotlab_pipelines.market.scrapes import recorded
from spotlab_pipelines.market.trace_files import read_rows
from spotlab_pipelines.market.trace_reading import read_trace, trace_content, trace_contents
from spotlab_pipelines.market.trace_statement import TraceStatement, observations_from

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ACCOUNTS = "accounts"
"""No trace: where a trace may be named, the Spot requests of the accounts."""
TRACES_LOCK = "pool_traces"
"""Held by whoever adds or removes a trace."""


@dataclass(frozen=True)
class TraceReport:
    """What `import_trace` did; a trace that was there already has `stored` False.

    Attributes:
        content_id: the hash of its observations, whatever the file looked like.
        repeated: rows of the file that said once more what another one did; they count once.
        both_at_once: times at which a pool is told to be available and to have failed; the failure is the later then.
        first, last: the times of its first and last observation.
    """

    name: str
    content_id: str
    stored: bool
    rows: int
    pools: int
    available: int
    failed: int
    repeated: int
    both_at_once: int
    first: datetime
    last: datetime


def import_trace(
    engine: sa.Engine,
    archive: Archive,
    path: Path,
    name: str,
    statement: TraceStatement,
    *,
    columns: Sequence[str] = (),
    actor: str | None = None,
) -> TraceReport:
    """Store a file's observations as the trace `name`, once: the same ones again are not stored again.

    Args:
        columns: the names of a CSV file's columns, if it has no line that names them.
        actor: who imports it; None for the person at the command line.

    Raises:
        NotAllowed: the actor may not.
        NotFound: there is no such file.
        InvalidInput: the statement does not fit the file, or the name is that of another trace, or the trace has
            another name.
        SourceMalformed: rows cannot be read. In all these cases nothing is stored.
        StoreUnavailable: a store does not answer.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(f"Expected a name of letters, digits, dot, dash and underscore; got {name!r}.")
    if name == ACCOUNTS:
        raise InvalidInput(
            f"Expected another name than {ACCOUNTS!r}; it stands for the accounts' own Spot requests.",
            remedy="Choose another --name.",
        )
    check_rights(engine, "import_trace", actor=actor, subject=name)
    # Before a row in the database or a file in the archive: what cannot be read leaves nothing.
    now = datetime.now(UTC)
    told = observations_from(read_rows(path, columns=columns), statement, name=name, now=now)
    frame = told.drop_duplicates(ignore_index=True)
    found = trace_content(frame)
    details = {"file": path.name, "content_id": found, "rows": len(frame), "statement": _told(statement)}
    # One import at a time: two of the same trace at once are one.
    with acting(engine, "import_trace", actor=actor, subject=name) as connection:
        lock(connection, TRACES_LOCK)
        before = _on_record(connection)
        stored = not _is_there(archive, name, found)
        if stored and (name, found) not in before:
            # Versions learned from a removed trace by its name.
            _refuse_another(before, name, found, "was")
        if stored:
            with recorded(engine, POOL_TRACES) as scrape:
                scrape.provenance = {"trace": name, **details}
                rows = frame.drop(columns="source").rename(columns={"kind": "observation"})
                identity = {column: text([value]).repeat(len(rows)) for column, value in _named(name, found)}
                scrape.keep(archive, rows.assign(**identity))
        # Also if an import was killed before it was on record, or the archive came from elsewhere.
        if stored or (name, found) not in before:
            put_on_record(connection, "import_trace", actor=actor, subject=name, **details)
    return TraceReport(
        name=name,
        content_id=found,
        stored=stored,
        rows=len(frame),
        pools=len(frame[[*POOL_KEY]].drop_duplicates()),
        available=int(frame["available"].sum()),
        failed=int((~frame["available"]).sum()),
        repeated=len(told) - len(frame),
        both_at_once=int((frame.groupby([*POOL_KEY, "observed_at"])["available"].nunique() > 1).sum()),
        first=frame["observed_at"].min().to_pydatetime(),
        last=frame["observed_at"].max().to_pydatetime(),
    )


def _is_there(archive: Archive, name: str, found: str) -> bool:
    """Whether this very trace is there under this name.

    Raises:
        InvalidInput: it is there under another name, or another one has this name.
        IntegrityError: it is there under this name, but not all of it.
    """
    there = trace_contents(archive)
    _refuse_another(there, name, found, "is")
    if (name, found) not in there:
        return False
    read_trace(archive, name)
    return True


def _on_record(connection: sa.Connection) -> set[tuple[str, str]]:
    """Every trace that was ever imported or removed here: its name and its content."""
    query = sa.select(AuditEntry.subject, AuditEntry.details).where(
        AuditEntry.action.in_(("import_trace", "remove_trace")), AuditEntry.outcome == "done"
    )
    return {
        (str(name), content)
        for name, details in connection.execute(query).tuples()
        for content in details.get("content_ids", [details.get("content_id")])
    }


def _refuse_another(traces: Iterable[tuple[Any, Any]], name: str, found: str, there: str) -> None:
    for trace, content in traces:
        if (trace == name) != (content == found):
            what = f"another one, of content {content[:12]}" if trace == name else f"this one, named {trace!r}"
            raise InvalidInput(
                f"Expected a trace that is not there yet; {what}, {there}.",
                remedy="Give another name." if trace == name else f"Use {trace!r}.",
            )


def _named(name: str, found: str) -> tuple[tuple[str, str], ...]:
    return ("trace", name), ("content_id", found)


def _told(statement: TraceStatement) -> dict[str, Any]:
    """A statement for the record."""
    told = {name: value for name, value in vars(statement).items() if value not in (None, (), {})}
    for name in ("region", "zone", "instance_type", "product"):
        told[name] = {key: value for key, value in vars(told[name]).items() if value is not None}
    return told | ({} if statement.start is None else {"start": statement.start.isoformat()})
