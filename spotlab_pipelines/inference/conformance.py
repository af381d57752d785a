"""What any adapter must do, ours or that of a user's package, found out by asking it. Pure but for what the model does.

`register` refuses a model that does not conform; `spotlab models conform` shows the findings by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import (
    FeatureError,
    FeatureMissing,
    FeatureOutOfRange,
    FeatureVersionMismatch,
    ModelNotConforming,
)
from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.inference.batch import reason
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from spotlab_pipelines.inference.adapter import BaseModelAdapter

ROWS = 64
RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""One row and many may be multiplied in another order; what they say is the same."""
WIDE = 8.0
"""How far from 0 a feature without a bound is tried."""


@dataclass(frozen=True)
class Finding:
    """What one check found: `problem` is "" if the adapter does what the check is named by."""

    name: str
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the adapter does it."""
        return not self.problem


class _Broken(Exception):
    """A check found what must not be."""


@dataclass(frozen=True)
class _Asked:
    """An adapter, and valid features to ask it about."""

    model: BaseModelAdapter
    frame: pd.DataFrame
    spec: str

    def batch(self, frame: pd.DataFrame) -> np.ndarray:
        """What the adapter says of a copy of the frame: it may change what it is given."""
        return np.array(self.model.predict_batch(frame.copy(), self.spec), copy=True)


def findings(model: BaseModelAdapter) -> list[Finding]:
    """Ask an adapter everything, on valid features drawn once and for all; a finding a check, whatever it raised."""
    found = []
    try:
        spec = model.get_feature_version()
        asked = _Asked(model, probe(spec), spec)
    except (Exception, SystemExit) as error:
        return [Finding("features declared", reason(error))]
    for name, check in CHECKS.items():
        try:
            check(asked)
            found.append(Finding(name))
        except _Broken as broken:
            found.append(Finding(name, str(broken)))
        except (Exception, SystemExit) as error:
            found.append(Finding(name, reason(error)))
    return found


def require_conforming(model: BaseModelAdapter) -> None:
    """Refuse an adapter that does not conform.

    Raises:
        ModelNotConforming: names each check that failed, and how.
    """
    problems = [f"{each.name} ({each.problem})" for each in findings(model) if not each.passed]
    if problems:
        raise ModelNotConforming(
            f"{model.version} does not conform: {'; '.join(problems)}.",
            remedy="Correct it, then try `spotlab models conform`.",
        )


def probe(spec: str, rows: int = ROWS) -> pd.DataFrame:
    """Valid features: random ones, and rows with all features at their least and at their most; seeded."""
    generator = np.random.default_rng(20)
    columns = {}
    for feature in get_spec(spec).features:
        least = feature.minimum if np.isfinite(feature.minimum) else min(-WIDE, feature.maximum - WIDE)
        most = feature.maximum if np.isfinite(feature.maximum) else max(WIDE, feature.minimum + WIDE)
        drawn = generator.uniform(least, most, rows)
        drawn[:2] = least, most
        columns[feature.name] = drawn.round() if feature.unit == "0 or 1" else drawn
    return pd.DataFrame(columns)


def _declared(asked: _Asked) -> None:
    names, horizons = asked.model.get_expected_features(), asked.model.horizons_h
    if not names or len(set(names)) < len(names):
        raise _Broken(f"expected the names of one or more features, each once; got {names}")
    unknown = set(names) - set(get_spec(asked.spec).names)
    if unknown:
        raise _Broken(f"spec {asked.spec} has no {sorted(unknown)}")
    if horizons != HORIZONS_H:
        raise _Broken(f"expected the horizons {HORIZONS_H} h, got {horizons}")


def _probabilities(asked: _Asked) -> None:
    for frame in (asked.frame, asked.frame.head(1), asked.frame.head(0)):
        found = asked.batch(frame)
        if found.shape != (len(frame), len(asked.model.horizons_h)) or not ((found >= 0) & (found <= 1)).all():
            raise _Broken(f"of {len(frame)} rows came shape {found.shape}, from {found.min(initial=np.inf):g} to"
                          f" {found.max(initial=-np.inf):g}")  # fmt: skip


def _rising(asked: _Asked) -> None:
    found = asked.batch(asked.frame)
    falls = np.flatnonzero((np.diff(found, axis=1) < 0).any(axis=1))
    if len(falls):
        raise _Broken(f"row {falls[0]} has {found[falls[0]].tolist()}")


def _same_again(asked: _Asked) -> None:
    first = asked.batch(asked.frame)
    asked.batch(asked.frame.tail(7))
    if not np.array_equal(first, asked.batch(asked.frame)):
        raise _Broken("asked again, it says something else")


def _column_order(asked: _Asked) -> None:
    turned = asked.frame[asked.frame.columns[::-1]].assign(more=1.0)
    _equal(asked.batch(asked.frame), asked.batch(turned), "with its columns in another order")


def _row_order(asked: _Asked) -> None:
    order = np.random.default_rng(21).permutation(len(asked.frame))
    _equal(asked.batch(asked.frame)[order], asked.batch(asked.frame.take(order)), "with its rows in another order")


def _batch_is_single(asked: _Asked) -> None:
    batch = asked.batch(asked.frame)
    for row, features in enumerate(asked.frame.to_dict("records")):
        alone = asked.model.predict({str(name): float(value) for name, value in features.items()})
        _equal(batch[row], np.array([alone[horizon] for horizon in asked.model.horizons_h]), f"row {row} alone")


def _input_unchanged(asked: _Asked) -> None:
    given, kept = asked.frame.copy(deep=True), asked.frame
    asked.model.predict_batch(given, asked.spec)
    if not given.equals(kept):
        raise _Broken("the frame that it was given is another after it predicted")
    matrix = kept[asked.model.get_expected_features()].to_numpy(copy=True)
    before = matrix.copy()
    asked.model.predict_matrix(matrix)
    if not np.array_equal(before, matrix):
        raise _Broken("the matrix that it was given is another after it predicted")


def _refuses(values: tuple[float, ...]) -> Callable[[_Asked], None]:
    def check(asked: _Asked) -> None:
        for name in asked.model.get_expected_features():
            for value in values:
                frame = asked.frame.copy()
                frame.loc[1, name] = value
                _raises(FeatureOutOfRange, f"{name} = {value:g}", lambda frame=frame: asked.batch(frame))
                row = {str(each): float(one) for each, one in frame.to_dict("records")[1].items()}
                _raises(FeatureOutOfRange, f"{name} = {value:g} alone", lambda row=row: asked.model.predict(row))

    return check


def _out_of_range(asked: _Asked) -> None:
    by_name = {feature.name: feature for feature in get_spec(asked.spec).features}
    for name in asked.model.get_expected_features():
        for bound, away in ((by_name[name].minimum, -1.0), (by_name[name].maximum, 1.0)):
            if np.isfinite(bound):
                frame = asked.frame.copy()
                frame.loc[1, name] = bound + away
                _raises(FeatureOutOfRange, f"{name} = {bound + away:g}", lambda frame=frame: asked.batch(frame))


def _missing(asked: _Asked) -> None:
    for name in asked.model.get_expected_features():
        _raises(FeatureMissing, f"no {name}", lambda name=name: asked.batch(asked.frame.drop(columns=name)))


def _other_spec(asked: _Asked) -> None:
    other = "of another spec"
    _raises(FeatureVersionMismatch, other, lambda: asked.model.predict_batch(asked.frame, other))


def _raises(expected: type[FeatureError], given: str, ask: Callable[[], object]) -> None:
    try:
        ask()
    except expected:
        return
    except (Exception, SystemExit) as error:
        raise _Broken(f"{given}: expected {expected.__name__}, got {type(error).__name__}") from error
    raise _Broken(f"{given}: expected {expected.__name__}, got an answer")


def _equal(expected: np.ndarray, found: np.ndarray, what: str) -> None:
    if expected.shape != found.shape or not np.allclose(expected, found, rtol=RELATIVE, atol=ABSOLUTE):
        raise _Broken(f"{what} it says something else")


CHECKS: dict[str, Callable[[_Asked], None]] = {
    "features declared": _declared,
    "probabilities in [0, 1]": _probabilities,
    "not falling with the horizon": _rising,
    "deterministic": _same_again,
    "any order of columns": _column_order,
    "any order of rows": _row_order,
    "batch equals single": _batch_is_single,
    "input unchanged": _input_unchanged,
    "NaN refused": _refuses((np.nan,)),
    "infinity refused": _refuses((np.inf, -np.inf)),
    "out of range refused": _out_of_range,
    "missing feature refused": _missing,
    "other spec refused": _other_spec,
}
