"""A backtest's runs in MLflow, of generated rows: what they name, and how they end where something fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.versions import ServingVersion
from spotlab_pipelines.settings import HORIZONS_H, Settings
from spotlab_pipelines.training import backtest_pages
from spotlab_pipelines.training.backtest import judge
from spotlab_pipelines.training.backtest_pages import judged_digest, show_backtest
from spotlab_pipelines.training.backtesting import Backtest
from spotlab_pipelines.training.data import TrainingData
from spotlab_pipelines.training.fitting import Examples
from spotlab_pipelines_tests.training.traces import START

SPEC = "v2-history"
ROWS = 400

pytestmark = pytest.mark.usefixtures("mlflow_database")


def version(name: str, spec: str = SPEC, model_id: str | None = None) -> ServingVersion:
    family, _, number = name.partition("/")
    return ServingVersion(
        name, family, int(number), "none", "approved", spec, HORIZONS_H, "a", "0" * 64, "r", model_id, {}, "a test",
        None, None, (),
    )  # fmt: skip


def backtest(*versions: ServingVersion, fingerprint: str = "f" * 64) -> Backtest:
    """Two versions' say of rows of one pool; the outcomes are always the same, the features those of the first."""
    generator = np.random.default_rng(3)
    outcome = (generator.random((ROWS, len(HORIZONS_H))) < 0.3).astype(float)
    names = [f"interrupted_{horizon}h" for horizon in HORIZONS_H]
    frame = pd.DataFrame(outcome, columns=names).assign(
        **{SAMPLED_AT: pd.date_range(START, periods=ROWS // 2, freq="h").repeat(2)},
        region="us-east-1", instance_type="m5.large", az_id="use1-az1", product="Linux/UNIX",
    )  # fmt: skip
    spec = versions[0].feature_spec
    # Two rows of each instant, which lie in the order of their features.
    order = (np.arange(ROWS) + (spec == SPEC)) % 2 * 1.0
    frame = frame.assign(**dict.fromkeys(get_spec(spec).names, order))
    data = TrainingData(frame, fingerprint, "generated", spec, None, None)
    examples = Examples.of(frame, spec)
    forecasts = {each.version: generator.random(outcome.shape) for each in versions}
    judged = judge(forecasts, examples, np.arange(ROWS) // 24)
    return Backtest(list(versions), data, examples, forecasts, judged, data.params())


def test_backtests_of_the_same_rows_share_their_data_set_whatever_features_are_read(settings: Settings) -> None:
    ours, others = version("a/1"), version("b/1", "v2")
    asked = [backtest(ours, others), backtest(others, ours, fingerprint="e" * 64), backtest(ours)]
    client, told = mlflow_client(settings), []
    for found in asked:
        show_backtest(settings, found)
        for run in runs_of(settings).values():
            [dataset] = [each.dataset for each in run.inputs.dataset_inputs]
            told.append((dataset.digest, dataset.source))
            client.delete_run(run.info.run_id)
    assert len(told) == 5
    assert len(set(told)) == 1
    assert told[0][1] == '{"trace": "generated"}'


def test_other_outcomes_or_fewer_judged_rows_are_another_data_set() -> None:
    found = backtest(version("a/1"))
    digest = judged_digest(found)
    for changed in (found.examples.labels, found.forecasts["a/1"]):
        before = changed[0, 0]
        changed[0, 0] = np.nan
        assert judged_digest(found) != digest
        changed[0, 0] = before
    assert judged_digest(found) == digest


def runs_of(settings: Settings) -> dict[str, Any]:
    """By version its run."""
    client = mlflow_client(settings)
    experiment = client.get_experiment_by_name("backtests")
    assert experiment is not None
    ids = [run.info.run_id for run in client.search_runs([experiment.experiment_id])]
    return {run.data.tags["spotlab.version"]: run for run in map(client.get_run, ids)}


def test_a_model_that_mlflow_has_lost_is_passed_over(settings: Settings) -> None:
    client = mlflow_client(settings)
    model = client.create_logged_model(client.create_experiment("models"), name="b").model_id
    show_backtest(settings, backtest(version("a/1", model_id="m-" + "0" * 32), version("b/1", model_id=model)))
    runs = runs_of(settings)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert "card/brier_6h" in runs["a/1"].data.metrics
    assert not runs["a/1"].inputs.model_inputs
    assert [each.model_id for each in runs["b/1"].inputs.model_inputs] == [model]


def test_a_run_does_not_go_on_where_something_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backtest_pages, "_draw", fail)
    with pytest.raises(KeyboardInterrupt):
        show_backtest(settings, backtest(version("a/1"), version("b/1")))
    assert {name: run.info.status for name, run in runs_of(settings).items()} == {"a/1": "FAILED"}
