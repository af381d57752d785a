"""Backtests in MLflow, where people compare versions: a run per version and backtest, in an experiment of their own.

Its metrics are by forecaster, as those of scorecards are by what they are of: `card/` is the version itself,
`recalibrated/` and `recalibrated_daily/` are what it would have said so, and the others need no model.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.experiments.plots import Said, outcome_plots
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.inference.mlflow_store import (
    experiment_id,
    linkable_model,
    log_dataset,
    mlflow_client,
    mlflow_errors,
    ui_page,
)
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.training.backtest import ADVISOR, CONSTANT, DAILY, FIGURES, ONCE, TRAILING, judged_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.backtesting import Backtest

EXPERIMENT = "backtests"
PREFIXES = {CONSTANT: "constant", TRAILING: "trailing_share", ADVISOR: "advisor_rate"}
OF_ROWS = ("n", "events", "base_rate")
GAIN = ("brier_gain", "brier_gain_low", "brier_gain_high")
"""Over the first version of the backtest: shown of the others alone."""
COMPARED = ("brier_skill", "roc_auc", "ece")
"""What MLflow shows first."""


def show_backtest(settings: Settings, found: Backtest) -> str:
    """Leave a run of each version; the address in MLflow's UI at which they lie side by side.

    Raises:
        StoreUnavailable: MLflow's database does not answer.
    """
    from mlflow.entities import LoggedModelInput, Metric, Param

    client = mlflow_client(settings)
    experiment = experiment_id(client, settings, EXPERIMENT)
    runs, source, digest = [], found.data.source, judged_digest(found)
    for row in found.versions:
        name = f"{row.version} on {source}"
        tags = {"spotlab.version": row.version, "spotlab.family": row.family}
        params = found.params | {"version": row.version, "family": row.family, "feature_spec": row.feature_spec}
        with mlflow_errors(), _ended_run(client, experiment, name, tags) as run_id:
            dataset = log_dataset(client, run_id, source, digest, context="evaluation", source={"trace": source})
            model_id = linkable_model(client, row.mlflow_model_id)
            if model_id is not None:
                client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
            client.log_batch(
                run_id,
                metrics=[
                    Metric(
                        key,
                        value,
                        int(time.time() * 1000),
                        0,
                        run_id=run_id,
                        model_id=model_id,
                        dataset_name=dataset.name,
                        dataset_digest=dataset.digest,
                    )
                    for key, value in backtest_metrics(found, row).items()
                ],
                params=[Param(key, str(value)) for key, value in params.items()],
            )
            _draw(settings, found, row, run_id)
        runs.append(run_id)
    return ui_page(settings, f"experiments/{experiment}/runs" + (f"/{runs[0]}" if len(runs) == 1 else ""))


def backtest_metrics(found: Backtest, row: ServingVersion) -> dict[str, float]:
    """The figures of one version's run that exist, by metric, those that versions are compared by first.

    A version that is not the first has also how much lower its Brier score is than the first one's.
    """
    named = _named(found, row)
    own = found.judged[found.judged["forecaster"].isin(named)]
    wanted = {name: _figures(prefix, is_first=row is found.versions[0]) for name, prefix in named.items()}
    metrics = {
        f"{named[name]}/{figure}_{horizon}h": float(figures[figure])
        for horizon, name, figures in zip(own["horizon_h"], own["forecaster"], own.to_dict("records"), strict=True)
        for figure in figures.keys() & wanted[name]
    }
    first = own[own["forecaster"] == row.version]
    metrics |= {
        f"rows/{figure}_{horizon}h": float(value)
        for figure in OF_ROWS
        for horizon, value in zip(first["horizon_h"], first[figure], strict=True)
    }
    return {key: metrics[key] for key in sorted(metrics, key=_place) if np.isfinite(metrics[key])}


def judged_digest(found: Backtest) -> str:
    """64 hex digits of the judged rows' keys and outcomes alone: the same whichever versions were asked, and in which
    order, and whatever features they read, so that backtests of the same rows share their data set.
    """
    examples, horizons = found.examples, range(len(found.examples.horizons_h))
    judged = np.column_stack([judged_rows(found.forecasts, examples, column) for column in horizons])
    outcomes = pd.DataFrame(np.where(judged, examples.labels, np.nan), columns=pd.Index(examples.horizons_h, dtype=str))
    rows = pd.concat([found.data.examples[[SAMPLED_AT, *POOL_KEY]], outcomes], axis="columns")[judged.any(axis=1)]
    # Rows of one pool and instant lie in the order of their features.
    hashes = np.sort(pd.util.hash_pandas_object(rows, index=False).to_numpy())
    return hashlib.sha256(hashes.tobytes()).hexdigest()


@contextmanager
def _ended_run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """A new run that has ended whatever happens: FAILED where anything was raised."""
    run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    try:
        yield run_id
    except BaseException:
        # If MLflow fails in this too, what failed first is what matters.
        with suppress(Exception):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _figures(prefix: str, *, is_first: bool) -> set[str]:
    figures = {*FIGURES, "skill_over_constant"} - set(OF_ROWS)
    return figures | set(GAIN) if prefix == "card" and not is_first else figures


def _place(key: str) -> tuple[bool, int, str, int]:
    """Where a metric stands: the version's own before the others, the compared figures before the rest."""
    prefix, _, name = key.partition("/")
    figure, _, horizon = name.rpartition("_")
    place = COMPARED.index(figure) if figure in COMPARED else len(COMPARED)
    return prefix != "card", place, f"{prefix}/{figure}", int(horizon.removesuffix("h"))


def _named(found: Backtest, row: ServingVersion) -> dict[str, str]:
    """By forecaster what a version's run calls it: its own, and those that need no model."""
    own = {
        row.version: "card",
        f"{row.version}, {ONCE}": "recalibrated",
        f"{row.version}, {DAILY}": "recalibrated_daily",
    }
    return {name: prefix for name, prefix in (own | PREFIXES).items() if name in found.forecasts}


def _draw(settings: Settings, found: Backtest, row: ServingVersion, run_id: str) -> None:
    """Curves of the version and of what it would have said when recalibrated, at each horizon."""
    own = [name for name, prefix in _named(found, row).items() if prefix not in PREFIXES.values()]
    examples = found.examples
    with tempfile.TemporaryDirectory() as scratch:
        for column, horizon in enumerate(examples.horizons_h):
            if horizon not in set(found.judged["horizon_h"]):
                continue
            rows = judged_rows(found.forecasts, examples, column)
            outcome, at = examples.labels[rows, column], examples.places.at[rows]
            said = {name: Said(outcome, found.forecasts[name][rows, column], at) for name in own}
            title = f"{row.version} on {found.data.source}, within {horizon} h"
            for name, picture in outcome_plots(said, title=title).items():
                (Path(scratch) / f"{name}_{horizon}h.png").write_bytes(picture)
        # Not in folders: MLflow's page of several runs looks for what they have at the root alone.
        mlflow_client(settings).log_artifacts(run_id, scratch)
