"""The one way in which a model is fitted: chosen and calibrated by blocked validation, judged by walking forward. Pure.

Nothing here looks at rows beyond those it is given: what a model is judged on later must not be among them. Base rates,
standardisation, tables and calibration are learned inside each fold, from its rows to fit on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.specs import FeatureSpec, get_spec
from spotlab_pipelines.inference.calibration import NO_CURVE, CalibratedModel, Curve, apply_curve, fit_platt
from spotlab_pipelines.inference.estimators import HorizonEstimator
from spotlab_pipelines.market.canonical import row_order
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.settings import HORIZONS_H
from spotlab_pipelines.training.calibrating import choose_curve, log_losses
from spotlab_pipelines.training.families import Candidate, candidates, with_unobserved
from spotlab_pipelines.training.folds import (
    DAY_BLOCKS,
    HOUR_US,
    POOL_GROUPS,
    Fold,
    Places,
    at_most_one_a_day,
    blocked_folds,
    day_blocks,
    independence,
    labels_known_by,
    walk_forward_folds,
)

Progress = Callable[[str], None]
MINIMUM_EVENTS = 20
"""Interruptions that the shortest horizon must have seen: fewer teach a regression on a few features nothing."""

WALKING_BLOCKS, WALKING_GROUPS = 3, 2
"""Folds within each step of walking forward: fewer, as there is less to hold out and each step chooses anew."""


@dataclass(frozen=True)
class Examples:
    """Examples in one order, whatever order they came in; n rows.

    Attributes:
        matrix: (n, k) the spec's features. labels: (n, n_horizons) 1, 0 or NaN.
    """

    spec: FeatureSpec
    horizons_h: tuple[int, ...]
    matrix: np.ndarray
    labels: np.ndarray
    places: Places

    @classmethod
    def of(cls, frame: pd.DataFrame, spec: str, horizons_h: tuple[int, ...] = HORIZONS_H) -> Examples:
        """Of a frame with sampled_at, the pool key, the spec's features and interrupted_<H>h."""
        wanted = get_spec(spec)
        matrix = frame[list(wanted.names)].to_numpy(dtype=float)
        labels = frame[[f"interrupted_{horizon}h" for horizon in horizons_h]].to_numpy(dtype=float)
        keys = [pd.factorize(frame[name], sort=True)[0].astype(np.int64) for name in (SAMPLED_AT, *POOL_KEY)]
        # Rows of one pool and instant by what they hold: a fit must not depend on the order in which they were read.
        values = np.ascontiguousarray(np.column_stack([matrix, labels])).view(np.int64).T
        order = row_order([*keys, *values])
        return cls(wanted, horizons_h, matrix[order], labels[order], Places.of(frame).take(order))

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: np.ndarray) -> Examples:
        """Some of the rows."""
        return Examples(self.spec, self.horizons_h, self.matrix[rows], self.labels[rows], self.places.take(rows))

    def known_by(self, until_us: int) -> Examples:
        """The same, with the labels that were known at an instant."""
        labels = labels_known_by(self.labels, self.places.at, horizons_h=self.horizons_h, until_us=until_us)
        return Examples(self.spec, self.horizons_h, self.matrix, labels, self.places)

    def known_at(self, column: int) -> np.ndarray:
        """The rows whose label at the `column`-th horizon is known."""
        return np.flatnonzero(~np.isnan(self.labels[:, column]))

    def columns(self, names: Iterable[str]) -> list[int]:
        """The places of some of the spec's features."""
        return [self.spec.names.index(name) for name in names]


@dataclass(frozen=True)
class Fitted:
    """A fitted model and how it did on rows that it was not fitted on.

    Attributes:
        model: what is kept.
        params: what was chosen, by name.
        blocked: (n, n_horizons) what models of other days and pools said, through maps of other days; NaN where none.
            Which candidate it is was chosen on all of these.
        walked: (n, n_horizons) what the model of the days before said; NaN where there were none.
        before: (n, n_horizons) where `blocked` says something, what the version said that is recalibrated here; None
            where a version is fitted.
    """

    model: CalibratedModel
    params: dict[str, Any]
    blocked: np.ndarray
    walked: np.ndarray
    before: np.ndarray | None = None


