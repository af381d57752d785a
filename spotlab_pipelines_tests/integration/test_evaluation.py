"""The main job, end to end: from AWS to the experiment log, once, through Dagster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from spotlab_pipelines.definitions import defs
from spotlab_pipelines.defs.evaluation import WINDOW_TAG
from spotlab_pipelines.defs.run import evaluate_account, scrape_shared_market
from spotlab_pipelines.experiments.queries import latest_decisions
from spotlab_pipelines.features.specs import SPECS
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines_tests.inference.models import register_of_spec
from spotlab_pipelines_tests.integration.conftest import Laboratory

WINDOW = "2026-01-31T12:00:00+00:00"


@pytest.fixture
def scraped(laboratory: Laboratory) -> Laboratory:
    """The laboratory with a fresh shared market."""
    assert all(outcome.success for outcome in scrape_shared_market(laboratory.instance, defs))
    return laboratory


def test_every_account_is_evaluated_and_logged_at_the_plans_grain(scraped: Laboratory) -> None:
    decided = []
    for account in scraped.accounts:
        steps: list[tuple[str, str]] = []
        outcome = evaluate_account(
            scraped.instance, defs, account.account_id, progress=lambda *step, steps=steps: steps.append(step)
        )
        assert outcome.success, outcome.error
        assert steps[0] == ("fleet_instances", "started")
        assert steps[-1] == ("experiment_log", "done")
        decisions = latest_decisions(scraped.engine, account.account_id, outcome.window_start)
        decided.append(decisions.assign(environment=account.environment))

        [(instances,)] = scraped.rows(
            "select count(*) from instances where account_id = :a and state = 'running'", a=account.account_id
        )
        [(rows,)] = scraped.rows("select count(*) from experiment_logs where account_id = :a", a=account.account_id)
        assert rows == instances * 2 * 3, "one row per instance, version and horizon"

    import pandas as pd

    decisions = pd.concat(decided)
    assert {"STAY", "SWITCH", "FALLBACK_ON_DEMAND"} <= set(decisions["decision"])
    switches = decisions[decisions["decision"] == "SWITCH"]
    assert (switches["to_cost_usd_per_hour"] < switches["from_cost_usd_per_hour"]).all()
    assert decisions.loc[decisions["environment"] == "PROD", "shadow"].all(), "PROD is never acted on"
    assert decisions.loc[~decisions["acting"], "shadow"].all(), "a challenger is never acted on"
    by_version = decisions.groupby("model_version")["p_current_6h"].mean()
    assert by_version["logistic/1"] != pytest.approx(by_version["advisor-rate/1"], rel=0.5), "the models differ"
    horizons = decisions.dropna(subset=["p_current_1h"])
    assert (horizons["p_current_1h"] <= horizons["p_current_6h"]).all()
    assert (horizons["p_current_6h"] <= horizons["p_current_12h"]).all()
    assert len(scraped.rows("select * from tracking_runs")) == 8, "one MLflow run per account and version"
    check = dg.AssetCheckKey(dg.AssetKey("interruption_predictions"), "feature_drift")
    [found] = scraped.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    assert found.event is not None, "what versions see was compared with what they were fitted on"
    pools = set(decisions.loc[decisions["decision"] != "SKIP", "from_pool"])
    kept = {}
    for (details,) in scraped.rows("select details from evaluations"):
        kept |= details["on_demand_usd_per_hour"]
        assert (details["drift"]["advisor-rate/1"], len(details["drift"]["logistic/1"])) == (None, 4)
    assert pools <= set(kept), "regret needs the on-demand price of every pool that was decided on"


def test_a_doubled_evaluation_writes_once(scraped: Laboratory) -> None:
    account = scraped.accounts[0].account_id
    now = datetime.now(UTC).isoformat()
    assert scraped.run("evaluation", account, window=now).success
    before = scraped.rows("select id, created_at from experiment_logs order by id")
    tables = _tables(scraped)
    assert any("predictions" in str(path) for path in tables)
    assert all(outcome.success for outcome in scrape_shared_market(scraped.instance, defs))
    assert scraped.run("evaluation", account, window=now).success
    assert scraped.rows("select id, created_at from experiment_logs order by id") == before
    assert _tables(scraped) == tables, "the tables that the log was written from stay as they were"
    assert scraped.rows("select state, step from evaluations") == [("logged", 1)]


def test_a_version_that_needs_no_prices_is_scored_beside_the_champion(scraped: Laboratory) -> None:
    history = register_of_spec(ModelRegistry(scraped.engine, scraped.settings), "v2-history")
    account = scraped.accounts[0].account_id
    result = scraped.run("evaluation", account)
    assert result.success, _failure(result)
    rows = scraped.rows("select distinct model_version, features from experiment_logs where features is not null")
    saw = {version: set(features) for version, features in rows}
    assert saw["advisor-rate/1"] == set(SPECS["v1"].names)
    assert saw[history] == set(SPECS["v2-history"].names)
    assert {features["history_missing"] for version, features in rows if version == history} == {0.0}, "they run there"
    [(logged,)] = scraped.rows("select count(*) from experiment_logs where model_version = :v", v=history)
    [(instances,)] = scraped.rows(
        "select count(*) from instances where account_id = :a and state = 'running'", a=account
    )
    assert logged == 3 * instances
    query = "select id, instance_id from interruption_events where account_id = :a"
    events = set(scraped.rows(query, a=account))
    assert events, "an account of the demo has past interruptions"
    assert scraped.run("evaluation", account, window=WINDOW).success
    # Others may have come meanwhile: the recording goes on.
    again = scraped.rows(query, a=account)
    assert events <= set(again)
    assert len({instance_id for _, instance_id in again}) == len(again)


def test_a_run_without_a_tag_fixes_its_window_once(scraped: Laboratory) -> None:
    result = scraped.run("evaluation", scraped.accounts[0].account_id)
    run = scraped.instance.get_run_by_id(result.run_id)
    assert run is not None
    [(window,)] = scraped.rows("select window_start from evaluations")
    assert datetime.fromisoformat(run.tags[WINDOW_TAG]) == window
    record = scraped.instance.get_run_record_by_id(result.run_id)
    assert record is not None
    assert record.create_timestamp == window


def test_a_malformed_window_tag_is_refused_by_name(scraped: Laboratory) -> None:
    result = scraped.run("evaluation", scraped.accounts[0].account_id, window="yesterday")
    assert not result.success
    assert WINDOW_TAG in _failure(result)
    assert scraped.rows("select * from evaluations") == []


def test_an_account_that_denies_us_fails_by_name_and_the_others_go_on(scraped: Laboratory) -> None:
    accounts = [account.account_id for account in scraped.accounts]
    denied, others = accounts[1], {accounts[0], *accounts[2:]}
    scraped.aws.set_denies(denied, "assume")
    result = scraped.run("evaluation", *accounts)
    assert not result.success
    assert _failed_steps(result) == ["experiment_log"], "the others' steps all ran"
    assert denied in _failure(result)
    assert "AccessDenied" in _failure(result)
    states = dict(scraped.rows("select account_id, state from evaluations"))
    assert states == {denied: "failed"} | dict.fromkeys(others, "logged")
    [(step, error)] = scraped.rows("select failed_at_step, error from evaluations where state = 'failed'")
    assert step == "fleet_instances"
    assert "AccessDenied" in error
    logged = {account for (account,) in scraped.rows("select distinct account_id from experiment_logs")}
    assert logged == others
    materialised = scraped.instance.get_materialized_partitions(dg.AssetKey("experiment_log"))
    assert materialised == others
    external_ids = [account.external_id.get_secret_value() for account in scraped.accounts]
    assert not any(secret in _everything_logged(scraped, result.run_id) for secret in external_ids)


def test_a_failed_step_is_retried_where_it_failed(scraped: Laboratory) -> None:
    account = scraped.accounts[0].account_id
    window = datetime.now(UTC).isoformat()
    scraped.aws.set_denies(account, "actions")
    assert not scraped.run("evaluation", account, window=window).success
    assert scraped.rows("select state, failed_at_step from evaluations") == [("failed", "fleet_instances")]
    scraped.aws.set_denies(account, None)
    assert scraped.run("evaluation", account, window=window).success
    assert scraped.rows("select state, failed_at_step, error from evaluations") == [("logged", None, None)]


def test_a_passing_fault_of_one_account_among_several_is_tried_again(scraped: Laboratory) -> None:
    accounts = [account.account_id for account in scraped.accounts]
    scraped.aws.add_fault("DescribeInstances", account_id=accounts[1], times=4, code="RequestLimitExceeded", status=503)
    result = scraped.run("evaluation", *accounts)
    assert result.success, _failure(result)
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == ["fleet_instances"]
    assert dict(scraped.rows("select account_id, state from evaluations")) == dict.fromkeys(accounts, "logged")


def test_an_empty_cache_is_a_named_error_and_nothing_is_logged(laboratory: Laboratory) -> None:
    result = laboratory.run("evaluation", laboratory.accounts[0].account_id)
    assert not result.success
    assert _failed_steps(result) == ["spot_prices"]
    assert "MarketDataMissing" in _failure(result)
    assert "instance_catalogue" in _failure(result), "the error says what to do"
    assert laboratory.rows("select * from experiment_logs") == []


def _tables(laboratory: Laboratory) -> dict[Path, int]:
    """The evaluations' tables in the archive, with the time of their last change."""
    folder = Path(laboratory.settings.archive_location) / "evaluations"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def _failed_steps(result: dg.ExecuteInProcessResult) -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.is_step_failure]


def _failure(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return "\n".join(error.to_string() for error in failures if error is not None)


def _everything_logged(laboratory: Laboratory, run_id: str) -> str:
    return "\n".join(str(record.event_log_entry) for record in laboratory.instance.get_records_for_run(run_id).records)
