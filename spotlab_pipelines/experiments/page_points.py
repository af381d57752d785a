"""A version's figures as points of MLflow's metrics: at which step and at which time each stands. pages.py sends them.

A scorecard's figures stand at the last window that they are of, and at the time at which they were made: those of the
same windows change when an outcome becomes known. What became of a window stands at the window's own time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.experiments.judging import HORIZON_H
from spotlab_pipelines.experiments.page_text import Page, digest_of, figures
from spotlab_pipelines.experiments.scorecards import is_known

if TYPE_CHECKING:
    from mlflow.entities import Dataset, Metric

HOUR = timedelta(hours=1)
DAYS_MAX = 30
"""Days whose figures are told afterwards: so many that a version's charts begin with lines, and that it stays quick."""


def step_of(window: pd.Timestamp, first: pd.Timestamp) -> int:
    """The step of a window in the fleet's run of a version: whole hours since the version's first one."""
    return int((window.floor("h") - first.floor("h")) // HOUR)


def window_points(windows: pd.DataFrame, steps: Sequence[int], run_id: str) -> list[Metric]:
    """Of `finished_windows`. On the run alone, which takes a window again where it was left half sent and has changed
    since.
    """
    from mlflow.entities import Metric

    return [
        Metric(f"outcome/{name}_{HORIZON_H}h", float(value), _ms(window), step, run_id=run_id)
        for name, column in windows.items()
        for window, step, value in zip(windows.index, steps, column, strict=True)
    ]  # fmt: skip


def dataset_of(page: Page) -> Dataset:
    """What the figures at `HORIZON_H` were taken on."""
    from mlflow.entities import Dataset

    name, source = f"predictions with outcomes, {HORIZON_H} h", '{"view": "v_labelled_predictions"}'
    profile = f'{{"predictions": {len(page.rows)}, "with outcome": {int(is_known(page.rows).sum())}}}'
    return Dataset(name, digest_of(page.rows), "postgres", source, profile=profile)


def figure_points(
    page: Page, first: pd.Timestamp, run_id: str, *, model_id: str | None, dataset: Dataset, now: datetime
) -> list[Metric]:
    """The scorecard's figures, on the version's model too. Those at `HORIZON_H` name their dataset; at other horizons
    other predictions have an outcome.
    """
    from mlflow.entities import Metric

    step = step_of(page.rows.loc[is_known(page.rows), "window_start"].max(), first)
    named = {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    return [
        Metric(
            key, value, _ms(now), step, model_id=model_id, run_id=run_id,
            **(named if key.endswith(f"_{HORIZON_H}h") else {}),
        )
        for key, value in figures(page).items()
    ]  # fmt: skip


def earlier_points(page: Page, windows: pd.DatetimeIndex, first: pd.Timestamp, run_id: str) -> list[Metric]:
    """The figures as they would have been after each day of `windows` but the last, by what is known today.

    So that a version whose past windows are shown at once has lines. On the run alone: the model has the latest ones.
    """
    from mlflow.entities import Metric

    ends = windows.to_series().groupby(windows.floor("D")).max()[:-1][-DAYS_MAX:]
    return [
        Metric(key, value, _ms(end), step_of(end, first), run_id=run_id)
        for end in ends
        for key, value in figures(page.before(end.floor("h") + HOUR)).items()
    ]


def account_points(figures: Mapping[str, float], step: int, run_id: str, *, now: datetime) -> list[Metric]:
    """Figures of an account's windows up to a step of its own run of the version."""
    from mlflow.entities import Metric

    return [Metric(key, value, _ms(now), step, run_id=run_id) for key, value in figures.items()]


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
