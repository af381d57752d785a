"""Taking an imported trace out of the archive, on record. What was learned from it is not touched."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from spotlab_pipelines.accounts.acting import acting
from spotlab_pipelines.database.audit import record_alone
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.errors import SpotLabError, StoreUnavailable
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.compaction import replace_files
from spotlab_pipelines.market.layout import POOL_TRACES, ScrapeFile
from spotlab_pipelines.market.reading import TRIES, read_files, read_listed
from spotlab_pipelines.market.trace_reading import ListedTrace, listed_traces
from spotlab_pipelines.market.traces import TRACES_LOCK

if TYPE_CHECKING:
    import sqlalchemy as sa


def remove_trace(engine: sa.Engine, archive: Archive, name: str, *, actor: str | None = None) -> list[ListedTrace]:
    """Remove all rows of a trace from the archive; what it was. Killed on the way, it is done again.

    Other traces stay, those in the same files too. It is on record before the first file goes, as none of them comes
    back: killed on the way it stands there as done, though the trace is still listed. What is left of it until it is
    done again nobody reads (trace_reading.py), and nobody else gets its name (traces.py).

    Args:
        actor: who removes it; None for the person at the command line.

    Raises:
        NotAllowed: the actor may not.
        NotFound: there is no such trace.
        StoreUnavailable: a store does not answer, or compaction brings the rows back time and again.
    """
    with acting(engine, "remove_trace", actor=actor, subject=name) as connection:
        # No import at the same time.
        lock(connection, TRACES_LOCK)
        found = listed_traces(archive, name)
        contents = {"content_ids": [each.content_id for each in found], "rows": sum(each.rows for each in found)}
        record_alone(engine, "remove_trace", actor=actor, subject=name, **contents)
        try:
            _remove_rows(archive, name)
        # Also what is not an Exception: a removal that is cancelled on the way is not done either.
        except BaseException as error:
            failed = {"outcome": "failed", "reason": f"{type(error).__name__}: {error}"}
            with suppress(SpotLabError):
                record_alone(engine, "remove_trace", actor=actor, subject=name, **failed, **contents)
            raise
    return found


def _remove_rows(archive: Archive, name: str) -> None:
    for _ in range(TRIES):
        held = _files_with(archive, name)
        if not held:
            return
        for file, table in held:
            # One that is merged away meanwhile: the next round finds its rows elsewhere.
            with suppress(FileNotFoundError):
                replace_files(archive, [file], table.filter(pc.field("trace") != name))
    raise StoreUnavailable(
        f"Expected to remove the trace {name}, but its files changed {TRIES} times meanwhile.",
        remedy="Try again later, and let no compaction of the archive run at the same time.",
    )


def _files_with(archive: Archive, name: str) -> list[tuple[ScrapeFile, pa.Table]]:
    """The files that hold rows of the trace, and all that they hold."""

    def read(files: list[ScrapeFile]) -> list[tuple[ScrapeFile, pa.Table]]:
        return list(zip(files, read_files(archive, files), strict=True))

    found = read_listed(archive, POOL_TRACES, None, read)
    return [(file, table) for file, table in found if name in table["trace"].unique().to_pylist()]
