"""`make demo` and `make dev` as people run them: programs of their own, on a scratch data directory and free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from spotlab_pipelines.errors import SourceMalformed
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.local import down, status, up
from spotlab_pipelines.local.processes import gone, wait_until
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.conftest import new_directory
from spotlab_pipelines_tests.demo import stage
from spotlab_pipelines_tests.demo.__main__ import evaluate_everything
from spotlab_pipelines_tests.integration.conftest import Laboratory, checkout
from spotlab_pipelines_tests.integration.ui import Ui

STORES = ("Postgres", "Redis", "Archive", "MLflow")
DECISIONS = ("STAY", "SWITCH", "FALLBACK_ON_DEMAND")


@dataclass(frozen=True)
class Demo:
    """A scratch place for demos."""

    directory: Path

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.directory / "data")

    @property
    def environment(self) -> dict[str, str]:
        ours = {"SPOTLAB_DATA_DIR": str(self.directory / "data"), "SPOTLAB_MLRUNS_DIR": str(self.directory / "mlruns")}
        # What a user's environment may hold: none of it may lead the demo elsewhere.
        theirs = {"AWS_PROFILE": "nobody-wrote-it", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"}
        return {**os.environ, **theirs, **ours}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "spotlab_pipelines_tests.demo", *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Every live process that was given this data directory; the stores themselves get no environment."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            ours = process.environ().get("SPOTLAB_DATA_DIR") == str(self.directory / "data")
            return ours and not gone(process)
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    place = Demo(new_directory())
    yield place
    # A demo that ran out of time was killed, and could not end what it had started.
    for process in place.processes():
        process.kill()
    down(place.settings)
    shutil.rmtree(place.directory, ignore_errors=True)


def free_ports() -> dict[str, str]:
    names = ("SPOTLAB_DAGSTER_PORT", "SPOTLAB_MLFLOW_PORT")
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: str(one.getsockname()[1]) for name, one in zip(names, held, strict=True)}
    for one in held:
        one.close()
    return ports


def line_of(store: str, output: str) -> str:
    _, _, below = output.partition("What the stores hold now")
    return next(line for line in below.splitlines() if line.split()[:1] == [store])


def check_shown(output: str) -> None:
    for column in ("from pool", "→ to pool", "interrupted within", "in %", "USD/h", "version", "reason"):
        assert column in output
    for decision in DECISIONS:
        assert decision in output
    assert "PROD, owned by" in output
    for role in ("champion, decides", "challenger, shadow", "only logged"):
        assert role in output
    for store in STORES:
        assert line_of(store, output)
    check_access(output)
    _, _, worth = output.partition("What the predictions within 6 h were worth")
    for shown in ("Brier skill [95 %]", "advisor-rate/1", "logistic/1 against advisor-rate/1, a single look:"):
        assert shown in worth
    for version in ("advisor-rate/1", "logistic/1"):
        (row,) = [line for line in worth.splitlines() if line.startswith(f"│ {version}")]
        predictions, known, events = (int(cell) for cell in row.split("│")[2:5])
        assert predictions > known > events > 0, "past windows are judged by what became of their instances"


def check_access(output: str) -> None:
    """The last thing shown: a line per account, and the lax role is refused."""
    _, _, below = output.partition("Access to the accounts")
    verdicts = {line.split()[0]: line.split()[2] for line in below.splitlines()[1:6]}
    assert verdicts == dict.fromkeys(stage.NAMES, "ok") | {stage.LEGACY_ID: "lax"}
    (lax,) = [line for line in below.splitlines() if stage.LEGACY_ID in line]
    assert "refused, not evaluated" in lax
    assert "without an external id" in lax
    assert f"evaluation of {stage.LEGACY_ID}" not in output


def check_second(output: str) -> None:
    """A second evaluation of each account, and not a second copy of anything."""
    check_shown(output)
    added = line_of("Postgres", output)
    for said in ("5 accounts", "3 users", "128 (+4) evaluations", "2 model_registry"):
        assert f" {said}" in added
    assert "2 models, 2 versions" in line_of("MLflow", output)


@pytest.fixture(scope="module")
def first(demo: Demo) -> str:
    """What the first demo in this place printed."""
    answer = demo.run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.timeout(900)
def test_a_demo_shows_everything_and_leaves_nothing_running(demo: Demo, first: str) -> None:
    check_shown(first)
    added = line_of("Postgres", first)
    for said in ("5 (+5) accounts", "3 (+3) users", "124 (+124) evaluations", "2 (+2) model_registry"):
        assert said in added
    assert "120 windows of 4 accounts since" in first
    assert [store.state for store in status(demo.settings)] == ["stopped", "stopped"]
    assert demo.processes() == []


def check_lines(demo: Demo) -> None:
    """The run of each (account, version) in MLflow is a line: a point for each past window, and one for now."""
    settings = Settings(data_dir=demo.directory / "data", mlruns_dir=demo.directory / "mlruns")
    client = mlflow_client(settings)
    [experiment] = [each for each in client.search_experiments() if each.name == "evaluations"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "instances/decided")
        assert [point.step for point in points][:31] == list(range(1, 32))
        times = [point.timestamp for point in points]
        assert times == sorted(set(times))


def check_assets(ui: Ui) -> None:
    """Dagster shows every asset as made by the demo, but for what is made weekly or daily."""
    nodes = ui.ask("{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }")["assetNodes"]
    never = {node["assetKey"]["path"][-1] for node in nodes if not node["assetMaterializations"]}
    assert never == {"training_examples", "interruption_model", "log_partitions", "archive_compaction"}


@pytest.mark.timeout(900)
def test_a_second_one_adds_an_evaluation_and_ctrl_c_ends_what_it_started_and_nothing_else(
    demo: Demo, first: str
) -> None:
    foreign, before = subprocess.Popen(["sleep", "600"]), checkout()
    stores = up(demo.settings)
    running = {store.name: store.pid for store in status(demo.settings)}
    assert stores.started == ("postgres", "redis")
    ports = free_ports()
    log = demo.directory / "dev.log"
    with log.open("w") as output:
        runner = subprocess.Popen(
            demo.command("--keep-up"),
            env={**demo.environment, **ports},
            cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        up_or_over = wait_until(lambda: "Ctrl-C ends" in log.read_text() or runner.poll() is not None, 600)
        assert up_or_over, log.read_text()
        assert runner.poll() is None, log.read_text()
        check_second(log.read_text())
        check_lines(demo)
        check_assets(Ui(f"http://127.0.0.1:{ports['SPOTLAB_DAGSTER_PORT']}"))
        for port in ports.values():
            assert f"http://127.0.0.1:{port}" in log.read_text()
        begun = psutil.Process(runner.pid).children(recursive=True)
        assert len(begun) >= 4, "the local AWS, Dagster's webserver and daemon, MLflow"
        runner.send_signal(signal.SIGINT)
        time.sleep(0.3)
        runner.send_signal(signal.SIGINT)
        assert runner.wait(60) == 130
        assert wait_until(lambda: all(map(gone, begun)), 5), [process for process in begun if not gone(process)]
        assert demo.processes() == []
        assert foreign.poll() is None
        assert {store.name: store.pid for store in status(demo.settings)} == running
        # Another test's `dagster dev` may have its own home there meanwhile.
        littered = {name for name in checkout() - before if ".tmp_dagster_home_" not in name}
        assert littered == set(), "the repository root stays clean"
    finally:
        foreign.kill()
        foreign.wait()
        runner.kill()
        runner.wait()
        for process in demo.processes():
            process.kill()


def test_a_taken_port_is_one_line(demo: Demo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = str(squatter.getsockname()[1])
        answer = demo.run("--keep-up", **(free_ports() | {"SPOTLAB_MLFLOW_PORT": port}))
    assert answer.returncode == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert port in line
    assert "SPOTLAB_MLFLOW_PORT" in line


@pytest.mark.parametrize("variable", ["SPOTLAB_DATA_DIR", "SPOTLAB_MLRUNS_DIR"])
def test_a_place_that_cannot_be_written_is_one_line(demo: Demo, variable: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = demo.run(**{variable: str(tmp_path / "file" / "below")})
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert str(tmp_path / "file") in line
    assert variable in line


@pytest.fixture
def evaluate(
    laboratory: Laboratory, market_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[bool, str]]:
    """Evaluate the laboratory's accounts as the demo does; returns success and what was shown."""
    screen = Console(width=172, record=True, force_terminal=False)

    def run() -> tuple[bool, str]:
        success = evaluate_everything(screen, laboratory.settings, laboratory.aws, market_dir, past_windows=1)
        return success, screen.export_text()

    return run


