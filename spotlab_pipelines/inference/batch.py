"""Predicting with many versions at once, on features of one frozen snapshot; nothing is read but the models' files.

Each set of columns that versions read is checked and laid out once, however many read it. A version that fails (cannot
be opened, lacks its features, raises, gives no probability) is left out with the reason; only the champion must not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spotlab_pipelines.errors import (
    FeatureVersionMismatch,
    IntegrityError,
    ModelError,
    SpotLabError,
    TransientError,
    raised_in,
)
from spotlab_pipelines.features.matrix import feature_columns, row_blocks
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from spotlab_pipelines.inference.adapter import BaseModelAdapter
    from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion

COLUMNS = tuple(f"p_{horizon}h" for horizon in HORIZONS_H)
LONGEST_REASON = 300
"""A reason travels with every decision of a version that failed."""


@dataclass(frozen=True)
class Predicted:
    """What versions predicted.

    Attributes:
        frame: pool key, model_version, p_<H>h: one block of pools after the other, in the order of the versions.
        failed: version -> why it predicted nothing.
    """

    frame: pd.DataFrame
    failed: dict[str, str]


@dataclass(frozen=True)
class _Scoring:
    """A version at work: `features` has a row a pool, `out` is (n_horizons, n)."""

    row: ServingVersion
    model: BaseModelAdapter
    features: pd.DataFrame
    out: np.ndarray

    @property
    def reads(self) -> tuple[str, tuple[str, ...]]:
        return self.model.spec.version, self.model.spec.names


def predict(registry: ModelRegistry, rows: Sequence[ServingVersion], tables: Mapping[str, pd.DataFrame]) -> Predicted:
    """The predictions of every version, each on the features of its own spec.

    Args:
        rows: each version once.
        tables: feature spec -> features, computed from one snapshot; at least one.

    Raises:
        ModelError, FeatureError, IntegrityError: the champion failed.
        TransientError: a store does not answer.
    """
    failed: dict[str, str] = {}
    opened: list[tuple[ServingVersion, BaseModelAdapter]] = []
    for row in rows:
        with _may_fail(row, failed):
            opened.append((row, _opened(registry, row, tables)))
    frames = [tables[model.spec.version] for _, model in opened]
    ends = np.cumsum([len(frame) for frame in frames])
    out = np.empty((len(HORIZONS_H), int(ends[-1]) if len(ends) else 0))
    parts = np.split(out, ends[:-1], axis=1) if len(ends) else []
    at_work = [_Scoring(*one, frame, part) for one, frame, part in zip(opened, frames, parts, strict=True)]
    for _, alike in groupby(sorted(at_work, key=lambda one: one.reads), key=lambda one: one.reads):
        _score(list(alike), failed)
    done = [one for one in at_work if one.row.version not in failed]
    if len(done) < len(at_work):
        out = np.concatenate([out[:, :0], *(one.out for one in done)], axis=1)
    return Predicted(_frame(done, out), failed)


def _score(alike: list[_Scoring], failed: dict[str, str]) -> None:
    """Fill the probabilities of versions that read the same columns, or say why not."""
    columns: list[np.ndarray] = []
    for one in alike:
        if not columns:
            with _may_fail(one.row, failed):
                columns = feature_columns(one.features, one.model.spec)
    for rows, block in row_blocks(columns) if columns else ():
        for one in alike:
            if one.row.version not in failed:
                with _may_fail(one.row, failed, of_stores=False):
                    one.model.predict_into(block, one.out[:, rows])


def _opened(registry: ModelRegistry, row: ServingVersion, tables: Mapping[str, pd.DataFrame]) -> BaseModelAdapter:
    model = registry.open(row)
    if model.horizons_h != HORIZONS_H:
        raise IntegrityError(
            f"{model.version} predicts {model.horizons_h} h; the log has {HORIZONS_H} h.",
            remedy=f"Retire {model.version} and fit it anew.",
        )
    if model.spec.version not in tables:
        raise FeatureVersionMismatch(
            f"{model.version} was fitted on feature spec {model.spec.version}; there are features of"
            f" {', '.join(sorted(tables))}."
        )
    return model


@contextmanager
def _may_fail(row: ServingVersion, failed: dict[str, str], *, of_stores: bool = True) -> Iterator[None]:
    """Put on record why a version failed, whatever was raised: a package's code may even try to end the process.

    Args:
        of_stores: stores are asked here, and that one does not answer is not the version's failure.

    Raises:
        ModelError, FeatureError, IntegrityError: it is the champion, without which nothing is evaluated.
        TransientError: a store does not answer.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if of_stores and isinstance(error, TransientError):
            raise
        logging.getLogger(__name__).warning("%s failed", row.version, exc_info=error)
        if row.role != "champion":
            failed[row.version] = reason(error)
        elif isinstance(error, SpotLabError) and not isinstance(error, TransientError):
            raise type(error)(f"The champion {row.version} failed: {error}") from error
        else:
            raise ModelError(
                f"The champion {row.version} failed: {reason(error)}",
                remedy="Promote another: `spotlab models promote`.",
            ) from error


def reason(error: BaseException) -> str:
    """An error in a line; that of a library may quote anything, so only its kind and place are told."""
    if isinstance(error, SpotLabError):
        said = f"{type(error).__name__}: {error}"
        return said if len(said) <= LONGEST_REASON else f"{said[: LONGEST_REASON - 1]}…"
    return f"{type(error).__name__}, {raised_in(error)}."


def _frame(done: Sequence[_Scoring], probabilities: np.ndarray) -> pd.DataFrame:
    """Pool keys and versions beside (n_horizons, rows) probabilities.

    Texts are joined as chunks: those of a key are not copied, however many versions there are.
    """
    text = pa.large_string()
    schema = pa.schema(dict.fromkeys((*POOL_KEY, "model_version"), text))
    texts = pa.concat_tables([schema.empty_table(), *(pa.table(_keys(one, text), schema) for one in done)])
    return pd.DataFrame(
        {
            **{column: texts[column].to_pandas().array for column in schema.names},
            **dict(zip(COLUMNS, probabilities, strict=True)),
        },
        copy=False,
    )


def _keys(one: _Scoring, text: pa.DataType) -> list[Any]:
    """The pool keys that a version predicted for and its name, (n,) each."""
    keys = [pa.array(one.features[column].array, text) for column in POOL_KEY]
    return [*keys, pa.repeat(pa.scalar(one.row.version, text), len(one.features))]