def fit_family(
    family: str, examples: Examples, *, say: Progress | None = None, minimum_events: int = MINIMUM_EVENTS
) -> Fitted:
    """Choose, fit and calibrate one model of a family, each horizon for itself.

    Raises:
        NotEnoughData: too few interruptions at the shortest horizon, or a horizon at which all examples ended alike.
        InvalidInput: there is no such family, or the spec lacks what it reads.
    """
    from threadpoolctl import threadpool_limits

    say = say or (lambda _: None)
    ways = {horizon: candidates(family, examples.spec, horizon) for horizon in examples.horizons_h}
    events = int(np.nansum(examples.labels[:, 0])) if len(examples) else 0
    if events < minimum_events:
        raise NotEnoughData(
            f"{len(examples)} examples hold {events} interruptions within {examples.horizons_h[0]} h;"
            f" {minimum_events} are needed."
        )
    say(f"fitting {family} on {len(examples)} examples with {events} interruptions within {examples.horizons_h[0]} h")
    # Hundreds of small fits: threads that wait for each other on busy cores make each ten times slower, and the order
    # in which they add up is not always the same.
    with threadpool_limits(limits=1):
        return _fit_family(ways, examples, say)


def _fit_family(ways: dict[int, list[Candidate]], examples: Examples, say: Progress) -> Fitted:
    # Fitted first, so that a horizon that cannot be fitted at all says so before anything is tried.
    fitted = {horizon: [_fit(way, examples, horizon) for way in ways[horizon]] for horizon in examples.horizons_h}
    blocked, walked = np.full(examples.labels.shape, np.nan), np.full(examples.labels.shape, np.nan)
    models, curves, params = [], [], {}
    for column, horizon in enumerate(examples.horizons_h):
        say(f"{horizon} h: choosing among {len(ways[horizon])} by blocks of days and pools")
        chosen, raw = _choose(ways[horizon], examples, horizon)
        way, model = ways[horizon][chosen], fitted[horizon][chosen]
        curve, blocked[:, column] = _calibrate(model, way, examples, horizon, raw)
        models.append(model)
        curves.append([curve])
        params |= {f"{name}_{horizon}h": value for name, value in way.params.items()}
        params |= {f"features_{horizon}h": " ".join(way.names), f"calibration_{horizon}h": curve[0]}
        say(f"{horizon} h: {way.params} with {len(way.names)} features, {curve[0]}; walking forward")
        for fold in walk_forward_folds(examples.places):
            walked[fold.test, column] = _walk(ways[horizon], examples, fold, horizon)
    read = {name for model in models for name in model.feature_names}
    names = [name for name in examples.spec.names if name in read]
    return Fitted(CalibratedModel(models, curves, names, list(examples.horizons_h)), params, blocked, walked)


def recalibration(said: np.ndarray, examples: Examples) -> list[Curve]:
    """For each horizon a map learned from new rows, leaning on what the model said of them, (n, n_horizons).

    Platt's, whatever there is: new rows are few when they are needed. A horizon without a known outcome has no map.
    """
    curves = []
    for column, horizon in enumerate(examples.horizons_h):
        known = examples.known_at(column)
        places = examples.places.take(known)
        weight = at_most_one_a_day(places, independence(places, horizon))
        labels = examples.labels[known, column]
        curves.append(fit_platt(said[known, column], labels, weight) if len(known) else NO_CURVE)
    return curves


def predict(model: HorizonEstimator, examples: Examples) -> np.ndarray:
    """What a model says of examples, (n, its horizons)."""
    return model.predict(examples.matrix[:, examples.columns(model.feature_names)])


