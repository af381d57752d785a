"""What somebody does in MLflow by hand is reported in the UI, by the doctor and in the list, and changes nothing."""

from __future__ import annotations

from typing import Any, cast

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.registry import AGREES, ASSET, mlflow_agrees, mlflow_differences_reported
from spotlab_pipelines.doctor import work
from spotlab_pipelines.doctor.findings import look
from spotlab_pipelines.inference.mlflow_differences import Shown, differences
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.inference.models import logistic, register, register_both

__all__ = ["spotlab", "use"]


def test_whatever_is_moved_in_mlflow_by_hand_is_reported_and_ignored(
    settings: Settings, engine: sa.Engine, mlflow_database: str, spotlab: Spotlab
) -> None:
    registry, client = ModelRegistry(engine, settings), mlflow_client(settings)
    cursor: str | None = None

    def tick() -> Any:
        nonlocal cursor
        with dg.build_sensor_context(cursor=cursor) as context:
            answer: Any = mlflow_differences_reported(context, settings=settings, model_registry=registry)
        cursor = getattr(answer, "cursor", cursor)
        return answer

    champion, challenger = register_both(registry)
    (first,) = tick().asset_events
    assert (first.passed, first.asset_key, first.check_name) == (True, dg.AssetKey(ASSET), AGREES)
    assert isinstance(tick(), dg.SkipReason), "nothing has changed"
    assert look("models", lambda: work.models(settings)).state == "OK"
    assert spotlab("models", "list").err == ""

    serving = registry.serving()
    client.set_registered_model_alias("logistic", "champion", "1")
    client.set_model_version_tag("logistic", "1", "spotlab.role", "champion")
    client.delete_registered_model_alias("advisor-rate", "champion")
    client.delete_model_version("advisor-rate", "1")
    client.create_registered_model("smuggled")
    client.create_model_version("smuggled", source="file:///nowhere")
    expected = [
        "advisor-rate/1 is deleted in MLflow; here it is approved, role champion.",
        "logistic/1 is tagged spotlab.role = champion in MLflow; here its role is challenger.",
        "smuggled/1 is in MLflow alone; it is not served.",
        (
            "MLflow's alias champion of advisor-rate points to no version of advisor-rate;"
            " here the champion is advisor-rate/1."
        ),
        "MLflow's alias champion of logistic points to logistic/1; here the champion is no version of logistic.",
    ]
    answer = tick()
    (told,) = answer.asset_events
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.metadata["differences"].value == expected
    assert answer.skip_reason.skip_message == " ".join(expected)
    check = cast("dg.AssetCheckResult", mlflow_agrees(settings=settings, model_registry=registry))
    assert (check.passed, check.metadata["differences"].value) == (False, expected)
    found = look("models", lambda: work.models(settings))
    assert (found.state, found.found) == ("WARN", " ".join(expected))
    listed = spotlab("models", "list")
    assert listed.code == 0
    assert listed.err.splitlines() == [f"note: {each}" for each in expected]

    assert registry.serving() == serving
    assert registry.load_model(champion).version == champion
    # A version that MLflow has lost can still be promoted over, and retired.
    registry.promote(challenger, override="a test")
    registry.retire(champion)
    assert [each for each in tick().asset_events[0].metadata["differences"].value if "smuggled" not in each] == []


def test_the_list_tells_whose_files_are_not_the_registered_ones(
    settings: Settings, engine: sa.Engine, mlflow_database: str, spotlab: Spotlab
) -> None:
    registry = ModelRegistry(engine, settings)
    _, challenger = register_both(registry)
    (registry.artifact_folder(registry.get(challenger)) / "more").write_text("anything")
    answer = spotlab("models", "list")
    assert (answer.code, answer.err.count("note:")) == (0, 1)
    assert f"The files of {challenger} are not the registered ones" in answer.err


def test_a_candidate_and_what_is_retired_and_tidied_up_agree(
    settings: Settings, engine: sa.Engine, mlflow_database: str
) -> None:
    registry, client = ModelRegistry(engine, settings), mlflow_client(settings)
    register(registry, "logistic", logistic())
    retired = register(registry, "logistic", logistic(1)).version
    registry.approve(retired)
    registry.retire(retired)
    client.delete_model_version("logistic", "2")
    rows = registry.versions()
    assert differences(rows, Shown({("logistic", 1): "none"}, {})) == []
    with dg.build_sensor_context() as context:
        answer: Any = mlflow_differences_reported(context, settings=settings, model_registry=registry)
    assert answer.asset_events[0].passed


def test_the_sensor_is_quick(settings: Settings, engine: sa.Engine, mlflow_database: str) -> None:
    import time

    registry = ModelRegistry(engine, settings)
    register_both(registry)
    started = time.perf_counter()
    with dg.build_sensor_context() as context:
        mlflow_differences_reported(context, settings=settings, model_registry=registry)
    assert time.perf_counter() - started < 2
