"""The feature specs, as data: what a model may expect, in which unit and range. How they are computed is engine.py's.

A spec never changes once a model was fitted on it; a new idea is a new spec. An optional feature that is missing has
its documented neutral value and, beside it, an indicator that says so: never a silent zero.
"""

from __future__ import annotations

import math

from spotlab_pipelines.errors import FeatureVersionMismatch
from spotlab_pipelines.features.feature import ADVISOR, CLOCK, OBSERVATIONS, PRICES, PRICING, Feature, FeatureSpec
from spotlab_pipelines.market.layout import HISTORY_DAYS

SHARE_WINDOWS_H = (1, 6, 24, 168)
RATE_WINDOWS_H = (6, 24)
PRIOR_SHARE = 0.05
"""The failure share that is assumed of a pool before anything was seen of it."""
PRIOR_WEIGHT = 3.0
"""How many observations the assumption weighs as much as."""
LONGEST_LOG_HOURS = math.log1p(24.0 * HISTORY_DAYS)


MARKET_FEATURES = (
    Feature(
        name="price_position",
        formula=(
            "(current price − lowest) / (highest − lowest) over the price window (7 days), the price that was in"
            " force when the window opened included; 0.5 if the price never moved, since it is neither high nor low"
        ),
        minimum=0.0,
        maximum=1.0,
        unit="fraction",
        source=PRICES,
        since="v1",
    ),
    Feature(
        name="discount_depth",
        formula="1 − spot price / on-demand price of the type; negative where Spot costs more than on-demand",
        minimum=-math.inf,
        maximum=1.0,
        unit="fraction of the on-demand price",
        source=f"{PRICES}, {PRICING}",
        since="v1",
    ),
    Feature(
        name="family_stress_index",
        formula=(
            "mean price_position over all pools of the instance family in the region that have a current price,"
            " every product and the pool itself included"
        ),
        minimum=0.0,
        maximum=1.0,
        unit="fraction",
        source=PRICES,
        since="v1",
    ),
    Feature(
        name="historic_interrupt_rate",
        formula=(
            "midpoint of the Advisor's bucket of the trailing month (2.5, 7.5, 12.5, 17.5 %); the open last bucket"
            " [20 %, 100 %] counts as the setting open_bucket_rate"
        ),
        minimum=0.0,
        maximum=1.0,
        unit="interruptions per instance and month",
        source=ADVISOR,
        since="v1",
    ),
)


def _indicator(name: str, formula: str, source: str) -> Feature:
    return Feature(name=name, formula=formula, minimum=0.0, maximum=1.0, unit="0 or 1", source=source)


def _observed(name: str, formula: str, unit: str, *, maximum: float, neutral: float) -> Feature:
    """A feature of what was observed of a pool; all of them are missing together."""
    return Feature(
        name=name,
        formula=formula,
        minimum=0.0,
        maximum=maximum,
        unit=unit,
        source=OBSERVATIONS,
        required=False,
        neutral=neutral,
        indicator="history_missing",
    )


def _hours(name: str, formula: str, *, neutral_h: float) -> Feature:
    return _observed(name, formula, "log(1 + hours)", maximum=LONGEST_LOG_HOURS, neutral=math.log1p(neutral_h))


HISTORY_FEATURES = (
    _hours(
        "log_hours_without_failure",
        f"log(1 + hours since the pool's last failure (interruption, capacity failure) of the last {HISTORY_DAYS} days,"
        " or since the first observation of these days if none failed)",
        neutral_h=24.0,
    ),
    _hours(
        "log_hours_failing",
        "if the latest observation failed: log(1 + hours since the last available one, or since the first observation"
        f" of the last {HISTORY_DAYS} days); 0 if the pool was available. With log_hours_without_failure it is the time"
        " in the present state",
        neutral_h=0.0,
    ),
    _hours("log_hours_since_observation", "log(1 + hours since the latest observation of the pool)", neutral_h=24.0),
    *(
        _observed(
            f"failure_share_{window}h",
            f"(failures + {PRIOR_WEIGHT:g} × share of the next longer window) / (observations + {PRIOR_WEIGHT:g}) over"
            f" {window} h; the longest leans on {PRIOR_SHARE:g}."
            " A window that saw little says what the longer one does",
            "fraction of the observations",
            maximum=1.0,
            neutral=PRIOR_SHARE,
        )
        for window in SHARE_WINDOWS_H
    ),
    *(
        _observed(
            f"log_losses_per_hour_{window}h",
            f"log(1 + losses / (1 + available hours)) over {window} h: a loss is a failure that follows an available"
            " observation of the last 7 days; available hours are the available share of the observations × the hours"
            " of the window since the pool's first observation",
            "log(1 + losses per hour)",
            maximum=math.inf,
            neutral=math.log1p(PRIOR_SHARE),
        )
        for window in RATE_WINDOWS_H
    ),
    _indicator(
        "history_missing", f"1 if the pool was not observed in the last {HISTORY_DAYS} days, else 0", OBSERVATIONS
    ),
)
MOVEMENT_FEATURES = (
    Feature(
        name="price_velocity_24h",
        formula="log(current price / the price in force 24 h before)",
        minimum=-math.inf,
        maximum=math.inf,
        unit="log ratio",
        source=PRICES,
        required=False,
        neutral=0.0,
        indicator="price_velocity_24h_missing",
    ),
    _indicator("price_velocity_24h_missing", "1 if no price was in force 24 h before, else 0", PRICES),
    Feature(
        name="price_volatility",
        formula="√(Σ (log ratio of each price change in the price window)² / days of the window)",
        minimum=0.0,
        maximum=math.inf,
        unit="log ratio per √day",
        source=PRICES,
        required=False,
        neutral=0.0,
        indicator="price_volatility_missing",
    ),
    _indicator("price_volatility_missing", "1 if no price was in force when the price window opened, else 0", PRICES),
    Feature(
        name="log_hours_since_price_change",
        formula="log(1 + hours since the price last changed)",
        minimum=0.0,
        maximum=math.inf,
        unit="log(1 + hours)",
        source=PRICES,
    ),
    Feature(
        name="discount_vs_family",
        formula=(
            "discount_depth − its mean over all pools of the family in the region that have both prices, every product"
            " and the pool itself included"
        ),
        minimum=-math.inf,
        maximum=math.inf,
        unit="fraction of the on-demand price",
        source=f"{PRICES}, {PRICING}",
    ),
)
CLOCK_FEATURES = tuple(
    Feature(
        name=f"hour_of_week_{name}",
        formula=f"{name}(2π × hours since Monday 00:00 UTC / 168)",
        minimum=-1.0,
        maximum=1.0,
        unit=unit,
        source=CLOCK,
    )
    for name, unit in (("sin", "sine"), ("cos", "cosine"))
)

V1 = FeatureSpec("v1", MARKET_FEATURES)
V2 = FeatureSpec("v2", (*MARKET_FEATURES, *HISTORY_FEATURES, *MOVEMENT_FEATURES, *CLOCK_FEATURES))
V2_HISTORY = FeatureSpec("v2-history", (*HISTORY_FEATURES, *CLOCK_FEATURES))

SPECS = {spec.version: spec for spec in (V1, V2, V2_HISTORY)}


def get_spec(version: str) -> FeatureSpec:
    """The spec of that version.

    Raises:
        FeatureVersionMismatch: there is none.
    """
    if version not in SPECS:
        raise FeatureVersionMismatch(f"Expected one of the feature specs {sorted(SPECS)}; got {version!r}.")
    return SPECS[version]
