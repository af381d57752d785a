"""What a person does in the Dagster UI, through its GraphQL: plain `dagster dev`, "Materialize all" on an account."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT
from spotlab_pipelines_tests.demo.servers import Servers
from spotlab_pipelines_tests.integration.conftest import Laboratory

REPOSITORY = {"repositoryLocationName": "spotlab_pipelines", "repositoryName": "__repository__"}
ASSETS = """{ assetNodes { assetKey { path } } }"""
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


class Ui:
    """The GraphQL endpoint of a running `dagster dev`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait(self, query: str, path: str, done: set[str], **variables: Any) -> str:
        """Ask until the status is one of `done`."""
        status, deadline = "UNKNOWN", time.monotonic() + 120
        while time.monotonic() < deadline:
            status = self.ask(query, **variables)[path]["status"]
            if status in done:
                return status
            time.sleep(0.5)
        pytest.fail(f"still {status} after two minutes")


@pytest.fixture
def ui(laboratory: Laboratory, tmp_path: Path) -> Iterator[Ui]:
    """`dagster dev` as a person starts it in the checkout: without DAGSTER_HOME, tags or config."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    servers = Servers(tmp_path / "logs")
    dagster = str(Path(sys.executable).with_name("dagster"))
    try:
        command = [dagster, "dev", "--host", "127.0.0.1", "--port", str(port)]
        servers.start("dagster", command, url=f"http://127.0.0.1:{port}/server_info")
        yield Ui(f"http://127.0.0.1:{port}")
    finally:
        servers.stop()


def untracked() -> str:
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(status, cwd=PROJECT_ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.timeout(400)
def test_materialize_all_on_an_account_succeeds_and_leaves_the_root_clean(laboratory: Laboratory, ui: Ui) -> None:
    before = untracked()
    keys = [node["assetKey"] for node in ui.ask(ASSETS)["assetNodes"]]
    assert len(keys) == 8
    account, other = laboratory.accounts[0].account_id, laboratory.accounts[1].account_id
    selector = {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": keys, "assetCheckSelection": []}
    params = {
        "mode": "default",
        "runConfigData": {},
        "selector": selector,
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": account}]},
    }
    launched = ui.ask(LAUNCH_RUN, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    ended = ui.wait(RUN, "runOrError", {"SUCCESS", "FAILURE", "CANCELED"}, id=launched["run"]["runId"])
    assert ended == "SUCCESS"

    params = {"assetSelection": keys, "partitionNames": [account, other], "fromFailure": False, "tags": []}
    launched = ui.ask(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    done = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"}
    ended = ui.wait(BACKFILL, "partitionBackfillOrError", done, id=launched["backfillId"])
    assert ended == "COMPLETED_SUCCESS"

    states = laboratory.rows(
        "select account_id, count(*) from evaluations where state = 'logged' group by 1 order by 1"
    )
    logged = dict(states)
    assert logged[account] >= 2
    assert logged[other] >= 1
    assert untracked() == before
