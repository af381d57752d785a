"""The model card: what a version predicts, what it was fitted on, how it did, where it ends. Pure: facts to Markdown.

It is a file of the artifact, and so part of the hash that a version is pinned by, and MLflow's description of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.inference.fitted_on import NO_DATA

if TYPE_CHECKING:
    from spotlab_pipelines.inference.estimators import HorizonEstimator

T = TypeVar("T")

DESCRIPTION_MAX = 5000
"""Characters that MLflow keeps of a version's description."""
CUT = "\n\n… The whole card is README.md of the artifact."
ROOM = "&emsp;"
LIMITS = (
    "It knows nothing but the features below: no capacity that EC2 does not show, no event that has not begun.",
    "A probability outside what it was fitted on (see the drift of each evaluation) is an extrapolation.",
    "How good it is now, its scorecard says; the metrics here are those of its registration.",
)


@dataclass(frozen=True)
class Notes:
    """What only whoever fitted a model can say of it.

    Attributes:
        data: what it was fitted on, in a sentence or two; "" if on nothing.
        base: the version that it is recalibrated from; "" if from none.
        limits: what it cannot do, besides `LIMITS`.
    """

    data: str = ""
    limits: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from. `training_sha256` and `training_rows` are None where there are none to tell."""

    family: str
    kind: str
    feature_spec: str
    feature_names: Sequence[str]
    horizons_h: Sequence[int]
    training_sha256: str | None
    training_rows: int | None
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    registered_by: str
    notes: Notes = field(default_factory=Notes)


def facts_of(estimator: HorizonEstimator, **facts: Any) -> CardFacts:
    """The facts of a fitted estimator; `facts` are those that it does not say itself."""
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    names, horizons = list(estimator.feature_names), list(estimator.horizons_h)
    return CardFacts(kind=kind, feature_names=names, horizons_h=horizons, **facts)


def model_card(facts: CardFacts) -> str:
    """The card as Markdown; the same facts give the same text.

    Raises:
        FeatureVersionMismatch, FeatureMissing: no such spec, or it lacks a feature.
    """
    spec = get_spec(facts.feature_spec).subset(tuple(facts.feature_names))
    horizons = ", ".join(f"{int(horizon)}" for horizon in facts.horizons_h)
    features = [
        f"| {each.name} | [{each.minimum:g}, {each.maximum:g}] | {each.unit} | {each.source} |"
        for each in spec.features
    ]
    predicts = (
        "Predicts the probability that a Spot instance in a pool (instance type, availability zone id, product) is"
        f" interrupted within {horizons} hours; it does not fall with the horizon."
    )
    base = f"Recalibrated from {facts.notes.base}: its models, with a map more for each horizon. "
    first = f"{base if facts.notes.base else ''}Registered by {facts.registered_by}; "
    return "\n".join(
        [
            f"# {facts.family}",
            "",
            f"{first}reads {len(spec.features)} features of spec {spec.version}.",
            "",
            predicts,
            "",
            f"Kind: `{facts.kind}`.",
            "",
            "## Data",
            "",
            _data(facts),
            "",
            "## Metrics",
            "",
            *(_metrics(facts.metrics, facts.horizons_h) or ["None were measured."]),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in (*facts.notes.limits, *LIMITS)),
            "",
            "## Parameters",
            "",
            *(_rows("parameter", facts.params) or ["None."]),
            "",
            f"## Features: {len(spec.features)} of spec {spec.version}",
            "",
            "| feature | range | unit | source |",
            "| --- | --- | --- | --- |",
            *features,
            "",
        ]
    )


def description(card: str) -> str:
    """A card as MLflow's description: without its heading, as MLflow's lists show the first words as they are, with
    room between the columns of tables, of which MLflow leaves none, and cut to what it keeps.
    """
    body = card.partition("\n\n")[2] if card.startswith("# ") else card
    return cut(spaced(body))


def cut(text: str) -> str:
    """A description, cut to what MLflow keeps, and where the rest is."""
    return text if len(text) <= DESCRIPTION_MAX else text[: DESCRIPTION_MAX - len(CUT)] + CUT


def spaced(markdown: str) -> str:
    """Markdown whose tables have room between their columns in MLflow's UI."""
    lines = [
        line.replace(" | ", f"{ROOM} | ") if line.startswith("| ") and not line.startswith("| ---") else line
        for line in markdown.splitlines()
    ]
    return "\n".join(lines)


def told(value: float) -> str:
    """A figure for people: whole numbers whole and with their thousands apart, others with three digits that count."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def by_horizon(values: Mapping[str, T], horizons_h: Sequence[int]) -> tuple[dict[str, dict[str, T]], dict[str, T]]:
    """Values named `<name>_<H>h`, as metrics and parameters are, by name and `<H>h`; and those of no horizon."""
    columns = [f"{hours:g}h" for hours in horizons_h]
    table: dict[str, dict[str, T]] = {}
    others: dict[str, T] = {}
    for name, value in values.items():
        figure, _, column = name.rpartition("_")
        row, key = (table.setdefault(figure, {}), column) if column in columns else (others, name)
        row[key] = value
    return table, others


def _data(facts: CardFacts) -> str:
    if facts.training_sha256 is None:
        nothing = facts.params.get("source") == NO_DATA
        fitted = "It was fitted on no data." if nothing else "Its data have no fingerprint."
    else:
        # Whoever says what it was fitted on says of how many.
        counted = facts.training_rows is not None and not facts.notes.data
        fitted = f"{f'{facts.training_rows:,} examples. ' if counted else ''}Fingerprint: `{facts.training_sha256}`."
    return f"{facts.notes.data} {fitted}".strip()


def _metrics(metrics: Mapping[str, float], horizons_h: Sequence[int]) -> list[str]:
    """A table of what is measured at horizons (`<name>_<H>h`), a column a horizon, and one of the others."""
    columns = [f"{hours:g}h" for hours in horizons_h]
    table, others = by_horizon({name: told(value) for name, value in metrics.items()}, horizons_h)
    if not table:
        return _rows("metric", others)
    rows = [[figure, *(row.get(column, "") for column in columns)] for figure, row in sorted(table.items())]
    lines = [f"| {' | '.join(cells)} |" for cells in (["metric", *columns], ["---"] * (1 + len(columns)), *rows)]
    return [*lines, "", *_rows("metric", others)] if others else lines


def _rows(what: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    lines = [f"| {name} | {' '.join(str(value).split())} |" for name, value in sorted(values.items())]
    return [f"| {what} | value |", "| --- | --- |", *lines]
