"""Several versions on one trace, by the product's command: on the same rows, against the first, and in MLflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.training.backtest_pages import backtest_metrics
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.training.laboratory import UNTIL, laboratory, train

__all__ = ["laboratory", "spotlab", "use"]
COMMAND = ("models", "backtest", "base-rate/1", "time-in-state/1", "--trace", "generated", "--since", UNTIL)


def test_several_versions_are_judged_on_the_same_rows_and_lie_side_by_side_in_mlflow(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine
):
    for family in ("base-rate", "time-in-state"):
        train(laboratory, "--until", UNTIL, family=family)
    answer = laboratory(*COMMAND, "--recalibrate-days", "1.5", "--json")
    assert answer.code == 0, answer.err
    found = {row["forecaster"]: row for row in answer.json if row["horizon_h"] == 6}
    ways = ("", ", recalibrated once", ", recalibrated daily")
    versions = [f"{version}{way}" for version in ("base-rate/1", "time-in-state/1") for way in ways]
    assert list(found) == [*versions, "constant", "trailing 24 h failure share"]
    assert len({(row["n"], row["events"]) for row in found.values()}) == 1
    first, second = found["base-rate/1"], found["time-in-state/1"]
    assert first["brier_gain"] == 0
    assert second["brier_gain"] == pytest.approx(first["brier"] - second["brier"], abs=1e-12)
    assert second["brier_gain_low"] < second["brier_gain"] < second["brier_gain_high"]

    client, registry = mlflow_client(settings), ModelRegistry(engine, settings)
    experiment = client.get_experiment_by_name("backtests")
    assert experiment is not None
    assert f"#/experiments/{experiment.experiment_id}/runs" in answer.err
    runs = {run.data.params["version"]: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.run_name for run in runs.values()} == {"base-rate/1 on generated", "time-in-state/1 on generated"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    run = client.get_run(runs["time-in-state/1"].info.run_id)
    assert (run.data.params["source"], run.data.params["recalibrate_days"]) == ("generated", "1.5")
    assert run.inputs is not None
    [dataset] = run.inputs.dataset_inputs
    assert [tag.value for tag in dataset.tags] == ["evaluation"]
    model_id = registry.find("time-in-state/1").mlflow_model_id
    assert model_id is not None
    assert [each.model_id for each in run.inputs.model_inputs] == [model_id]
    judged = {metric.key: metric for metric in client.get_logged_model(model_id).metrics or ()}["card/brier_6h"]
    assert (judged.value, judged.dataset_name) == (second["brier"], "generated")
    shown = run.data.metrics
    for prefix, name in (
        ("card", "time-in-state/1"), ("recalibrated", versions[-2]), ("recalibrated_daily", versions[-1]),
        ("constant", "constant"), ("trailing_share", "trailing 24 h failure share"),
    ):  # fmt: skip
        for figure in ("roc_auc", "brier_skill", "ece", "skill_over_constant"):
            assert shown[f"{prefix}/{figure}_6h"] == found[name][figure]
    assert shown["card/brier_gain_6h"] == second["brier_gain"]
    assert shown["rows/events_6h"] == second["events"]
    assert "card/brier_gain_6h" not in runs["base-rate/1"].data.metrics
    assert "reliability_6h.png" in {each.path for each in client.list_artifacts(run.info.run_id)}

    told = laboratory(*COMMAND, "--recalibrate-days", "1.5")
    again = [client.get_run(each.info.run_id).inputs for each in client.search_runs([experiment.experiment_id])]
    digests = [each.dataset.digest for inputs in again if inputs for each in inputs.dataset_inputs]
    assert digests == [dataset.dataset.digest] * 4, "the same rows, the same data set"
    assert f"  time-in-state/1 {second['brier_gain']:+.5f} (95 %: " in told.out
    assert max(map(len, told.out.splitlines())) <= 120
    assert told.out.count("is below that of base-rate/1; above 0 is better:") == 3
    assert told.out.count("\n  base-rate/1, recalibrated daily ") == 3
    twice = laboratory(*COMMAND, "base-rate/1")
    assert (twice.code, "Expected different versions" in twice.err) == (1, True)
    assert len(client.search_runs([experiment.experiment_id])) == 4

    # MLflow compares runs by the metric that it was sent first.
    versions = [registry.find(version) for version in ("base-rate/1", "time-in-state/1")]
    asked: Any = SimpleNamespace(versions=versions, forecasts=found, judged=pd.DataFrame(answer.json))
    sent = list(backtest_metrics(asked, versions[1]))
    assert sent[:4] == [*(f"card/brier_skill_{hours}h" for hours in (1, 6, 12)), "card/roc_auc_1h"]
    assert sorted(sent) == sorted(shown)
