"""A registered version with one more map for each horizon, learned from rows that it has not seen: a new candidate.

The models stay as they are; the maps lean on what they say (fitting.recalibration). The maps that are kept know all
rows; each figure is of maps that did not know the row's day.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.inference.calibration import CalibratedModel, Curve, apply_curve
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator
from spotlab_pipelines.inference.fitted_on import BASE
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.training.fitting import Examples, Fitted, Progress, predict, recalibration
from spotlab_pipelines.training.folds import Fold, blocked_folds, walk_forward_folds
from spotlab_pipelines.training.interruption_model import TrainedModel, register_fit, show_fit
from spotlab_pipelines.training.unseen import check_rows_unseen, check_unseen

if TYPE_CHECKING:
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.data import TrainingData


def recalibrated_version(
    settings: Settings,
    registry: ModelRegistry,
    data: TrainingData,
    version: str,
    *,
    registered_by: str,
    actor: str | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Recalibrate a version, whatever its status, on examples of its feature spec; a candidate of the same family.

    Raises:
        ModelUnknown: there is no such version.
        ModelTampered: its files are not the registered ones.
        InvalidInput: it has seen some of the examples, they are of another spec, or it is of a user's package.
        NotEnoughData: the examples do not hold both outcomes at the shortest horizon.
        NotAllowed: the actor may not register models.
    """
    say = progress or (lambda _: None)
    row = registry.find(version)
    check_unseen(settings, registry, row, data.source, datetime.fromisoformat(data.since) if data.since else None)
    if data.feature_spec != row.feature_spec:
        raise InvalidInput(f"{version} reads {row.feature_spec}; the examples are of {data.feature_spec}.")
    check_rows_unseen(settings, registry, Archive(settings.archive_location), row, data.examples)
    model = by_horizon(row.version, registry.open(row).estimator)
    examples = Examples.of(data.examples, row.feature_spec, row.horizons_h)
    say(f"recalibrating {version} on {len(examples)} examples")
    fitted = recalibrate(model, examples)
    base = {BASE: row.version, "base_sha256": row.artifact_sha256}
    # What the models know is what their base was fitted on: the new rows taught a map alone.
    made, found = register_fit(
        registry, fitted, examples, data, family=row.family, registered_by=registered_by, actor=actor, more=base,
        reference=row.reference, base=row.version,
    )  # fmt: skip
    show_fit(settings, made, fitted, examples, say)
    return TrainedModel(made.version, made.status, found, data.fingerprint, fitted.params | base, dict(made.metrics))


def recalibrate(model: CalibratedModel, examples: Examples) -> Fitted:
    """The model with maps learned from all examples, and what maps of other days say of each. Pure.

    Raises:
        NotEnoughData: the examples do not hold both outcomes at the shortest horizon.
    """
    outcomes = examples.labels[examples.known_at(0), 0]
    events = int(outcomes.sum())
    if not 0 < events < len(outcomes):
        raise NotEnoughData(
            f"Expected interruptions and survivals within {examples.horizons_h[0]} h to recalibrate with;"
            f" {len(outcomes)} examples hold {events} interruptions.",
            remedy="Take a longer stretch.",
        )
    said = predict(model, examples)
    curves = recalibration(said, examples)
    params: dict[str, Any] = {
        f"recalibration_{horizon}h": " ".join([curve[0], *(f"{number:.6g}" for number in curve[1])])
        for horizon, curve in zip(examples.horizons_h, curves, strict=True)
    }
    folds = blocked_folds(examples.places, embargo_h=max(examples.horizons_h), groups=1)
    blocked = _told(said, examples, ((fold, examples.take(fold.train)) for fold in folds))
    return Fitted(
        model=model.through(curves),
        params=params,
        blocked=blocked,
        before=np.where(np.isnan(blocked), np.nan, said),
        walked=_told(said, examples, ((fold, _before(examples, fold)) for fold in walk_forward_folds(examples.places))),
    )


def by_horizon(version: str, estimator: HorizonEstimator) -> CalibratedModel:
    """A version's estimator as one of one model for each horizon.

    Raises:
        InvalidInput: it is a user's package's, of which nothing but its own class may be kept.
    """
    if isinstance(estimator, CalibratedModel):
        return estimator
    if isinstance(estimator, AdvisorRateModel):
        models: list[HorizonEstimator] = [AdvisorRateModel(estimator.feature_names, [h]) for h in estimator.horizons_h]
        return CalibratedModel(models, [[] for _ in models], list(estimator.feature_names), list(estimator.horizons_h))
    raise InvalidInput(
        f"{version} is a {type(estimator).__name__}; only what SpotLab has fitted itself can be recalibrated.",
        remedy="Recalibrate it in its package, and register that.",
    )


def _before(examples: Examples, fold: Fold) -> Examples:
    """What a fold is learned from, with the outcomes that were known when its test began."""
    return examples.take(fold.train).known_by(int(examples.places.at[fold.test].min()))


def _told(said: np.ndarray, examples: Examples, folds: Iterable[tuple[Fold, Examples]]) -> np.ndarray:
    """(n, n_horizons) what maps of each fold's other days make of what was said; NaN where there are no other days."""
    told = np.full(said.shape, np.nan)
    for fold, learned in folds:
        curves: list[Curve] = recalibration(said[fold.train], learned)
        told[fold.test] = np.column_stack(
            [apply_curve(curve, said[fold.test, column]) for column, curve in enumerate(curves)]
        )
    return told
