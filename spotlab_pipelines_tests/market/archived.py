"""An archive filled by hand, without AWS or stores: what the tests of history and compaction have in common."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pandas as pd

from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.frames import POOL_KEY, text
from spotlab_pipelines.market.layout import RECORDS, SPOT_PRICES
from spotlab_pipelines.market.reading import read_changes
from spotlab_pipelines.market.records import Cover, RecordEntry, record_frame

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
REGION, PRODUCT = "us-east-1", "Linux/UNIX"
TYPES = ("m5-flex.large", "m5.large", "m5.xlarge")
COVER: Cover = {
    (REGION, "m5"): (("m5.large", "m5.xlarge"), (PRODUCT,)),
    (REGION, "m5-flex"): (("m5-flex.large",), (PRODUCT,)),
}
Change = tuple[str, str, float, float]
"""Type, zone, hours since NOON, USD per hour."""


def at(hours: float) -> datetime:
    """Hours since NOON."""
    return NOON + timedelta(hours=hours)


def price_frame(changes: Iterable[Change]) -> pd.DataFrame:
    """A price changes frame, in the order given."""
    rows = list(changes)
    return pd.DataFrame(
        {
            "region": text([REGION] * len(rows)),
            "instance_type": text([row[0] for row in rows]),
            "az_id": text([row[1] for row in rows]),
            "product": text([PRODUCT] * len(rows)),
            "changed_at": pd.DatetimeIndex([at(row[2]) for row in rows], tz="UTC").as_unit("us"),
            "spot_price_usd_per_hour": pd.Series([row[3] for row in rows], dtype="float64"),
        }
    )


def scrape(archive: Archive, number: int, fetched_at: datetime, changes: Iterable[Change]) -> pd.DataFrame:
    """What a scrape of prices does to the archive: it stores the changes that are not there, then its record."""
    held = read_changes(archive, REGION, TYPES)
    new = Changes.of(price_frame(changes)).not_in(held).frame()
    scrape_id = UUID(int=number)
    if len(new):
        archive.write_scrape(kind=SPOT_PRICES, region=REGION, fetched_at=fetched_at, scrape_id=scrape_id, frame=new)
    entries = [
        RecordEntry(REGION, len(new), family=family, types=types, products=products, zones=("use1-az1",))
        for (_, family), (types, products) in COVER.items()
    ]
    record = record_frame(SPOT_PRICES, entries)
    archive.write_scrape(kind=RECORDS, region=None, fetched_at=fetched_at, scrape_id=scrape_id, frame=record)
    return new


def every_row(archive: Archive, kind: str = SPOT_PRICES) -> pd.DataFrame:
    """All rows of a kind, as pandas reads them."""
    return pd.read_parquet(f"{archive.url}/scrapes/kind={kind}").astype({"region": "str", "date": "str"})


SORTED = [*POOL_KEY, "changed_at", "spot_price_usd_per_hour"]
