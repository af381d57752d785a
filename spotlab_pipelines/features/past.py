"""What specs beyond v1 look at besides the pools frame: an instant, and what was seen and priced before it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange, InvalidInput
from spotlab_pipelines.features.feature import FeatureSpec
from spotlab_pipelines.features.history import HOUR_US, PoolHistory
from spotlab_pipelines.features.movement import PriceMovement
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.market.canonical import utc_ticks

EPOCH_WEEKDAY_H = 72
"""Hours from Monday 00:00 UTC to the epoch, a Thursday."""
WEEK_H = 168


@dataclass(frozen=True)
class Past:
    """What lay behind an instant, as far as it is known; what a spec does not need may be None.

    Attributes:
        as_of: the instant of every row; not used for a pools frame with a column `sampled_at`.
        observations: what was observed of the pools; needed by v2 and v2-history.
        prices: how prices moved; needed by v2. price_window: over which volatility is taken.
    """

    as_of: datetime | None = None
    observations: PoolHistory | None = None
    prices: PriceMovement | None = None
    price_window: timedelta = timedelta(days=7)

    @classmethod
    def of(
        cls,
        observations: pd.DataFrame | None = None,
        prices: PriceHistory | None = None,
        *,
        as_of: datetime | None = None,
        price_window: timedelta = timedelta(days=7),
    ) -> Past:
        """Sort what was read."""
        return cls(
            as_of=as_of,
            observations=None if observations is None else PoolHistory.from_observations(observations),
            prices=None if prices is None else PriceMovement.of(prices),
            price_window=price_window,
        )

    def columns(self, spec: FeatureSpec, pools: pd.DataFrame) -> dict[str, np.ndarray]:
        """The columns of `spec` that look back, each (n,); NaN where an optional one is missing.

        Args:
            pools: pool key columns, with `price_changed_at` if the spec needs the market, and `sampled_at` if the rows
                are of many instants.

        Raises:
            FeatureMissing: the spec needs observations, prices or an instant, and there are none here.
            FeatureOutOfRange: a price changed after the instant from which it is looked at.
        """
        at = self._instants(pools, spec)
        columns = hour_of_week(at)
        if spec.needs_observations:
            if self.observations is None:
                raise _lacking(spec, "pool observations")
            columns |= self.observations.features_at(self.observations.find(pools), at)
        if spec.needs_market:
            if self.prices is None:
                raise _lacking(spec, "a price history")
            columns |= self.prices.features_at(self.prices.find(pools), at, self.price_window)
            columns["log_hours_since_price_change"] = _since_change(pools, at)
        return columns

    def _instants(self, pools: pd.DataFrame, spec: FeatureSpec) -> np.ndarray:
        if SAMPLED_AT in pools:
            return utc_ticks(pools[SAMPLED_AT].dt.as_unit("us"))
        if self.as_of is None:
            raise _lacking(spec, "an instant (as_of, or a column sampled_at)")
        if self.as_of.utcoffset() is None:
            raise InvalidInput(f"Features are looked at from an instant with a time zone; got {self.as_of!r}.")
        return np.full(len(pools), pd.Timestamp(self.as_of).value // 1000)


def hour_of_week(at: np.ndarray) -> dict[str, np.ndarray]:
    """Sine and cosine of the hour of the week of instants (m,), microseconds since the epoch."""
    hours = (at / HOUR_US + EPOCH_WEEKDAY_H) % WEEK_H
    angle = 2.0 * np.pi * hours / WEEK_H
    return {"hour_of_week_sin": np.sin(angle), "hour_of_week_cos": np.cos(angle)}


def with_indicators(columns: dict[str, np.ndarray], spec: FeatureSpec) -> dict[str, np.ndarray]:
    """Say of each missing optional value that it is: the neutral value in its place, and 1 in its indicator."""
    filled = dict(columns)
    for feature in spec.features:
        if feature.indicator:
            missing = np.isnan(columns[feature.name])
            filled[feature.name] = np.where(missing, feature.neutral, columns[feature.name])
            filled[feature.indicator] = missing.astype(float)
    return filled


def _since_change(pools: pd.DataFrame, at: np.ndarray) -> np.ndarray:
    changed_at = pools["price_changed_at"]
    unknown = changed_at.isna().to_numpy(dtype=bool)
    hours = np.where(unknown, np.nan, (at - utc_ticks(changed_at.dt.as_unit("us"))) / HOUR_US)
    if (hours < 0).any():
        first = pools[hours < 0].iloc[0]
        raise FeatureOutOfRange(
            f"Expected prices that changed before they are looked at; {int((hours < 0).sum())} pools break it, first"
            f" {first['region']} {first['instance_type']}:{first['az_id']}:{first['product']}."
        )
    return np.log1p(hours)


def _lacking(spec: FeatureSpec, what: str) -> FeatureMissing:
    return FeatureMissing(f"Feature spec {spec.version} needs {what}; none was given.")