def _fit(way: Candidate, examples: Examples, horizon: int) -> HorizonEstimator:
    labels = examples.labels[:, [examples.horizons_h.index(horizon)]]
    matrix, labels = with_unobserved(examples.matrix, labels, examples.spec)
    return way.make().fit(matrix[:, examples.columns(way.names)], labels)


def _choose(
    ways: list[Candidate], examples: Examples, horizon: int, *, blocks: int = DAY_BLOCKS, groups: int = POOL_GROUPS
) -> tuple[int, np.ndarray]:
    """The candidate of the least mean log loss on folds, and its out-of-fold predictions (n,).

    One with more columns has to beat the best of those with fewer by more than a standard error over the folds.
    """
    predicted, losses = zip(
        *(_out_of_fold(way, examples, horizon, blocks=blocks, groups=groups) for way in ways), strict=True
    )
    best = 0
    for size in sorted({len(way.names) for way in ways}):
        of_size = [number for number, way in enumerate(ways) if len(way.names) == size]
        rival = min(of_size, key=lambda number: losses[number].mean() if len(losses[number]) else 0.0)
        gain = losses[best] - losses[rival]
        if len(gain) > 1:
            wider = len(ways[rival].names) > len(ways[best].names)
            best = rival if gain.mean() > wider * gain.std(ddof=1) / np.sqrt(len(gain)) else best
    return best, predicted[best]


def _out_of_fold(
    way: Candidate, examples: Examples, horizon: int, *, blocks: int, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (n,) by models of other days and pools, and the mean log loss of each fold.

    A fold of which nothing can be fitted is left out, of all candidates alike: it depends on the labels alone.
    """
    column = examples.horizons_h.index(horizon)
    predicted, losses = np.full(len(examples), np.nan), []
    folds = blocked_folds(examples.places, embargo_h=max(examples.horizons_h), blocks=blocks, groups=groups)
    for fold in folds:
        try:
            model = _fit(way, examples.take(fold.train), horizon)
        except NotEnoughData:
            continue
        test = examples.take(fold.test)
        predicted[fold.test] = said = predict(model, test)[:, 0]
        known = test.known_at(column)
        if len(known):
            losses.append(log_losses(said[known], test.labels[known, column]).mean())
    return predicted, np.array(losses)


def _calibrate(
    model: HorizonEstimator, way: Candidate, examples: Examples, horizon: int, raw: np.ndarray
) -> tuple[Curve, np.ndarray]:
    """The map learned from out-of-fold predictions (n,), and those predictions, each through a map of other days."""
    column, told = examples.horizons_h.index(horizon), raw.copy()
    known = examples.known_at(column)
    known = known[~np.isnan(raw[known])]
    said = predict(model, examples)
    # Of a model that says one thing of all pools the folds tell how rates vary, and no map mends that.
    if not len(known) or said.min() == said.max():
        return NO_CURVE, told
    block, places = day_blocks(examples.places.at), examples.places.take(known)
    curve, told[known] = choose_curve(
        raw[known], examples.labels[known, column], independence(places, horizon), block[known],
        at=places.at, embargo_us=int(max(examples.horizons_h) * HOUR_US),
    )  # fmt: skip
    return curve, told


def _walk(ways: list[Candidate], examples: Examples, fold: Fold, horizon: int) -> np.ndarray:
    """What a model of the rows before, chosen, fitted and calibrated as the kept one is, says of a fold's test."""
    test = examples.take(fold.test)
    before = examples.take(fold.train).known_by(int(test.places.at.min()))
    chosen, raw = _choose(ways, before, horizon, blocks=WALKING_BLOCKS, groups=WALKING_GROUPS)
    way = ways[chosen]
    try:
        model = _fit(way, before, horizon)
    except NotEnoughData:
        return np.full(len(test), np.nan)
    curve, _ = _calibrate(model, way, before, horizon, raw)
    return apply_curve(curve, predict(model, test)[:, 0])