def test_a_shared_scrape_that_fails_stops_the_demo_with_its_error(
    laboratory: Laboratory, evaluate: Callable[[], tuple[bool, str]]
) -> None:
    laboratory.aws.add_fault("Advisor", status=200, body="<html>Sign in</html>", content_type="text/html")
    with pytest.raises(SourceMalformed, match="spot_advisor failed: SourceMalformed: "):
        evaluate()
    assert laboratory.rows("select 1 from evaluations") == []


def test_an_account_that_fails_is_shown_as_failed_and_the_others_go_on(
    laboratory: Laboratory, evaluate: Callable[[], tuple[bool, str]]
) -> None:
    failing = laboratory.accounts[0].account_id
    laboratory.aws.add_fault(
        "DescribeSpotPriceHistory", times=None, account_id=failing, status=403, code="UnauthorizedOperation"
    )
    success, shown = evaluate()
    assert not success
    (line,) = [line for line in shown.splitlines() if f"evaluation of {failing}" in line]
    assert line.startswith("  ✗ ")
    assert "AccessDenied: " in line
    for account in laboratory.accounts[1:]:
        (line,) = [line for line in shown.splitlines() if f"evaluation of {account.account_id}" in line]
        assert line.startswith("  ✓ ")
    (line,) = [line for line in shown.splitlines() if line.startswith(f"  {failing} ")]
    assert "broken skipped from now on: ec2:DescribeSpotPriceHistory may not be called in" in line


def test_a_recording_without_interruptions_is_evaluated_with_what_there_is(
    laboratory: Laboratory, evaluate: Callable[[], tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = laboratory.aws.app.requests
    quiet = replace(served.recording, interruptions=served.recording.interruptions.head(0))
    monkeypatch.setattr(served, "recording", quiet)
    ModelRegistry(laboratory.engine, laboratory.settings).retire("logistic/1")
    success, shown = evaluate()
    assert success, shown
    (line,) = [line for line in shown.splitlines() if "logistic (none)" in line]
    assert "Not fitted: " in line
    assert "advisor-rate/1 (champion)" in shown
    assert "challenger" not in shown.split("PROD, owned by", 1)[1]
    assert "8 (+8) evaluations" in line_of("Postgres", shown)
