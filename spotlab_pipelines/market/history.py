"""The market as it was known at an instant, read from the archive into the very frames that the cache gives.

`known_at` asks for what scrapes with fetched_at <= known_at had brought, and nothing later; without it the archive says
all it knows by now, of an earlier time too. A scrape in flight counts from its fetched_at on, so an answer is final
when the scrapes that began before `known_at` have ended.

Facts (price changes, observations) count as soon as the file that brought them is whole, and each counts once, from the
scrape that first brought it. A document (Advisor, catalogue) counts when its scrape is on record, that is to say whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import Market
from spotlab_pipelines.market.changes import Changes, concatenated
from spotlab_pipelines.market.documents import read_document
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import (
    ADVISOR_COLUMNS,
    CATALOGUE_COLUMNS,
    ON_DEMAND_COLUMNS,
    among,
    family_of,
    text,
)
from spotlab_pipelines.market.layout import (
    INSTANCE_CATALOGUE,
    SPOT_ADVISOR,
    SPOT_PRICES,
)
from spotlab_pipelines.market.reading import read_changes, read_observations
from spotlab_pipelines.market.records import Cover, Document, records_backwards, rows_of


class MarketHistory:
    """What `archive` knows of the market, or knew at an instant.

    Raises (all methods):
        StoreUnavailable: the archive cannot be read.
        ArchiveTooNew, IntegrityError: a file is not one that this code reads.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def prices(self, cover: Cover, *, start: datetime, end: datetime, known_at: datetime | None = None) -> pd.DataFrame:
        """Price changes in (start, end] and each pool's last one at or before `start`, each once.

        Args:
            cover: (region, family) -> (types, products).
            known_at: only those that a scrape had brought by then. None: all, since prices are public when they change.

        Returns:
            Price changes frame, by region, family, type, zone, product and time.
        """
        return self.changes(cover, start=start, end=end, known_at=known_at).frame()

    def changes(self, cover: Cover, *, start: datetime, end: datetime, known_at: datetime | None = None) -> Changes:
        """The same as sorted arrays."""
        parts = []
        for region in sorted({region for region, _ in cover}):
            here = {family: asked for (name, family), asked in cover.items() if name == region}
            types = {name for types, _ in here.values() for name in types}
            parts.append(
                covered(read_changes(self.archive, region, types, end=end, known_at=known_at), cover).in_force(
                    start, end
                )
            )
        return concatenated(parts) if len(parts) != 1 else parts[0]

    def advisor(
        self, regions: Collection[str], types: Collection[str], *, known_at: datetime | None = None
    ) -> pd.DataFrame:
        """Advisor rows of the newest scrape at or before `known_at`, by region and type.

        Raises:
            NotFound: no scrape of it had ended well by then.
        """
        frame = self.document(SPOT_ADVISOR, known_at=known_at, regions=regions).frame
        return _by(frame[among(frame["instance_type"], types)], "region", "instance_type")[list(ADVISOR_COLUMNS)]

    def catalogue(self, types: Collection[str], *, known_at: datetime | None = None) -> pd.DataFrame:
        """Catalogue rows of the newest scrape at or before `known_at`, by type; errors as in `advisor`."""
        return _of_types(self._catalogue(known_at).frame, types)

    def on_demand(
        self, regions: Collection[str], types: Collection[str], *, known_at: datetime | None = None
    ) -> pd.DataFrame:
        """On-demand rows of the newest catalogue at or before `known_at`, by type; errors as in `advisor`."""
        return _on_demand(self._catalogue(known_at).frame, regions, types)

    def observations(
        self,
        regions: Collection[str],
        types: Collection[str] | None = None,
        *,
        start: datetime,
        end: datetime,
        known_at: datetime | None = None,
    ) -> pd.DataFrame:
        """Pool observations in (start, end], each once, by pool and time.

        Returns:
            Frame (pool key, observed_at, available, kind, source).
        """
        frame = read_observations(self.archive, regions, start=start, end=end, known_at=known_at)
        rows = frame if types is None else frame[among(frame["instance_type"], types)]
        return rows.drop(columns="fetched_at").reset_index(drop=True)

    def market_at(
        self,
        wanted: Wanted,
        *,
        t: datetime,
        window: timedelta,
        known_at: datetime | None = None,
        observed_days: float = 0.0,
    ) -> Market:
        """What an evaluation would have read from the cache: prices in (t - window, t] and all else as of `known_at`.

        Args:
            known_at: what counts as known; `t` if not given.
            observed_days: how many days of pool observations up to `t` to read; 0: none, and the market has none.

        Raises:
            NotFound: something that is wanted had not been scraped by then.
        """
        known_at = t if known_at is None else known_at
        cover = cover_of(wanted)
        changes = self.changes(cover, start=t - window, end=t, known_at=known_at)
        every_type = {name for names in wanted.types.values() for name in names}
        document = self.document(SPOT_ADVISOR, known_at=known_at, regions=wanted.types)
        advised = document.frame
        advisor = pd.concat(
            [
                advised[(advised["region"] == region) & among(advised["instance_type"], names)]
                for region, names in wanted.types.items()
            ]
            or [advised]
        )
        listed = len(advisor[["region", "instance_type"]].drop_duplicates())
        catalogue = self._catalogue(known_at)
        counts = Counter(self.price_scrapes(cover, known_at))
        counts[document.origin] = len(wanted.types) + listed
        counts[catalogue.origin] = catalogue.frame["instance_type"].nunique()
        return Market(
            prices=changes.frame(),
            pools=changes.pools,
            pool_of_change=changes.pool,
            advisor=_by(advisor, "region", "instance_type")[list(ADVISOR_COLUMNS)],
            catalogue=_of_types(catalogue.frame, every_type),
            on_demand=_on_demand(catalogue.frame, wanted.types, every_type),
            sources=_sources(counts),
            observations=self.observations(
                wanted.types, every_type, start=t - timedelta(days=observed_days), end=t, known_at=known_at
            )
            if observed_days
            else None,
        )

    def records(self, until: datetime | None) -> Iterator[pd.DataFrame]:
        """The records of scrapes up to `until`, None for all, the newest first; see `records_backwards`."""
        return records_backwards(self.archive, until=until)

    def price_scrapes(self, cover: Cover, known_at: datetime | None) -> list[tuple[str, str, datetime, str]]:
        """For each of `cover` the newest scrape that covers it, those that reached the cache first: its source row."""
        found: dict[tuple[str, str], tuple[str, str, datetime, str]] = {}
        unpublished = dict(found)
        for frame in self.records(known_at) if cover else ():
            for row in rows_of(frame, SPOT_PRICES):
                key = (row["scraped_region"], row["family"])
                asked = cover.get(key)
                if asked and set(row["types"]).issuperset(asked[0]) and set(row["products"]).issuperset(asked[1]):
                    origin = (row["source"], row["scrape_id"], row["fetched_at"].to_pydatetime(), row["note"])
                    (found if row["published"] else unpublished).setdefault(key, origin)
            if found.keys() == cover.keys():
                break
        found = unpublished | found
        when = "" if known_at is None else f" at or before {known_at.isoformat()}"
        for region, family in cover:
            if (region, family) not in found:
                raise NotFound(
                    f"The archive {self.archive.url} has no scrape of all wanted prices of {family} in {region}{when}.",
                    remedy="Materialise spot_prices, or ask for a later time.",
                )
        return [found[key] for key in cover]

    def document(
        self, source: str, *, known_at: datetime | None = None, regions: Collection[str] | None = None
    ) -> Document:
        """What a source's newest scrape at or before `known_at` found; errors as in `advisor`.

        Args:
            regions: those whose rows are wanted, None for all.
        """
        return read_document(self.archive, source, known_at=known_at, regions=regions)

    def _catalogue(self, known_at: datetime | None) -> Document:
        document = self.document(INSTANCE_CATALOGUE, known_at=known_at)
        return replace(document, frame=_by(document.frame, "instance_type"))


