"""`spotlab models show`: what is known of a version, by the registry, the audit log, its files, MLflow and the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from spotlab_pipelines.experiments.judging import look
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.experiments.factory import CHALLENGER, CHAMPION
from spotlab_pipelines_tests.experiments.factory import register as register_in_postgres
from spotlab_pipelines_tests.experiments.labelled_log import write_days
from spotlab_pipelines_tests.inference.models import logistic, register


def facts(out: str) -> dict[str, str]:
    """What stands above the first table, by name."""
    return {line[:16].strip(): line[16:] for line in out.partition("On record:")[0].splitlines()}


def test_a_version_is_shown_with_its_way_its_files_its_fit_and_its_pages(
    settings: Settings, engine: sa.Engine, mlflow_database: str, spotlab: Spotlab
) -> None:
    registry = ModelRegistry(engine, settings)
    params = {"C_1h": 0.1, "C_6h": 1.0, "calibration_6h": "platt", "features_1h": "a b", "features_6h": "a b", "who": 7}
    row = register(registry, "logistic", logistic(), params=params, metrics={"auc_6h": 0.7, "brier_skill_6h": 0.25})
    registry.approve(row.version, role="challenger")
    shown = spotlab("models", "show", row.version)
    assert (shown.code, shown.err) == (0, "")
    told = facts(shown.out)
    assert (told["status"], told["registered by"]) == ("approved, challenger", "a test")
    assert (told["feature spec"], told["sha256"]) == ("v1, at 1, 6, 12 h", row.artifact_sha256)
    assert told["files"] == f"{row.artifact_uri}; they are the registered ones"
    assert (told["learned from"], told["fingerprint"]) == ("not known", "none")
    assert (told["scorecard"], told["verdict"]) == ("no prediction in the last 30 days", "none on record yet")
    assert "problem" not in told
    experiment = mlflow_client(settings).get_run(row.mlflow_run_id).info.experiment_id
    for name, page in {
        "version": "models/logistic/versions/1",
        "fit": f"experiments/{experiment}/runs/{row.mlflow_run_id}",
        "model": f"experiments/{experiment}/models/{row.mlflow_model_id}",
    }.items():
        assert told[f"MLflow {name}"].startswith(f"{settings.mlflow_ui}/#/{page}?")
    assert shown.out.index("register_model") < shown.out.index("approve_model")
    [fit] = [line.split() for line in shown.out.splitlines() if "out of fold" in line]
    assert (fit[1], "0.7" in fit, "0.25" in fit) == ("6", True, True)
    chosen = {line.split()[1]: line.split("│")[2:5] for line in shown.out.splitlines() if line.startswith("│ C ")}
    assert [cell.strip() for cell in chosen["C"]] == ["0.1", "1.0", ""]
    assert "It reads at 1h, 6h: a b" in shown.out
    assert "who = 7" in shown.out

    found = spotlab("models", "show", row.version, "--json").json
    assert (found["version"], found["intact"], found["problem"]) == ("logistic/1", True, None)
    assert [act["action"] for act in found["acts"]] == ["register_model", "approve_model"]
    assert found["params"]["calibration_6h"] == "platt"
    assert found["pages"]["fit"] == told["MLflow fit"]
    assert (found["scorecard"], found["verdict"]) == (None, None)

    (registry.artifact_folder(row) / "more").write_text("anything")
    assert "NOT the registered ones" in facts(spotlab("models", "show", row.version).out)["files"]
    registry.retire(row.version)
    assert facts(spotlab("models", "show", row.version).out)["status"] == "retired"
    unknown = spotlab("models", "show", "none/1")
    assert (unknown.code, "no 'none/1'" in unknown.err) == (1, True)


def test_what_a_version_was_worth_and_its_verdict_are_told_in_a_sentence_each_even_without_mlflow(
    spotlab: Spotlab, owner: sa.Engine, engine: sa.Engine
) -> None:
    register_in_postgres(owner)
    write_days(owner, 3, first=datetime.now(UTC).date() - timedelta(days=4))
    judged = look(engine, CHAMPION, CHALLENGER, now=datetime.now(UTC))
    shown = spotlab("models", "show", CHALLENGER)
    assert shown.code == 0, shown.err
    told = facts(shown.out)
    assert told["scorecard"].startswith("at 6 h: 180 predictions with an outcome, ")
    assert told["verdict"] == (
        f"of {judged.day}, against {CHAMPION}: insufficient data, on 180 live predictions with an outcome. {judged.why}"
    )
    assert "the audit log has no register_model and no approve_model of it" in told["problem"]
    assert "NOT the registered ones" in told["files"]
    assert "Nothing: nobody who may has registered it." in shown.out
    assert "No figures are known." in shown.out
    assert "note: what MLflow shows is not known: " in shown.err
    assert facts(spotlab("models", "show", CHAMPION).out)["verdict"] == "none, as it is the champion"
    found = spotlab("models", "show", CHALLENGER, "--json").json
    assert (found["scorecard"]["n"], found["verdict"]["predictions"]) == (180, 180)
    assert found["scorecard"]["bins"]
    assert found["lost"]


def test_predictions_without_an_outcome_are_said_to_have_none_yet(spotlab: Spotlab, owner: sa.Engine) -> None:
    register_in_postgres(owner)
    write_days(owner, 3, first=datetime.now(UTC).date() - timedelta(days=4))
    with owner.begin() as connection:
        connection.execute(sa.text("delete from interruption_outcomes"))
    told = facts(spotlab("models", "show", CHALLENGER).out)["scorecard"]
    assert told.startswith("at 6 h: 180 predictions, none with an outcome yet, windows ")
