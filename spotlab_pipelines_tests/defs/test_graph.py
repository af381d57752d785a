"""The graph as a snapshot: any change of assets, jobs, schedules or sensors shows in the diff of `graph.json`.

`python -m spotlab_pipelines_tests.defs.test_graph` writes the snapshot anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("graph.json")


def graph() -> dict[str, Any]:
    from spotlab_pipelines.definitions import defs

    assets = {}
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string()):
        assets[spec.key.to_user_string()] = {
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "partitions": None if spec.partitions_def is None else getattr(spec.partitions_def, "name", None),
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "owners": list(spec.owners),
            "description": (spec.description or "").splitlines()[0],
        }
    return {
        "assets": assets,
        "checks": sorted(key.to_user_string() for key in defs.resolve_asset_graph().asset_check_keys),
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in sorted(defs.resolve_all_job_defs(), key=lambda job: job.name)
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: [schedule.cron_schedule, schedule.job_name, schedule.default_status.value]
            for schedule in sorted(defs.get_repository_def().schedule_defs, key=lambda schedule: schedule.name)
        },
        "sensors": {
            sensor.name: [sensor.minimum_interval_seconds, sensor.default_status.value]
            for sensor in sorted(defs.get_repository_def().sensor_defs, key=lambda sensor: sensor.name)
        },
    }


def test_the_graph_is_the_recorded_one() -> None:
    assert graph() == json.loads(SNAPSHOT.read_text()), (
        "The graph has changed. If that was meant, run: python -m spotlab_pipelines_tests.defs.test_graph"
    )


def test_every_asset_has_a_description_an_owner_and_a_kind() -> None:
    for key, asset in graph()["assets"].items():
        assert asset["description"], key
        assert asset["owners"], key
        assert asset["kinds"], key


def test_whatever_the_ui_lists_says_what_it_is_for() -> None:
    from spotlab_pipelines.definitions import defs

    listed = defs.get_repository_def()
    named: dict[str, str | None] = {
        each.name: each.description for each in (*listed.schedule_defs, *listed.sensor_defs)
    }
    named |= {job.name: job.description for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    graph = defs.resolve_asset_graph()
    named |= {
        f"{key.asset_key.to_user_string()}: {key.name}": graph.get_check_spec(key).description
        for key in graph.asset_check_keys
    }
    assert len(named) > 20
    assert [name for name, description in named.items() if not (description or "").endswith((".", "?"))] == []


def test_the_check_of_mlflow_runs_with_the_scorecards() -> None:
    from spotlab_pipelines.definitions import defs

    nodes = {name: {node.name for node in defs.resolve_job_def(name).nodes} for name in ("scorecards", "evaluation")}
    assert any("mlflow_agrees" in node for node in nodes["scorecards"])
    assert not any("mlflow_agrees" in node for node in nodes["evaluation"]), "it is about no account"


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(graph(), indent=2) + "\n")
