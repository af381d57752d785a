"""The training assets through Dagster, on a generated trace: examples, then a candidate of the very same examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from spotlab_pipelines.defs.training import interruption_model, training_examples
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.trace_statement import Told
from spotlab_pipelines.market.traces import import_trace
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.market.trace_examples import STATEMENT, probes_file
from spotlab_pipelines_tests.training.traces import generated_trace


@pytest.fixture
def resources(settings: Settings, engine: sa.Engine, mlflow_database: str, tmp_path: Path) -> dict:
    archive = Archive(settings.archive_location)
    rows = generated_trace(every_min=60, days=12)
    file = probes_file(tmp_path, rows.assign(available=rows["available"].astype(int)))
    statement = replace(STATEMENT, time="observed_at", zone=Told("az_id"), product=Told("product"))
    import_trace(engine, archive, file, "generated", statement)
    return {
        "settings": settings,
        "database": engine,
        "archive": archive,
        "redis": None,
        "account_sessions": None,
        "model_registry": ModelRegistry(engine, settings),
    }


def run(assets: list, resources: dict, instance: dg.DagsterInstance, **config: dict) -> dg.ExecuteInProcessResult:
    ops = {name: {"config": values} for name, values in config.items()}
    return dg.materialize(
        assets,
        resources=resources,
        instance=instance,
        run_config={"ops": ops},
        raise_on_error=False,
        selection=[each for each in assets if each.key.to_user_string() in config],
    )


def test_a_candidate_of_the_newest_examples_is_registered_and_serves_nobody(resources: dict):
    assets = [training_examples, interruption_model]
    asked = {"source": "generated", "until": "2023-03-11T00:00:00+00:00"}
    with dg.DagsterInstance.ephemeral() as instance:
        lacking = run(assets, resources, instance, interruption_model={"family": "time-in-state"})
        assert not lacking.success
        done = run(assets, resources, instance, training_examples=asked, interruption_model={"family": "time-in-state"})
        assert done.success
        said = [
            record.event_log_entry.user_message
            for record in instance.get_records_for_run(done.run_id).records
            if record.event_log_entry.user_message
        ]
        assert any("walking forward" in line for line in said)
        wrong = run(assets, resources, instance, training_examples={"source": "generated", "until": "yesterday"})
        assert not wrong.success
    names = ("training_examples", "interruption_model")
    examples, model = (done.asset_materializations_for_node(name)[0].metadata for name in names)
    (row,) = resources["model_registry"].versions()
    assert (row.version, row.status, row.role) == ("time-in-state/1", "candidate", "none")
    assert row.registered_by == f"run:{done.run_id}"
    assert model["version"].value == "time-in-state/1"
    assert model["data_fingerprint"].value == examples["data_fingerprint"].value
