"""Postgres goes away in the middle of `spotlab evaluate`: one line, and the next evaluation clears up after it."""

from __future__ import annotations

import dagster_postgres.utils
import pytest
import sqlalchemy as sa

from spotlab_pipelines.cli import experiments
from spotlab_pipelines.defs.run import open_instance
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.terminal import progress
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.cli.test_with_aws import ONE, add
from spotlab_pipelines_tests.local_aws.server import LocalAws


def let_in(server: sa.Engine, settings: Settings, *, whether: bool) -> None:
    """Let nobody into the test's databases any more, as if their Postgres were gone; or let them in again."""
    names = (str(settings.database_url.get_secret_value()).rpartition("/")[2], settings.dagster_database)  # type: ignore[union-attr]
    with server.connect() as connection:
        for name in names:
            connection.execute(sa.text(f"alter database {name} allow_connections {whether}"))
            if not whether:
                end = sa.text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name")
                connection.execute(end, {"name": name})


def test_a_postgres_that_dies_in_mid_run_is_one_line_and_3(
    spotlab: Spotlab,
    settings: Settings,
    server: sa.Engine,
    engine: sa.Engine,
    local_aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local_aws.add_account(ONE, external_id=add(spotlab, ONE)["external_id"])

    def dying(step: str, state: str) -> None:
        progress(step, state)
        if (step, state) == ("fleet_instances", "done"):
            let_in(server, settings, whether=False)

    # Dagster tries again as often as ever; how long it waits in between is no promise of ours.
    monkeypatch.setattr(dagster_postgres.utils, "calculate_delay", lambda **_: 0.01)
    with monkeypatch.context() as once:
        once.setattr(experiments, "progress", dying)
        answer = spotlab("evaluate", ONE, "--no-scrape")
    let_in(server, settings, whether=True)
    lines = answer.err.splitlines()
    assert lines[:2] == ["fleet_instances: started", "fleet_instances: done"]
    # What Dagster could not write down before it gave up, it says itself.
    (line,) = [line for line in lines[2:] if not line.startswith(("spot_prices: ", "Exception while writing logger"))]
    assert line.startswith("spotlab: Postgres does not answer: ")
    assert answer.code == 3

    with open_instance() as instance:
        (left,) = instance.get_runs()
        assert left.status.value == "STARTED"
    finding = {each["check"]: each for each in spotlab("doctor", "--json").json}["evaluations"]
    assert finding["state"] == "WARN"
    assert left.run_id in finding["found"]

    assert spotlab("evaluate", ONE, "--no-scrape").code == 3, "the market was not scraped"
    with open_instance() as instance:
        run = instance.get_run_by_id(left.run_id)
        assert run is not None
        assert run.status.value == "FAILURE"
    evaluations = {each["run_id"]: each for each in spotlab("experiments", "list", "--json").json}
    assert evaluations[left.run_id]["state"] == "failed"
    assert evaluations[left.run_id]["failed_at_step"] == "spot_prices"
    assert "its process has ended" in evaluations[left.run_id]["error"]
