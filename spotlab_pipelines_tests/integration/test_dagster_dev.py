"""What a person does in the Dagster UI, through its GraphQL: plain `dagster dev`, "Materialize all" on an account."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from spotlab_pipelines.accounts.standing import disable_account
from spotlab_pipelines_tests.demo.servers import Servers
from spotlab_pipelines_tests.integration.conftest import Laboratory, checkout
from spotlab_pipelines_tests.integration.ui import Ui

REPOSITORY = {"repositoryLocationName": "spotlab_pipelines", "repositoryName": "__repository__"}
ASSETS = """{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks {
    name canExecuteIndividually } } } } }"""
LAUNCH_RUN = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } } ... on PipelineNotFoundError { message }
  }
}"""
LAUNCH_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
BACKFILL = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"


@pytest.fixture
def ui(laboratory: Laboratory, tmp_path: Path) -> Iterator[Ui]:
    """`dagster dev` as a person starts it in the checkout: without DAGSTER_HOME, tags or config."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # One account and several are two; what the sensors started on more would only take time.
    for account in laboratory.accounts[2:]:
        disable_account(laboratory.engine, account.account_id)
    servers, before = Servers(tmp_path / "logs"), checkout()
    dagster = str(Path(sys.executable).with_name("dagster"))
    try:
        command = [dagster, "dev", "--host", "127.0.0.1", "--port", str(port)]
        servers.start("dagster", command, url=f"http://127.0.0.1:{port}/server_info")
        yield Ui(f"http://127.0.0.1:{port}")
    finally:
        servers.stop()
    assert checkout() == before, "the repository root stays clean"


def failures(laboratory: Laboratory) -> list[str]:
    """What the runs that failed say of it."""
    failed = laboratory.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    entries = [entry for record in failed for entry in laboratory.instance.all_logs(record.dagster_run.run_id)]
    events = [entry.dagster_event for entry in entries if entry.dagster_event and entry.dagster_event.is_step_failure]
    return [f"{event.job_name} {event.step_key}: {event.step_failure_data.error_display_string}" for event in events]


@pytest.mark.timeout(1200)
def test_materialize_all_succeeds_on_one_account_and_on_several(laboratory: Laboratory, ui: Ui) -> None:
    nodes = ui.ask(ASSETS)["assetNodes"]
    keys = [node["assetKey"] for node in nodes]
    assert len(keys) == 15
    # As the UI does: the checks that run only with their asset are asked for with it.
    checks = [
        {"assetKey": node["assetKey"], "name": check["name"]}
        for node in nodes
        for check in node["assetChecksOrError"].get("checks", [])
        if check["canExecuteIndividually"] == "REQUIRES_MATERIALIZATION"
    ]
    assert sorted(check["name"] for check in checks) == ["feature_drift", "verdicts", "versions_scored"]
    account, other = laboratory.accounts[0].account_id, laboratory.accounts[1].account_id
    selector = {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": keys, "assetCheckSelection": checks}
    params = {
        "mode": "default",
        "runConfigData": {},
        "selector": selector,
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": account}]},
    }
    launched = ui.ask(LAUNCH_RUN, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    ended = ui.wait(RUN, "runOrError", {"SUCCESS", "FAILURE", "CANCELED"}, id=launched["run"]["runId"])
    assert ended == "SUCCESS", "\n".join(failures(laboratory))

    params = {"assetSelection": keys, "partitionNames": [account, other], "fromFailure": False, "tags": []}
    launched = ui.ask(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    done = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"}
    ended = ui.wait(BACKFILL, "partitionBackfillOrError", done, id=launched["backfillId"])
    assert ended == "COMPLETED_SUCCESS", "\n".join(failures(laboratory))

    states = laboratory.rows(
        "select account_id, count(*) from evaluations where state = 'logged' group by 1 order by 1"
    )
    logged = dict(states)
    assert logged[account] >= 2
    assert logged[other] >= 1
    assert failures(laboratory) == [], "what the sensors start on an empty cache succeeds too"
