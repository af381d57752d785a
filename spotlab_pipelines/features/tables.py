"""The tables that an evaluation computes from what it froze: pools, features by spec, exclusions, fits. Pure.

One way for the evaluation itself and for whoever recomputes it from its snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.frames import check_pools
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.specs import V1, get_spec
from spotlab_pipelines.features.windows import PriceHistory
from spotlab_pipelines.market.cache import Market
from spotlab_pipelines.market.fallback import BY_OS, on_demand_of
from spotlab_pipelines.market.fitting import fitting_types
from spotlab_pipelines.market.frames import POOL_KEY, family_of, joined, joined_texts, places, text

MARKET_SPEC = V1.version
"""The spec that every evaluation computes, whoever predicts: placement weighs what travels with it."""


@dataclass(frozen=True)
class FeatureInputs:
    """The numbers besides the market that features depend on; kept in the snapshot.

    The times are functions of what was read, not of the evaluation or of the clock: two evaluations that read the same
    have the same snapshot.

    Attributes:
        as_of: the instant from which prices are looked at.
        observed_as_of: the one from which specs beyond v1 look back: the newest scrape of prices or observations.
        more_specs: the specs that are computed besides `feature_version`.
    """

    feature_version: str
    as_of: str
    price_window_s: float
    open_bucket_rate: float
    flexibility_factor: float
    observed_as_of: str
    more_specs: tuple[str, ...] = ()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> FeatureInputs:
        """Read them from a snapshot's metadata; one of before there were several specs has one."""
        later = {"observed_as_of": metadata.get("observed_as_of", metadata["as_of"])}
        names = ("feature_version", "as_of", "price_window_s", "open_bucket_rate", "flexibility_factor")
        first = {name: metadata[name] for name in names}
        return cls(**first, **later, more_specs=tuple(metadata.get("more_specs", ())))

    def metadata(self) -> dict[str, Any]:
        """JSON-able, as a snapshot keeps them."""
        return asdict(self) | {"more_specs": list(self.more_specs)}

    @property
    def price_window(self) -> timedelta:
        """The price window as a duration."""
        return timedelta(seconds=self.price_window_s)


@dataclass(frozen=True)
class FeatureTables:
    """What an evaluation computes from its snapshot.

    Attributes:
        pools: one row a pool.
        by_spec: the features of each spec; that of MARKET_SPEC is among them.
        exclusions: pools without features of MARKET_SPEC, and why.
        fits: which type may stand in for which.
    """

    pools: pd.DataFrame
    by_spec: dict[str, pd.DataFrame]
    exclusions: pd.DataFrame
    fits: pd.DataFrame

    @property
    def features(self) -> pd.DataFrame:
        """The features of MARKET_SPEC."""
        return self.by_spec[MARKET_SPEC]


def feature_tables(market: Market, fleet: pd.DataFrame, inputs: FeatureInputs) -> FeatureTables:
    """Compute all tables of an evaluation.

    Raises:
        FeatureOutOfRange: the market says what no market can.
        FeatureMissing: a spec looks at observations, and the market has none.
    """
    history = PriceHistory.from_coded(market.pools, market.pool_of_change, market.prices)
    as_of = datetime.fromisoformat(inputs.as_of)
    windows = history.window_at(as_of, inputs.price_window)
    pools = check_pools(assemble_pools(windows, fleet, advisor=market.advisor, on_demand=market.on_demand))
    rate = inputs.open_bucket_rate
    features, exclusions = compute_features(pools, inputs.feature_version, open_bucket_rate=rate)
    by_spec = {inputs.feature_version: features}
    if inputs.more_specs:
        past = Past.of(
            market.observations,
            history,
            as_of=datetime.fromisoformat(inputs.observed_as_of),
            price_window=inputs.price_window,
        )
        for spec in inputs.more_specs:
            by_spec[spec], _ = compute_features(pools, spec, open_bucket_rate=rate, past=past)
    fits = fitting_types(market.catalogue, fleet["instance_type"].unique(), inputs.flexibility_factor)
    return FeatureTables(pools, by_spec, exclusions, fits)


def feature_table(spec: str) -> str:
    """The name of the evaluation's table that holds the features of a spec."""
    return "features" if spec == MARKET_SPEC else f"features-{spec}"


def needs_observations(specs: tuple[str, ...]) -> bool:
    """Whether any of these specs looks at what was observed of pools."""
    return any(get_spec(spec).needs_observations for spec in specs)


def assemble_pools(
    windows: pd.DataFrame, fleet: pd.DataFrame, *, advisor: pd.DataFrame, on_demand: pd.DataFrame
) -> pd.DataFrame:
    """Join price windows, Advisor and on-demand prices to one row a pool; pure.

    Pools are those with a price and those that the fleet is in, so that an instance whose pool has no price is
    excluded by name. What is unknown is NaN.

    Args:
        windows: what `price_windows` gives.
        fleet: pool key columns; may be empty.
        advisor: Advisor rows. on_demand: on-demand rows.
    """
    ids, fleet_ids = joined(windows, POOL_KEY), joined(fleet, POOL_KEY)
    unpriced, pools = places(fleet_ids, ids) < 0, windows
    if unpriced.any():
        unpriced &= ~fleet_ids.duplicated()
        pools = pd.concat([windows, fleet.loc[unpriced, list(POOL_KEY)]], ignore_index=True)
    price, price_source = on_demand_of(pools, on_demand=on_demand, advisor=advisor)
    product, products = pd.factorize(pools["product"])
    advised_os = text(["Windows" if name == "Windows" else "Linux" for name in products]).take(product)
    # Arrays, since pandas makes a frame of Series far slower.
    column = {name: of.array for name, of in pools.items()}
    advised = joined_texts([column["region"], advised_os, column["instance_type"]])
    advisor_row = places(advised, joined(advisor, BY_OS))
    return pd.DataFrame(
        {
            "region": column["region"],
            "instance_type": column["instance_type"],
            "family": family_of(pools["instance_type"]).array,
            "az_id": column["az_id"],
            "product": column["product"],
            "spot_price_usd_per_hour": column["spot_price_usd_per_hour"],
            "price_min_usd_per_hour": column["price_min_usd_per_hour"],
            "price_max_usd_per_hour": column["price_max_usd_per_hour"],
            "price_changes": pools["price_changes"].fillna(0).to_numpy("int64"),
            "price_changed_at": column["price_changed_at"],
            "on_demand_usd_per_hour": price,
            "price_source": price_source,
            "interrupt_rate_min": _taken(advisor, "interrupt_rate_min", advisor_row),
            "interrupt_rate_max": _taken(advisor, "interrupt_rate_max", advisor_row),
        }
    )


def _taken(frame: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    return np.append(frame[column].to_numpy(dtype=float), np.nan)[rows]
