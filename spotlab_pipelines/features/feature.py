"""What a feature and a feature spec are. The specs themselves are specs.py's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spotlab_pipelines.errors import FeatureMissing

PRICES = "DescribeSpotPriceHistory"
PRICING = "Pricing"
ADVISOR = "Spot Advisor"
OBSERVATIONS = "pool observations"
CLOCK = "the instant that is looked at"


@dataclass(frozen=True)
class Feature:
    """One number that a model sees of a pool. It is always finite and within [minimum, maximum].

    Attributes:
        since: the spec in which it first appeared.
        neutral, indicator: of an optional feature: the value where it is missing, and the feature that is 1 there.
    """

    name: str
    formula: str
    minimum: float
    maximum: float
    unit: str
    source: str
    required: bool = True
    since: str = "v2"
    neutral: float = math.nan
    indicator: str = ""


@dataclass(frozen=True)
class FeatureSpec:
    """A named, ordered list of features; the order is the order of a model's columns."""

    version: str
    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of a model's columns."""
        return tuple(feature.name for feature in self.features)

    @property
    def needs_market(self) -> bool:
        """Whether a pool needs a price, an on-demand price and an Advisor entry."""
        return any(feature.source not in (OBSERVATIONS, CLOCK) for feature in self.features)

    @property
    def needs_observations(self) -> bool:
        """Whether it looks at what was observed of a pool."""
        return any(feature.source == OBSERVATIONS for feature in self.features)

    @property
    def needs_past(self) -> bool:
        """Whether it looks at more than the pools frame: at an instant, and at what lies before it."""
        return any(feature.since != "v1" for feature in self.features)

    def subset(self, names: tuple[str, ...]) -> FeatureSpec:
        """The same spec with only `names`, in their order.

        Raises:
            FeatureMissing: the spec has no feature of that name.
        """
        by_name = {feature.name: feature for feature in self.features}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise FeatureMissing(f"Feature spec {self.version} has {', '.join(self.names)}; it has no {unknown}.")
        return FeatureSpec(self.version, tuple(by_name[name] for name in names))
