"""From examples to a candidate in the registry, with all that tells how good it is. It approves and promotes nothing.

How a model is fitted is fitting.py's, what it is fitted on data.py's; here a fit is judged, registered and shown.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines.experiments.plots import Said, outcome_plots
from spotlab_pipelines.experiments.scorecard import Scorecard, scorecard
from spotlab_pipelines.inference.card import Notes
from spotlab_pipelines.inference.mlflow_store import mlflow_client, mlflow_errors
from spotlab_pipelines.training.fingerprint import fit_sha256
from spotlab_pipelines.training.fitting import MINIMUM_EVENTS, Examples, Fitted, Progress, fit_family

if TYPE_CHECKING:
    from spotlab_pipelines.features.drift import Reference
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.data import TrainingData

METRICS = {"auc": "roc_auc", "pr_auc": "pr_auc", "log_loss": "log_loss", "brier": "brier"}
METRICS |= {"brier_skill": "brier_skill", "ece": "ece", "n": "n", "events": "events", "base_rate": "base_rate"}
FOLDER = "validation"
"""Of a run's artifacts: what the fit's predictions of examples that it had not seen were worth."""
BLOCKED, WALKED, BEFORE = "", "walk_forward_", "before_"
HOW = {"out_of_fold": "out of fold", "walk_forward": "walking forward"}
"""How the predictions that a fit is judged by were made: of other days and pools, of the days before."""


@dataclass(frozen=True)
class TrainedModel:
    """A registered candidate.

    Attributes:
        fit_sha256: the hash of its arrays and parameters: the same examples give the same.
        metrics: as logged: <metric>_<H>h out of fold, walk_forward_<metric>_<H>h of models of the days before, and of a
            recalibrated version before_<metric>_<H>h: what it was made of, on the rows of the first.
    """

    version: str
    status: str
    fit_sha256: str
    data_fingerprint: str
    params: dict[str, Any]
    metrics: dict[str, float]


def train_model(
    settings: Settings,
    registry: ModelRegistry,
    data: TrainingData,
    *,
    family: str,
    registered_by: str,
    actor: str | None = None,
    progress: Progress | None = None,
    minimum_events: int = MINIMUM_EVENTS,
    more: dict[str, Any] | None = None,
) -> TrainedModel:
    """Fit a family on examples, judge it, and register it as a candidate, which nobody is served by.

    Args:
        minimum_events: how many interruptions it takes.
        more: parameters to log besides those of the fit and of its data.

    Raises:
        NotEnoughData: too few interruptions, or a horizon at which all examples ended alike. Nothing is registered.
        InvalidInput: there is no such family, or the feature spec lacks what it reads.
        NotAllowed: the actor may not register models.
        StoreUnavailable: a store does not answer.
    """
    say = progress or (lambda _: None)
    examples = Examples.of(data.examples, data.feature_spec)
    fitted = fit_family(family, examples, say=say, minimum_events=minimum_events)
    say("registering a candidate")
    row, found = register_fit(
        registry, fitted, examples, data, family=family, registered_by=registered_by, actor=actor, more=more
    )
    show_fit(settings, row, fitted, examples, say)
    return TrainedModel(row.version, row.status, found, data.fingerprint, fitted.params, dict(row.metrics))


def register_fit(
    registry: ModelRegistry,
    fitted: Fitted,
    examples: Examples,
    data: TrainingData,
    *,
    family: str,
    registered_by: str,
    actor: str | None = None,
    more: dict[str, Any] | None = None,
    reference: Reference | None = None,
    base: str = "",
) -> tuple[ServingVersion, str]:
    """Register a fit as the family's next candidate; its row, and the hash of the fit.

    Args:
        more: parameters besides those of the fit and of its data.
        reference: what drift is told from; by default the examples.
        base: the version that it is recalibrated from.
    """
    found = fit_sha256(fitted.model)
    row = registry.register(
        fitted.model,
        family=family,
        feature_spec=data.feature_spec,
        example=data.examples[list(fitted.model.feature_names)].head(5),
        training=data.examples,
        fingerprint=data.fingerprint,
        reference=reference,
        notes=Notes(data=data.sentence(), base=base),
        params=fitted.params | data.params() | {"fit_sha256": found} | (more or {}),
        metrics=fit_metrics(fitted, examples),
        registered_by=registered_by,
        actor=actor,
    )
    return row, found


def fit_metrics(fitted: Fitted, examples: Examples) -> dict[str, float]:
    """Every figure of a fit that exists, by name: out of fold, walking forward, and of what it was made of."""
    found: dict[str, float] = {}
    for prefix, told in ((BLOCKED, fitted.blocked), (WALKED, fitted.walked), (BEFORE, fitted.before)):
        if told is None:
            continue
        for column, horizon in enumerate(examples.horizons_h):
            card = _card(examples, told, column)
            if card is not None:
                figures = card.metrics()
                found |= {f"{prefix}{name}_{horizon}h": figures[of] for name, of in METRICS.items() if of in figures}
    return found


def concerns(metrics: dict[str, float]) -> list[str]:
    """What speaks against a fit, a sentence each: a horizon at which saying one share of all pools had done better."""
    told = []
    for name, skill in metrics.items():
        figure, _, horizon = name.rpartition("_")
        if figure.removeprefix(WALKED) == "brier_skill" and skill < 0:
            how = HOW["walk_forward" if figure.startswith(WALKED) else "out_of_fold"]
            told.append(
                f"at {horizon.removesuffix('h')} h, {how}, it is worse than one probability for all pools would be"
                f" (Brier skill {skill:+.4f})"
            )
    return told


def show_fit(settings: Settings, row: ServingVersion, fitted: Fitted, examples: Examples, say: Progress) -> None:
    """Log a fit's curves as tables and as pictures to the run of its version, which is registered whatever comes."""
    say("drawing reliability, ROC, precision and recall, calibration over time")
    try:
        _draw(settings, row, fitted, examples)
    except StoreUnavailable as error:
        say(f"note: {row.version} is registered, but MLflow has not all of its pictures: {error}")


def _draw(settings: Settings, row: ServingVersion, fitted: Fitted, examples: Examples) -> None:
    client = mlflow_client(settings)
    with tempfile.TemporaryDirectory() as scratch:
        for kind, told in zip(HOW, (fitted.blocked, fitted.walked), strict=True):
            for column, horizon in enumerate(examples.horizons_h):
                card = _card(examples, told, column)
                if card is None or not 0 < card.events < card.n:
                    continue
                folder = Path(scratch) / kind / f"{horizon}h"
                folder.mkdir(parents=True)
                card.bins.to_csv(folder / "reliability.csv", index=False)
                card.thresholds.to_csv(folder / "thresholds.csv", index=False)
                known = _known(examples, told, column)
                said = Said(examples.labels[known, column], told[known, column], examples.places.at[known])
                plots = outcome_plots({HOW[kind]: said}, title=f"{row.version} at {horizon} h, {HOW[kind]}")
                for name, picture in plots.items():
                    (folder / f"{name}.png").write_bytes(picture)
        with mlflow_errors():
            client.log_artifacts(row.mlflow_run_id, scratch, FOLDER)


def _known(examples: Examples, told: np.ndarray, column: int) -> np.ndarray:
    return np.flatnonzero(~np.isnan(examples.labels[:, column]) & ~np.isnan(told[:, column]))


def _card(examples: Examples, told: np.ndarray, column: int) -> Scorecard | None:
    known = _known(examples, told, column)
    return scorecard(examples.labels[known, column], told[known, column]) if len(known) else None
