"""Imported traces as the archive has them: which there are, and what one observed. Storing them is traces.py's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.errors import IntegrityError, NotFound
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.canonical import content_id
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS, POOL_KEY, check_observations, text
from spotlab_pipelines.market.layout import FACTS, POOL_TRACES, ScrapeFile
from spotlab_pipelines.market.parquet import to_frame
from spotlab_pipelines.market.reading import read_files, read_listed

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ListedTrace:
    """An imported trace: how many rows and pools, how many rows failed, first and last observation, when it came."""

    trace: str
    content_id: str
    rows: int
    pools: int
    failed: int
    first: datetime
    last: datetime
    imported_at: datetime


def read_trace(archive: Archive, name: str) -> pd.DataFrame:
    """The observations of a trace, each once, sorted by pool and time.

    Returns:
        Pool observations frame with `known_at`, which is `observed_at`: a trace is history, whenever it was imported.

    Raises:
        NotFound: there is no such trace.
        IntegrityError: what is there is not what was imported: it is just being imported, or an import or a removal was
            killed on its way.
    """
    stored = _read(archive, name).rename(columns={"observation": "kind"})
    if stored.empty:
        check_trace(archive, name)
    frame = stored.assign(source=text([f"trace {name}"] * len(stored)))
    frame = frame[list(OBSERVATION_COLUMNS)].drop_duplicates()
    if set(stored["content_id"]) != {trace_content(frame)}:
        raise IntegrityError(
            f"Expected the trace {name} as it was imported; its {len(frame)} rows in the archive are not all of it, or"
            " more.",
            remedy=f"Unless it is just being imported: `spotlab outcomes remove {name}`, then import it again.",
        )
    frame = check_observations(frame.sort_values(list(OBSERVATION_COLUMNS), ignore_index=True), f"Trace {name}")
    return frame.assign(known_at=frame["observed_at"])


def trace_content(observations: pd.DataFrame) -> str:
    """The hash of a trace's observations, whatever its file looked like and whatever it is called."""
    return content_id({"observations": observations.drop(columns="source")}, {})


def check_trace(archive: Archive, name: str) -> None:
    """Refuse a name that no imported trace has; of the archive only the names are read.

    Raises:
        NotFound: there is no such trace.
    """

    names = sorted({trace for trace, _ in trace_contents(archive)})
    if name not in names:
        raise NotFound(
            f"There is no trace {name!r}; there are: {', '.join(names) or 'none'}.",
            remedy="`spotlab outcomes import` adds one.",
        )


def trace_contents(archive: Archive) -> set[tuple[str, str]]:
    """Name and content of every trace in the archive; nothing else is read."""

    def read(files: list[ScrapeFile]) -> list[pa.Table]:
        return read_files(archive, files, ["trace", "content_id"])

    tables = [
        table.group_by(["trace", "content_id"]).aggregate([]) for table in read_listed(archive, POOL_TRACES, None, read)
    ]
    return {pair for table in tables for pair in zip(*(column.to_pylist() for column in table.columns), strict=True)}


def list_traces(archive: Archive) -> pd.DataFrame:
    """The imported traces by name.

    Returns:
        One row a trace, with the columns of ListedTrace.
    """
    # A killed compaction leaves rows twice.
    frame = _read(archive).drop_duplicates(["region", *FACTS[POOL_TRACES], "content_id"])
    pool = frame.groupby([*POOL_KEY]).ngroup()
    by_trace = frame.assign(pool=pool, failed=~frame["available"].astype(bool)).groupby(["trace", "content_id"])
    listed = by_trace.agg(
        rows=("failed", "size"),
        pools=("pool", "nunique"),
        failed=("failed", "sum"),
        first=("observed_at", "min"),
        last=("observed_at", "max"),
        imported_at=("fetched_at", "min"),
    )
    return listed.reset_index()[list(ListedTrace.__dataclass_fields__)]


def listed_traces(archive: Archive, name: str) -> list[ListedTrace]:
    """What the archive has under a name: one trace, or several where archives were put together.

    Raises:
        NotFound: there is no such trace.
    """
    check_trace(archive, name)
    traces = list_traces(archive)
    rows = traces[traces["trace"] == name].to_dict("records")
    return [ListedTrace(**{str(column): value for column, value in row.items()}) for row in rows]


def _read(archive: Archive, name: str | None = None) -> pd.DataFrame:
    """The archived rows of one trace, or of all."""

    def read(files: list[ScrapeFile]) -> list[tuple[str, pa.Table]]:
        regions = [file.region for file in files]
        return list(zip(regions, read_files(archive, files), strict=True))

    found = read_listed(archive, POOL_TRACES, None, read)
    parts = [_of_trace(to_frame(table), name).assign(region=region) for region, table in found]
    frame = pd.concat([_nothing(), *parts], ignore_index=True)
    return frame.astype(dict.fromkeys((*POOL_KEY, "trace", "content_id"), "str"))


def _of_trace(frame: pd.DataFrame, name: str | None) -> pd.DataFrame:
    return frame if name is None else frame[frame["trace"] == name]


def _nothing() -> pd.DataFrame:
    texts = dict.fromkeys((*POOL_KEY, "observation", "trace", "content_id"), "str")
    times = dict.fromkeys(("observed_at", "fetched_at"), "datetime64[us, UTC]")
    dtypes = texts | times | {"available": "bool"}
    return pd.DataFrame({column: pd.Series([], dtype=dtype) for column, dtype in dtypes.items()})