def cover_of(wanted: Wanted) -> Cover:
    """The families that are wanted, with the types and products of each."""
    return {
        (region, family): (
            tuple(name for name in wanted.types[region] if name.partition(".")[0] == family),
            wanted.products[region],
        )
        for region, families in wanted.families.items()
        for family in families
    }


def covered(changes: Changes, cover: Cover) -> Changes:
    """The changes of the types and products of `cover`, which may ask for other products of each family."""
    if changes.pools.empty:
        return changes
    pools = changes.pools.assign(family=family_of(changes.pools["instance_type"]))
    wanted = np.zeros(len(pools), dtype=bool)
    for (region, family), (types, products) in cover.items():
        here = (pools["region"] == region) & (pools["family"] == family)
        wanted |= here.to_numpy() & among(pools["instance_type"], types) & among(pools["product"], products)
    return changes if wanted.all() else changes.take(wanted[changes.pool])


def _by(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame.sort_values(list(columns), kind="stable", ignore_index=True)


def _of_types(catalogue: pd.DataFrame, types: Collection[str]) -> pd.DataFrame:
    rows = catalogue[among(catalogue["instance_type"], types)].drop_duplicates("instance_type", ignore_index=True)
    return rows[list(CATALOGUE_COLUMNS)]


def _on_demand(catalogue: pd.DataFrame, regions: Collection[str], types: Collection[str]) -> pd.DataFrame:
    rows = catalogue[among(catalogue["instance_type"], types) & among(catalogue["region"], regions)]
    return rows[rows["on_demand_usd_per_hour"].notna()].reset_index(drop=True)[list(ON_DEMAND_COLUMNS)]


def _sources(counts: Counter[tuple[str, str, datetime, str]]) -> pd.DataFrame:
    """As the cache's reader tells them: source, scrape_id, fetched_at, keys, stale, note."""
    columns = list(zip(*counts, strict=True)) or [()] * 4
    return pd.DataFrame(
        {
            "source": text(columns[0]),
            "scrape_id": text(columns[1]),
            "fetched_at": pd.DatetimeIndex(columns[2], tz="UTC").as_unit("us"),
            "keys": np.array(list(counts.values()), dtype="int64"),
            "stale": np.zeros(len(counts), dtype=bool),
            "note": text(columns[3]),
        }
    )
