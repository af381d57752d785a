"""Rows of archived scrapes: which files to read, side by side, and again if they are merged meanwhile.

What the rows mean, and what was known when, is history.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from spotlab_pipelines.accounts.frames import TIME as TIME_DTYPE
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS, text
from spotlab_pipelines.market.layout import FACTS, POOL_OBSERVATIONS, SPOT_PRICES, ScrapeFile
from spotlab_pipelines.market.parquet import GroupRange, to_frame

PARALLEL_READS = 8
TRIES = 20
PRICE = FACTS[SPOT_PRICES][-1]
TIME = pa.timestamp("us", tz="UTC")
T = TypeVar("T")


def read_listed(
    archive: Archive,
    kind: str,
    region: str | None,
    read: Callable[[list[ScrapeFile]], T],
    *,
    date: str | None = None,
) -> T:
    """Call `read` with the files of a kind, region and date, until none of them was merged away meanwhile.

    Compaction first writes a merged file, then removes what it merged. A listing is not taken at one instant and may
    show neither: then the next one shows a merged file that it did not.
    """
    for _ in range(TRIES):
        files = archive.scrape_files(kind, region, date)
        try:
            found = read(files)
        except FileNotFoundError:
            continue
        after = set(archive.scrape_files(kind, region, date))
        if after.issuperset(files) and not any(file.merged for file in after.difference(files)):
            return found
    raise StoreUnavailable(
        f"Expected to read the {kind} of {region or 'all regions'}, but their files changed {TRIES} times meanwhile.",
        remedy="Try again later, and let only one maintenance of the archive run at a time.",
    )


def read_files(
    archive: Archive,
    files: Sequence[ScrapeFile],
    columns: Sequence[str] | None = None,
    *,
    dictionaries: Sequence[str] = (),
    wanted: Callable[[GroupRange], bool] | None = None,
) -> list[pa.Table]:
    """The rows of the files, side by side; see Archive.read_scrape."""

    def one(file: ScrapeFile) -> pa.Table:
        return archive.read_scrape(file, columns, dictionaries=dictionaries, wanted=wanted)

    if len(files) < 2:
        return [one(file) for file in files]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(one, files))


Counts = Callable[[ScrapeFile], bool]
"""Which files to read."""


def read_facts(
    archive: Archive, kind: str, region: str, *, known_at: datetime | None = None, counts: Counts | None = None
) -> pd.DataFrame:
    """The archived facts of a kind in one region, each once, as the scrape that first brought it told it.

    Args:
        known_at: only those that a scrape had brought by then.
        counts: which files to read, None for all.

    Returns:
        The kind's columns with region and fetched_at, sorted by what identifies a fact.
    """
    identity = list(FACTS[kind])

    def read(files: list[ScrapeFile]) -> list[pa.Table]:
        return read_files(archive, [file for file in files if counts is None or counts(file)])

    tables = read_listed(archive, kind, region, read)
    frame = pd.concat([_no_facts(kind), *map(to_frame, tables)], ignore_index=True)
    if known_at is not None:
        frame = frame[frame["fetched_at"] <= pd.Timestamp(known_at)]
    frame = frame.sort_values("fetched_at", kind="stable").drop_duplicates(identity)
    return frame.assign(region=text([region] * len(frame))).sort_values(identity, ignore_index=True)


def read_observations(
    archive: Archive,
    regions: Collection[str],
    *,
    start: datetime,
    end: datetime | None = None,
    known_at: datetime | None = None,
) -> pd.DataFrame:
    """The archived pool observations after `start` and up to `end`, each once, by pool and time.

    Args:
        known_at: only those that a scrape had brought by then.

    Returns:
        Pool observations frame with `fetched_at`, that of the scrape which first brought the row.
    """

    def written(file: ScrapeFile) -> bool:
        # What was observed after `start` was written after it.
        return file.fetched_at > start

    kind = POOL_OBSERVATIONS
    parts = [read_facts(archive, kind, region, known_at=known_at, counts=written) for region in sorted(regions)]
    frame = pd.concat(parts, ignore_index=True).rename(columns={"observation": "kind"})
    frame = frame[frame["observed_at"] > pd.Timestamp(start)]
    if end is not None:
        frame = frame[frame["observed_at"] <= pd.Timestamp(end)]
    columns = list(OBSERVATION_COLUMNS)
    return frame.sort_values(columns, ignore_index=True)[[*columns, "fetched_at"]]


def new_facts(archive: Archive, kind: str, frame: pd.DataFrame, *, counts: Counts | None = None) -> pd.DataFrame:
    """The rows of `frame` that the archive does not have yet, in any region; repeats within it are dropped.

    Args:
        counts: which files to compare with; a writer leaves out those that may yet be removed, see records.py.
    """
    identity = ["region", *FACTS[kind]]
    regions = frame["region"].unique()
    known = pd.concat([read_facts(archive, kind, region, counts=counts) for region in regions] or [frame.iloc[:0]])
    rows = frame.drop_duplicates(identity, ignore_index=True)
    seen = rows[identity].merge(known[identity].drop_duplicates(), on=identity, how="left", indicator=True)
    return rows[(seen["_merge"] == "left_only").to_numpy()].reset_index(drop=True)


def read_changes(
    archive: Archive,
    region: str,
    types: Collection[str],
    *,
    end: datetime | None = None,
    known_at: datetime | None = None,
    counts: Counts | None = None,
) -> Changes:
    """The archived price changes of `types` in one region up to `end`, each once.

    Args:
        known_at: only those that a scrape had brought by then.
        counts: which files to read, None for all.
    """
    names = sorted(types)
    texts = FACTS[SPOT_PRICES][:3]

    def wanted(ranges: GroupRange) -> bool:
        of_types, changed, fetched = (ranges(name) for name in ("instance_type", "changed_at", "fetched_at"))
        return (
            (of_types is None or any(of_types[0] <= name <= of_types[1] for name in names))
            and (end is None or changed is None or changed[0] <= end)
            and (known_at is None or fetched is None or fetched[0] <= known_at)
        )

    def read(files: list[ScrapeFile]) -> Changes:
        chosen = [file for file in files if counts is None or counts(file)]
        if known_at is not None:
            chosen = [file for file in chosen if file.merged or file.fetched_at <= known_at]
        columns = [*FACTS[SPOT_PRICES], "fetched_at"]
        tables = read_files(archive, chosen, columns, dictionaries=texts, wanted=wanted)
        tables = [_cut(table, end, known_at) for table in tables]
        empty = pa.schema([(name, pa.string()) for name in texts] + [("changed_at", TIME), (PRICE, pa.float64())])
        table = pa.concat_tables(tables, promote_options="permissive") if tables else empty.empty_table()
        return Changes.of_table(table, region, types)

    return read_listed(archive, SPOT_PRICES, region, read)


def _cut(table: pa.Table, end: datetime | None, known_at: datetime | None) -> pa.Table:
    """The rows up to `end` that were known at `known_at`, without fetched_at."""
    for name, limit in (("changed_at", end), ("fetched_at", known_at)):
        if limit is not None and len(table) and pc.call_function("max", [table[name]]).as_py() > limit:
            table = table.filter(pc.call_function("less_equal", [table[name], pa.scalar(limit, TIME)]))
    return table.drop_columns(["fetched_at"])


def _no_facts(kind: str) -> pd.DataFrame:
    """The columns of a kind without rows, with the dtypes that its files give."""
    special = {"changed_at": TIME_DTYPE, "observed_at": TIME_DTYPE, "available": "bool", PRICE: "float64"}
    dtypes = {name: special.get(name, "str") for name in FACTS[kind]} | {"fetched_at": TIME_DTYPE}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})
