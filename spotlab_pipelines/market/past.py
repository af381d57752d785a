"""Markets of many past instants, for evaluations that look back: the archive is read once for all of them.

What counts as known at an instant is what had been scraped by then. Where nothing had, Spot prices are filled in from
later scrapes: AWS keeps them for 90 days, and a price is public from its change on. An Advisor entry or an on-demand
price is not: the scrape that was the first stands in for them only where the caller says so, and the market tells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import Market
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.frames import CATALOGUE_COLUMNS, among, family_of
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import INSTANCE_CATALOGUE, SPOT_PRICES
from spotlab_pipelines.market.records import Cover, Document, records_backwards


@dataclass(frozen=True)
class PastMarket:
    """A market as of an instant, and what of it was not known then.

    Attributes:
        first_known: sources whose first scrape came later and stands in.
        backfilled: whether prices come from later scrapes than the instant.
    """

    market: Market
    first_known: tuple[str, ...]
    backfilled: bool


class PastMarkets(MarketHistory):
    """A history that keeps what it has read: the records, each document, and the prices that were loaded.

    Args:
        first_known: whether the first scrape of a document stands in before it was scraped.
    """

    def __init__(self, archive: Archive, *, first_known: bool = False) -> None:
        super().__init__(archive)
        self._first_known = first_known
        self._records = list(records_backwards(archive))
        self._documents: dict[tuple[str, datetime], Document] = {}
        self._loaded: _Loaded | None = None
        self._asked: tuple[Cover, datetime, bool] | None = None

    def load(self, cover: Cover, *, start: datetime, end: datetime) -> None:
        """Read the prices that many instants will need: all that is known by now of (start, end]."""
        self._loaded = _Loaded.of(cover, super().changes(cover, start=start, end=end))

    def types_at(self, t: datetime) -> pd.DataFrame:
        """The catalogue of an instant, every type; errors as in `document`."""
        frame = self.document(INSTANCE_CATALOGUE, known_at=t).frame
        return frame.drop_duplicates("instance_type", ignore_index=True)[list(CATALOGUE_COLUMNS)]

    def at(self, wanted: Wanted, *, t: datetime, window: timedelta, observed_days: float = 0.0) -> PastMarket:
        """What is wanted of the market as of `t`.

        Args:
            observed_days: as in `market_at`; what had not been observed by a scrape is missing, nothing stands in.

        Raises:
            NotFound: something was not known then, and nothing may stand in for it.
        """
        market = self.market_at(wanted, t=t, window=window, observed_days=observed_days)
        late = set(market.sources[market.sources["fetched_at"] > pd.Timestamp(t)]["source"])
        if SPOT_PRICES in late and market.prices.empty:
            raise NotFound(
                f"The archive {self.archive.url} has no prices as old as {t.isoformat()}: the first scrape came later,"
                " and AWS keeps them for 90 days.",
                remedy="Ask for a later time.",
            )
        return PastMarket(market, first_known=tuple(sorted(late - {SPOT_PRICES})), backfilled=SPOT_PRICES in late)

    def records(self, until: datetime | None) -> Iterator[pd.DataFrame]:
        """The records up to `until`, from memory."""
        for frame in self._records:
            rows = frame if until is None else frame[frame["fetched_at"] <= pd.Timestamp(until)]
            if len(rows):
                yield rows

    def document(
        self, source: str, *, known_at: datetime | None = None, regions: Collection[str] | None = None
    ) -> Document:
        """The document known at an instant, every region of it; or the first one, if that may stand in."""
        found = [frame["fetched_at"][frame["source"] == source] for frame in self._records]
        times = sorted({time.to_pydatetime() for each in found for time in each})
        place = len(times) if known_at is None else bisect_right(times, known_at)
        if place == 0 and not (self._first_known and times):
            try:
                return super().document(source, known_at=known_at, regions=regions)
            except NotFound as error:
                if not times:
                    raise
                raise NotFound(str(error), remedy="Or let the first one stand in: --first-known.") from error
        at = times[max(place - 1, 0)]
        if (source, at) not in self._documents:
            self._documents[source, at] = super().document(source, known_at=at)
        return self._documents[source, at]

    def changes(self, cover: Cover, *, start: datetime, end: datetime, known_at: datetime | None = None) -> Changes:
        """Prices as a scrape had brought them by `known_at`, if scrapes had asked for all of them by then; else all."""
        if known_at is not None and self._asked_by(cover, known_at):
            return super().changes(cover, start=start, end=end, known_at=known_at)
        if self._loaded is None or not self._loaded.includes(cover):
            return super().changes(cover, start=start, end=end)
        return self._loaded.of_cover(cover).in_force(start, end)

    def price_scrapes(self, cover: Cover, known_at: datetime | None) -> list[tuple[str, str, datetime, str]]:
        """The scrapes that prices come from; later ones than `known_at` where none had asked for all of them."""
        early = known_at if known_at is not None and self._asked_by(cover, known_at) else None
        return super().price_scrapes(cover, early)

    def _asked_by(self, cover: Cover, known_at: datetime) -> bool:
        # A market asks twice in a row, once for its prices and once for where they come from.
        if self._asked is None or self._asked[0] is not cover or self._asked[1] != known_at:
            try:
                super().price_scrapes(cover, known_at)
                self._asked = cover, known_at, True
            except NotFound:
                self._asked = cover, known_at, False
        return self._asked[2]


@dataclass(frozen=True)
class _Loaded:
    """Prices of many families, ready to be cut to those of one account.

    Attributes:
        cover: what was loaded.
        changes: its changes.
        rows: (region, family) -> its rows of `changes.pools`.
    """

    cover: Cover
    changes: Changes
    rows: dict[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, cover: Cover, changes: Changes) -> _Loaded:
        pools = changes.pools.assign(family=family_of(changes.pools["instance_type"]))
        rows: Any = pools.groupby(["region", "family"]).indices
        return cls(cover, changes, rows)

    def includes(self, cover: Cover) -> bool:
        return all(
            key in self.cover
            and all(set(has).issuperset(asks) for has, asks in zip(self.cover[key], asked, strict=True))
            for key, asked in cover.items()
        )

    def of_cover(self, cover: Cover) -> Changes:
        """What `covered` gives."""
        wanted = np.zeros(len(self.changes.pools), dtype=bool)
        for key, (types, products) in cover.items():
            rows = self.rows.get(key, np.empty(0, dtype=np.int64))
            pools = self.changes.pools.take(rows)
            wanted[rows] = among(pools["instance_type"], types) & among(pools["product"], products)
        return self.changes if wanted.all() else self.changes.take(wanted[self.changes.pool])
