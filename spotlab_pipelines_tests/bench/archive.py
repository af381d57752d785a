"""The archive against what reads and writes Parquet best: pyarrow for ingesting, DuckDB for looking back.

Two months of us-east-1 prices, about 600,000 change points of 4,900 pools. To ingest is what a scrape does with rows
as AWS sends them: sort them, drop repeats, leave out what the archive has, write the rest and the scrape's record; its
floor is a plain pyarrow write and read of the same table, zstd as well. To look back is to read the archive as it was
known and give each pool's price at 1,000 instants, with its extremes and its number of changes over a week; its floor
is a DuckDB ASOF join of the same pools and instants over the same files, of the price alone.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.frames import family_of
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import RECORDS, SPOT_PRICES
from spotlab_pipelines.market.reading import read_changes
from spotlab_pipelines.market.records import Cover, RecordEntry, record_frame
from spotlab_pipelines_tests.bench.measure import Figure, best_of
from spotlab_pipelines_tests.bench.recorded import REGION, two_months

ROUNDS = 5
INSTANTS = 1000
WINDOW = timedelta(days=7)
ASOF = """
    with prices as (select * from read_parquet('{files}', hive_partitioning=true)),
         pools as (select distinct region, instance_type, az_id, product from prices)
    select asked.*, prices.spot_price_usd_per_hour, prices.changed_at as price_changed_at
    from (select * from pools cross join instants) asked
    asof join prices using (region, instance_type, az_id, product, changed_at)
"""


def figures() -> list[Figure]:
    """Best of five, side by side."""
    frame, what = two_months()
    scraped_at = frame["changed_at"].max().to_pydatetime() + timedelta(minutes=1)
    with tempfile.TemporaryDirectory(prefix="spotlab-bench-") as folder:
        return [_ingest(Path(folder), frame, what, scraped_at), _look_back(Path(folder), frame, what, scraped_at)]


def _ingest(folder: Path, frame: pd.DataFrame, what: str, scraped_at: datetime) -> Figure:
    table = pa.table({name: pa.array(column.array) for name, column in frame.items() if name != "changed_at"})
    ticks = pd.DatetimeIndex(frame["changed_at"]).asi8.view("M8[us]")
    table = table.append_column("changed_at", pa.array(ticks, pa.timestamp("us", tz="UTC")))
    plain = folder / "plain.parquet"

    def fresh() -> None:
        shutil.rmtree(folder / "ingested", ignore_errors=True)

    def write_and_read() -> None:
        pq.write_table(table, plain, compression="zstd")
        assert len(pq.read_table(plain)) == len(frame)

    measured_s, floor_s = best_of(
        ROUNDS, lambda: ingest(Archive(str(folder / "ingested")), frame, scraped_at), write_and_read, before=fresh
    )
    name = f"ingest of {len(frame):,} price changes ({what})"
    return Figure(name, measured_s, "pyarrow write + read", floor_s, 2.0, "sorted, de-duplicated, compared, recorded")


def ingest(archive: Archive, frame: pd.DataFrame, scraped_at: datetime) -> Cover:
    """What a scrape does to the archive with validated rows."""
    fetched = Changes.of(frame)
    types = set(fetched.pools["instance_type"])
    new = fetched.not_in(read_changes(archive, REGION, types))
    scrape: dict[str, Any] = {"fetched_at": scraped_at, "scrape_id": uuid4()}
    for region, table in new.by_region().items():
        archive.write_scrape(kind=SPOT_PRICES, region=region, frame=table, **scrape)
    products = tuple(sorted(new.pools["product"].unique()))
    by_family = new.pools["instance_type"].drop_duplicates()
    cover: Cover = {
        (REGION, str(family)): (tuple(names), products) for family, names in by_family.groupby(family_of(by_family))
    }
    entries = [
        RecordEntry(REGION, len(frame), family=family, types=names, products=products)
        for (_, family), (names, _) in cover.items()
    ]
    archive.write_scrape(kind=RECORDS, region=None, frame=record_frame(SPOT_PRICES, entries), **scrape)
    return cover


def _look_back(folder: Path, frame: pd.DataFrame, what: str, scraped_at: datetime) -> Figure:
    import duckdb

    archive = Archive(str(folder / "archive"))
    cover = ingest(archive, frame, scraped_at)
    first, last = frame["changed_at"].min() + WINDOW, frame["changed_at"].max()
    instants = pd.date_range(first, last, periods=INSTANTS).as_unit("us")
    files = f"{archive.url}/scrapes/kind={SPOT_PRICES}/**/*.parquet"
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    connection.register("instants", pd.DataFrame({"changed_at": instants}))

    def floor() -> pa.Table:
        return connection.sql(ASOF.format(files=files)).to_arrow_table()

    found = look_back(archive, cover, list(instants.to_pydatetime()), scraped_at)
    joined = floor()
    assert len(found) == len(joined)
    theirs = joined["spot_price_usd_per_hour"].to_numpy()
    assert np.array_equal(np.sort(found["spot_price_usd_per_hour"]), np.sort(theirs))
    measured_s, floor_s = best_of(
        ROUNDS, lambda: look_back(archive, cover, list(instants.to_pydatetime()), scraped_at), floor
    )
    name = f"as_of at {INSTANTS:,} instants: {len(found):,} rows ({what})"
    return Figure(
        name, measured_s, "DuckDB ASOF join", floor_s, 2.0, "with the week's extremes; the floor is the price"
    )


def look_back(archive: Archive, cover: Cover, instants: list[datetime], known_at: datetime) -> pd.DataFrame:
    """What was known at `known_at` of every pool's price at each instant."""
    changes = MarketHistory(archive).changes(cover, start=min(instants) - WINDOW, end=max(instants), known_at=known_at)
    history = PriceHistory(changes.pools, changes.pool, changes.changed_at, changes.price)
    return history.windows_at(instants, WINDOW)
