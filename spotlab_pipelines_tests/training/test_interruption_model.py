"""From an imported trace to a registered candidate and its backtest, by the product's commands, on real stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.errors import IntegrityError, NotFound, StoreUnavailable
from spotlab_pipelines.inference.estimators import AdvisorRateModel
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.training import data as training_data
from spotlab_pipelines.training import interruption_model
from spotlab_pipelines.training.data import collect_trace, read_training_data
from spotlab_pipelines.training.interruption_model import concerns
from spotlab_pipelines.training.unseen import check_unseen, fitted_on, learned_from
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.training.laboratory import UNTIL, bring, laboratory, train
from spotlab_pipelines_tests.training.traces import START

__all__ = ["laboratory", "spotlab", "use"]
AFTER = "2023-03-21"


def test_a_candidate_is_registered_with_all_that_tells_how_good_it_is(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine
):
    trained = train(laboratory, "--until", UNTIL)
    registry = ModelRegistry(engine, settings)
    row = registry.find("time-in-state/1")
    assert (row.status, row.role, row.registered_by) == ("candidate", "none", "spotlab models train")
    for kind in ("", "walk_forward_"):
        for name in ("n", "events", "base_rate", "auc", "pr_auc", "log_loss", "brier", "brier_skill", "ece"):
            assert row.metrics[f"{kind}{name}_6h"] == trained["metrics"][f"{kind}{name}_6h"]
    client = mlflow_client(settings)
    run = client.get_run(row.mlflow_run_id)
    assert run.info.run_name == "time-in-state/1"
    assert run.inputs is not None
    assert run.outputs is not None
    [fitted_on] = run.inputs.dataset_inputs
    assert (fitted_on.dataset.name, fitted_on.dataset.digest) == ("generated", trained["data_fingerprint"][:32])
    assert [model.model_id for model in run.outputs.model_outputs] == [row.mlflow_model_id]
    assert run.data.tags["mlflow.note.content"].startswith("Registered by spotlab models train; reads ")
    params = run.data.params
    assert params["data_fingerprint"] == trained["data_fingerprint"]
    assert params["fit_sha256"] == trained["fit_sha256"]
    assert (params["source"], params["until"]) == ("generated", "2023-03-13T00:00:00+00:00")
    folder = "validation/walk_forward/1h"
    assert {Path(each.path).name for each in client.list_artifacts(row.mlflow_run_id, folder)} == {
        "reliability.csv", "thresholds.csv", "reliability.png", "roc.png", "precision_recall.png",
        "calibration_over_time.png",
    }  # fmt: skip

    # The same examples give the same fit, though every file of it is another; others give another.
    again = train(laboratory, "--until", UNTIL)
    assert (again["version"], again["fit_sha256"]) == ("time-in-state/2", trained["fit_sha256"])
    assert again["data_fingerprint"] == trained["data_fingerprint"]
    assert registry.find("time-in-state/2").artifact_sha256 != row.artifact_sha256
    less = train(laboratory, "--until", "2023-03-12")
    assert less["fit_sha256"] != trained["fit_sha256"]
    assert less["data_fingerprint"] != trained["data_fingerprint"]

    options = ("--trace", "generated", "--recalibrate-days", "1.5", "--json")
    answer = laboratory("models", "backtest", "time-in-state/1", "--since", UNTIL, *options)
    assert answer.code == 0, answer.err
    found = {row["forecaster"]: row for row in answer.json if row["horizon_h"] == 1}
    assert list(found) == [
        "time-in-state/1", "time-in-state/1, recalibrated once",
        "time-in-state/1, recalibrated daily", "constant", "trailing 24 h failure share",
    ]  # fmt: skip
    assert found["time-in-state/1"]["roc_auc"] > found["constant"]["roc_auc"] == 0.5
    assert "no advisor-rate" in answer.err
    assert len({row["n"] for row in found.values()}) == 1
    shown = laboratory("models", "backtest", "time-in-state/1", "--since", UNTIL, *options[:-1]).out
    judged = found["constant"]
    assert f"Within 1 h: {judged['n']} rows, {judged['events']} of them interrupted (base rate 0." in shown
    assert "Within 12 h: " in shown
    assert max(map(len, shown.splitlines())) <= 120

    seen = laboratory("models", "backtest", "time-in-state/1", "--trace", "generated", "--since", "2023-03-10")
    assert seen.code == 1
    assert "cannot judge it" in seen.err
    nothing = laboratory("models", "backtest", "time-in-state/1", "--trace", "generated", "--since", AFTER)
    assert nothing.code == 1
    assert "there are none" in nothing.err


def test_what_a_version_was_fitted_on_does_not_judge_it_under_another_name(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine, tmp_path: Path
):
    train(laboratory, "--until", UNTIL)
    bring(laboratory, "renamed", tmp_path, rows=slice(1, None))
    for command in (("backtest", "--since", "2023-03-05"), ("recalibrate", "--until", "2023-03-16")):
        seen = laboratory("models", command[0], "time-in-state/1", "--trace", "renamed", *command[1:])
        assert (seen.code, "rows, by pool and instant" in seen.err) == (1, True), seen.err
    assert len(ModelRegistry(engine, settings).versions()) == 1
    judged = laboratory("models", "backtest", "time-in-state/1", "--trace", "renamed", "--since", UNTIL)
    assert judged.code == 0, judged.err


def test_a_version_is_recalibrated_on_a_short_prefix_and_becomes_a_candidate(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine, tmp_path: Path
):
    train(laboratory, "--until", "2023-03-08")
    prefix = ("--trace", "generated", "--since", UNTIL, "--until", "2023-03-16")
    answer = laboratory("models", "recalibrate", "time-in-state/1", *prefix, "--json")
    assert answer.code == 0, answer.err
    made, registry = answer.json[0], ModelRegistry(engine, settings)
    row, base = registry.find("time-in-state/2"), registry.find("time-in-state/1")
    assert (row.status, row.role, row.registered_by) == ("candidate", "none", "spotlab models recalibrate")
    assert made["version"] == row.version
    assert made["data_fingerprint"] == row.training_sha256 != base.training_sha256
    assert base.reference is not None
    assert row.reference == base.reference, "its models know what their base was fitted on"
    page = mlflow_client(settings).get_model_version("time-in-state", "2").description
    assert str(page).startswith("Recalibrated from time-in-state/1: ")
    params = mlflow_client(settings).get_run(row.mlflow_run_id).data.params
    assert (params["base_version"], params["base_sha256"]) == ("time-in-state/1", base.artifact_sha256)
    assert (params["source"], params["until"]) == ("generated", "2023-03-16T00:00:00+00:00")
    assert params["fit_sha256"] == made["fit_sha256"]
    assert params["recalibration_1h"].startswith("platt ")
    # Judged by maps of other days: all three days out of fold, the last two walking forward.
    assert row.metrics["n_1h"] > row.metrics["walk_forward_n_1h"] > 0
    data = read_training_data(Archive(settings.archive_location), row.training_sha256 or "").examples
    mine, theirs = (registry.open(each).predict_batch(data, "v2-history") for each in (row, base))
    known = data["interrupted_1h"].notna().to_numpy()
    rate = data["interrupted_1h"][known].mean()
    # What it was made of, on the very same rows.
    assert row.metrics["before_n_1h"] == row.metrics["n_1h"] == known.sum()
    brier = ((theirs[known, 0] - data["interrupted_1h"][known]) ** 2).mean()
    assert row.metrics["before_brier_1h"] == pytest.approx(brier, rel=1e-12)
    assert abs(mine[known, 0].mean() - rate) < abs(theirs[known, 0].mean() - rate)
    folder = "validation/out_of_fold/1h"
    assert "reliability.png" in {
        Path(p.path).name for p in mlflow_client(settings).list_artifacts(row.mlflow_run_id, folder)
    }

    # What it was recalibrated on does not judge it, nor does it make another of it.
    seen = laboratory("models", "backtest", "time-in-state/2", "--trace", "generated", "--since", "2023-03-15")
    assert (seen.code, "cannot judge it" in seen.err) == (1, True), seen.err
    for options in ((), ("--since", "2023-03-07", "--until", "2023-03-08")):
        seen = laboratory("models", "recalibrate", "time-in-state/1", "--trace", "generated", *options)
        assert (seen.code, "time-in-state/1 was fitted on generated" in seen.err) == (1, True), seen.err
    after = laboratory("models", "backtest", "time-in-state/2", "--trace", "generated", "--since", "2023-03-16")
    assert after.code == 0, after.err
    assert len(registry.versions()) == 2

    listed = {each["version"]: each["learned_from"] for each in laboratory("models", "list", "--json").json}
    assert listed == {
        "time-in-state/1": "trace generated", "time-in-state/2": "time-in-state/1 on trace generated",
    }  # fmt: skip
    shown = laboratory("models", "list").out
    assert "│ time-in-state/1 on trace generated │" in shown
    shown = laboratory("models", "show", "time-in-state/2").out
    assert "learned from    time-in-state/1 on trace generated\n" in shown
    assert "; asked for since 2023-03-13T00:00:00+00:00 until 2023-03-16T00:00:00+00:00\n" in shown
    assert f"fingerprint     {row.training_sha256}\n" in shown
    assert "│ recalibration │ platt " in shown
    assert "base_version = time-in-state/1\n" in shown
    lost = replace(base, mlflow_run_id="0" * 32)
    assert learned_from(settings, [lost]) == {}, "MLflow has lost the run"
    assert learned_from(settings, [lost, row]) == {row.version: listed[row.version]}
    assert learned_from(settings, []) == {}
    with pytest.raises(IntegrityError, match="has lost the run 00"):
        check_unseen(settings, registry, lost, "another", None)

    # Nor does what the version that it was made of was fitted on.
    bring(laboratory, "elsewhere", tmp_path, region="us-east-1", seed=1, days=3)
    answer = laboratory("models", "recalibrate", "time-in-state/1", "--trace", "elsewhere")
    assert answer.code == 0, answer.err
    seen = laboratory("models", "backtest", "time-in-state/3", "--trace", "generated", "--since", "2023-03-05")
    assert (seen.code, "time-in-state/1 was fitted on generated" in seen.err) == (1, True), seen.err

    # A trace goes; who learned from it, by themselves or by the version that they were made of, is told and stays.
    rows = registry.versions()
    assert fitted_on(settings, rows, "elsewhere") == (["time-in-state/3"], [])
    # Of those whose fit MLflow has lost, and of what was made of them, nobody knows.
    forgotten = [replace(row, mlflow_run_id="0" * 32) if row.number == 1 else row for row in rows]
    assert fitted_on(settings, forgotten, "elsewhere") == (["time-in-state/3"], ["time-in-state/1", "time-in-state/2"])
    removed = laboratory("outcomes", "remove", "generated", "--yes")
    assert removed.code == 0, removed.err
    told = "Fitted on it: time-in-state/1, time-in-state/2, time-in-state/3.\nThey stay, but cannot be fitted again"
    assert told in removed.err
    assert registry.versions() == rows
    assert laboratory("models", "conform", "time-in-state/1").code == 0
    gone = laboratory("models", "train", "time-in-state", "--trace", "generated")
    assert (gone.code, "no trace 'generated'; there are: elsewhere" in gone.err) == (1, True), gone.err


def test_one_probability_for_all_is_the_share_of_the_days_that_the_version_was_fitted_on(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine
):
    """The share of the judged days is known afterwards alone: against it every forecaster would look worse."""
    for command in (("train", "base-rate", "--until", UNTIL), ("backtest", "base-rate/1", "--since", UNTIL)):
        answer = laboratory("models", *command, "--trace", "generated", "--json")
        assert answer.code == 0, answer.err
    row = ModelRegistry(engine, settings).find("base-rate/1")
    fitted_on = read_training_data(Archive(settings.archive_location), row.training_sha256 or "").examples
    constant = [each for each in answer.json if each["forecaster"] == "constant"]
    assert [each["horizon_h"] for each in constant] == [1, 6, 12]
    for found in constant:
        before, then = fitted_on[f"interrupted_{found['horizon_h']}h"].mean(), found["base_rate"]
        assert abs(before - then) > 0.005, "the days differ"
        assert found["brier"] == pytest.approx(then * (1 - then) + (before - then) ** 2, rel=1e-9)
        assert found["brier_skill"] < 0


def test_a_fit_whose_pictures_mlflow_did_not_take_is_registered_and_says_so(
    laboratory: Spotlab, monkeypatch: pytest.MonkeyPatch
):
    def lost(*_: object) -> None:
        raise StoreUnavailable("MLflow's database does not answer.")

    monkeypatch.setattr(interruption_model, "_draw", lost)
    answer = laboratory("models", "train", "time-in-state", "--trace", "generated")
    assert answer.code == 0, answer.err
    assert "note: time-in-state/1 is registered, but MLflow has not all of its pictures" in answer.err
    assert "time-in-state/1 is a candidate" in answer.out


def test_who_may_not_register_is_told_before_anything_is_read(laboratory: Spotlab):
    laboratory("users", "add", "lee@example.org", "--role", "user")
    train(laboratory)
    for command in (("train", "time-in-state"), ("recalibrate", "time-in-state/1")):
        refused = laboratory("models", *command, "--trace", "generated", "--as", "lee@example.org")
        assert (refused.code, "Expected the role lab or admin to register model" in refused.err) == (1, True)
        assert "reading" not in refused.err


def test_errors_have_names_and_register_nothing(laboratory: Spotlab, settings: Settings, engine: sa.Engine):
    for arguments, (code, expected) in {
        ("forest", "--trace", "generated"): (2, "Expected one of the families"),
        ("logistic", "--trace", "generated", "--spec", "v1"): (2, "--spec v2-history"),
        ("logistic", "--trace", "generated", "--spec", "v7"): (2, "v2-history"),
        ("advisor-rate", "--trace", "generated"): (2, "Leave out --trace"),
        ("time-in-state", "--spec", "v1"): (2, "Take --spec v2 or v2-history."),
        ("logistic", "--trace", "other"): (1, "no trace 'other'; there are: generated."),
        ("logistic", "--trace", "generated", "--until", "2023-03-01T04:00"): (1, "20 are needed"),
        ("logistic", "--trace", "generated", "--since", "2023-03-09", "--until", "2023-03-08"): (2, "--since before"),
        ("logistic", "--trace", "generated", "--since", "0001-01-01"): (2, "from 2006 to 2199; got 0001-01-01"),
        ("logistic", "--trace", "generated", "--until", "2300-01-01"): (2, "from 2006 to 2199; got 2300-01-01"),
    }.items():
        answer = laboratory("models", "train", *arguments)
        assert (answer.code, expected in answer.err) == (code, True), answer.err
        # What is wrong from the start is told before anything is read.
        assert ("reading" in answer.err) == ("2023-03-01T04:00" in arguments)
    assert ModelRegistry(engine, settings).versions() == []


def test_without_a_spec_accounts_are_learned_from_with_prices(laboratory: Spotlab, monkeypatch: pytest.MonkeyPatch):
    def asked(*_: object, feature_spec: str, **__: object) -> None:
        raise NotFound(f"asked for {feature_spec}.")

    monkeypatch.setattr(training_data, "collect_accounts", asked)
    for arguments, spec in {
        ("logistic",): "v1",
        ("time-in-state",): "v2-history",
        ("boosting", "--spec", "v2"): "v2",
    }.items():
        assert f"asked for {spec}." in laboratory("models", "train", *arguments).err


def test_a_version_that_needs_prices_is_refused_before_the_trace_is_read(
    laboratory: Spotlab, settings: Settings, engine: sa.Engine
):
    ModelRegistry(engine, settings).register(
        AdvisorRateModel(), family="advisor-rate", feature_spec="v1", metrics={}, params={}, registered_by="a test",
        example=pd.DataFrame({"historic_interrupt_rate": [0.025, 0.30]}),
    )  # fmt: skip
    told = {
        "backtest": "advisor-rate/1, of feature spec v1, needs prices",
        "recalibrate": "feature spec v1 needs prices",
    }
    for command in (("backtest", "--since", UNTIL), ("recalibrate",)):
        answer = laboratory("models", command[0], "advisor-rate/1", "--trace", "generated", *command[1:])
        assert answer.code == 1
        assert told[command[0]] in answer.err
        assert "--spec v2-history` makes a version that needs none" in answer.err
        assert "reading" not in answer.err
        assert laboratory("models", "list", "--json").json[0]["learned_from"] is None
        unknown = laboratory("models", command[0], "advisor-rate/1", "--trace", "other", *command[1:])
        assert (unknown.code, "no trace 'other'" in unknown.err) == (1, True), unknown.err


def test_examples_are_kept_under_the_hash_of_their_content(laboratory: Spotlab, settings: Settings):
    archive = Archive(settings.archive_location)
    until = START.to_pydatetime().replace(day=5)
    data = collect_trace(settings, archive, "generated", feature_spec="v2-history", until=until)
    again = read_training_data(archive, data.fingerprint)
    assert again.examples.equals(data.examples)
    assert (again.source, again.since, again.until) == ("generated", None, "2023-03-05T00:00:00+00:00")
    # What was not known at the end, six hours after the instant, is censored.
    hour, label = data.examples["sampled_at"], data.examples["interrupted_6h"]
    assert label[hour > until.replace(day=4, hour=18)].isna().all()
    assert not label[hour <= until.replace(day=4, hour=17)].isna().any()
    with pytest.raises(NotFound):
        read_training_data(archive, "0" * 64)
    file = next(Path(settings.archive_location).glob(f"snapshots/{data.fingerprint}/*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError):
        read_training_data(archive, data.fingerprint)


def test_a_fit_that_is_worse_than_one_share_for_all_says_so(laboratory: Spotlab):
    told = concerns({"brier_skill_1h": 0.2, "walk_forward_brier_skill_6h": -0.03, "brier_skill_12h": 0.0})
    assert [each.split(",")[:2] for each in told] == [["at 6 h", " walking forward"]]
    answer = laboratory("models", "train", "base-rate", "--trace", "generated", "--until", UNTIL)
    assert answer.code == 0, answer.err
    # The share of other days is never better than that of the days themselves.
    assert "note: at 6 h, out of fold, it is worse than one probability for all pools" in answer.err
    assert max(map(len, answer.out.splitlines()[:-1])) <= 120
    assert "note:" not in laboratory("models", "train", "time-in-state", "--trace", "generated", "--until", UNTIL).err
