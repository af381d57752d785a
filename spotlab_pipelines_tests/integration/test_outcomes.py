"""What became of the instances of an evaluation is learnt by a run of its own, every hour, account by account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from spotlab_pipelines.definitions import defs
from spotlab_pipelines.defs.jobs import interruption_outcomes_hourly
from spotlab_pipelines.defs.run import scrape_shared_market
from spotlab_pipelines_tests.integration.conftest import Laboratory

LABELS = (
    "select distinct instance_id, horizon_h, outcome, source from v_labelled_predictions where account_id = :a"
    " order by instance_id, horizon_h"
)


@pytest.fixture
def scraped(laboratory: Laboratory) -> Laboratory:
    """The laboratory with a fresh shared market."""
    assert all(outcome.success for outcome in scrape_shared_market(laboratory.instance, defs))
    return laboratory


def tick(laboratory: Laboratory) -> dg.ScheduleExecutionData:
    context = dg.build_schedule_context(
        instance=laboratory.instance,
        scheduled_execution_time=datetime.now(UTC),
        repository_def=defs.get_repository_def(),
        resources={"database": laboratory.engine, "settings": laboratory.settings},
    )
    return interruption_outcomes_hourly.evaluate_tick(context)


def test_an_interruption_is_learnt_once_and_a_denied_account_does_not_keep_the_others(scraped: Laboratory) -> None:
    first, denied = (account.account_id for account in scraped.accounts[:2])
    assert tick(scraped).skip_message, "nothing is logged yet"
    assert scraped.run("evaluation", first, denied).success
    assert {request.partition_key for request in tick(scraped).run_requests or []} == {first, denied}
    taken, region = scraped.rows(
        "select instance_id, region from instances where account_id = :a and lifecycle = 'spot' and state = 'running' "
        "order by instance_id limit 1", a=first,
    )[0]  # fmt: skip
    scraped.aws.interrupt(first, region, taken)
    # Whoever carries a decision out ends the instance as its owner.
    moved, its_region = scraped.rows(
        "select instance_id, l.region from experiment_logs l join instances i using (account_id, instance_id) "
        "where account_id = :a and lifecycle = 'spot' and acting and not l.shadow and instance_id <> :taken "
        "and decision in ('SWITCH', 'FALLBACK_ON_DEMAND') order by instance_id limit 1", a=first, taken=taken,
    )[0]  # fmt: skip
    scraped.aws.interrupt(first, its_region, moved, status_code="instance-terminated-by-user")
    scraped.aws.set_denies(denied, "assume")
    result = scraped.run("outcomes", first, denied)
    assert not result.success
    labels = scraped.rows(LABELS, a=first)
    assert {row[1:] for row in labels if row[0] == taken} == {(h, "interrupted", "spot_request") for h in (1, 6, 12)}
    assert {row[1:] for row in labels if row[0] == moved} == {(h, "censored", "spot_request") for h in (1, 6, 12)}
    ended_by = "select distinct ended_by from interruption_outcomes where account_id = :a and instance_id = :i"
    assert scraped.rows(ended_by, a=first, i=moved) == [("switch",)]
    others = {row[2:] for row in labels if row[0] not in (taken, moved)}
    assert others == {("censored", "fleet")}, "they run still, and an hour has not passed"
    assert {row[2:] for row in scraped.rows(LABELS, a=denied)} == {("censored", None)}, "nobody looked"
    assert scraped.rows("select state from evaluations where account_id = :a", a=denied) == [("logged",)]
    scraped.aws.set_denies(denied, None)
    again = scraped.run("outcomes", first)
    assert again.success
    assert scraped.rows(LABELS, a=first) == labels
    [event] = again.asset_materializations_for_node("interruption_outcomes")
    shown: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert (shown["interrupted"], shown["sources"]["spot_request"]) == (1, 2)
    assert shown["interruptions_new"] == {"spot_request": 0, "state_reason": 0}
    query = "select count(*) from interruption_events where account_id = :a and instance_id = :i"
    assert scraped.rows(query, a=first, i=taken) == [(1,)]
