"""Sensors: accounts become partitions, due evaluations start once, and an unreadable registry is not an empty one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._utils.schedules import cron_string_iterator

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation
from spotlab_pipelines.database.migrate import downgrade
from spotlab_pipelines.defs import resources
from spotlab_pipelines.defs.evaluation import ACCOUNT_TAG, WINDOW_TAG, parse_window
from spotlab_pipelines.defs.jobs import advisor_schedule, catalogue_schedule, due_evaluations, registered_accounts
from spotlab_pipelines.defs.partitions import account_partitions
from spotlab_pipelines.errors import PermanentError, StoreUnavailable
from spotlab_pipelines.market.cache import INSTANCE_METADATA, risk_key
from spotlab_pipelines.market.publish import Envelope
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.integration.conftest import Laboratory

NAME = str(account_partitions.name)


def tick(sensor: dg.SensorDefinition, laboratory: Laboratory, database: sa.Engine | None = None) -> Any:
    from spotlab_pipelines.definitions import defs

    context = dg.build_sensor_context(instance=laboratory.instance, definitions=defs)
    resources = {
        "database": database or laboratory.engine,
        "redis": laboratory.redis,
        "settings": laboratory.settings,
    }
    return sensor(context, **{key: resources[key] for key in sensor.required_resource_keys})


@pytest.fixture
def scraped(laboratory: Laboratory) -> Laboratory:
    """The laboratory with a shared market in its cache."""
    region = laboratory.accounts[0].regions[0]
    laboratory.redis.sadd(INSTANCE_METADATA, "m5.large")
    laboratory.redis.set(risk_key(region), Envelope("spot_advisor", "1", datetime.now(UTC)).wrap(types=[]))
    return laboratory


def test_partitions_follow_the_registered_accounts(laboratory: Laboratory) -> None:
    accounts = [account.account_id for account in laboratory.accounts]
    assert isinstance(tick(registered_accounts, laboratory), dg.SkipReason)
    laboratory.instance.delete_dynamic_partition(NAME, accounts[0])
    laboratory.instance.add_dynamic_partitions(NAME, ["999999999999"])
    added, deleted = tick(registered_accounts, laboratory).dynamic_partitions_requests
    assert added.partition_keys == [accounts[0]]
    assert deleted.partition_keys == ["999999999999"]


def test_a_partition_with_a_run_in_flight_is_not_deleted(laboratory: Laboratory) -> None:
    from spotlab_pipelines.definitions import defs

    gone = "999999999999"
    laboratory.instance.add_dynamic_partitions(NAME, [gone])
    run = laboratory.instance.create_run_for_job(
        defs.resolve_job_def("evaluation"),
        tags={"dagster/partition": gone},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert isinstance(tick(registered_accounts, laboratory), dg.SkipReason)
    laboratory.instance.delete_run(run.run_id)
    [deleted] = tick(registered_accounts, laboratory).dynamic_partitions_requests
    assert deleted.partition_keys == [gone]


def test_a_registry_that_cannot_be_read_fails_the_tick(laboratory: Laboratory) -> None:
    nowhere = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 2})
    with pytest.raises(StoreUnavailable):
        tick(registered_accounts, laboratory, nowhere)
    assert set(laboratory.instance.get_dynamic_partitions(NAME)) == {a.account_id for a in laboratory.accounts}


def test_due_accounts_are_evaluated_once_per_window(scraped: Laboratory) -> None:
    requests = tick(due_evaluations, scraped).run_requests
    assert [request.partition_key for request in requests] == [a.account_id for a in scraped.accounts]
    first = requests[0]
    window = parse_window(first.tags[WINDOW_TAG])
    assert int(window.timestamp()) % scraped.accounts[0].evaluation_interval_s == 0
    assert first.tags[ACCOUNT_TAG] == first.partition_key
    assert first.run_key == f"{first.partition_key}/{window.isoformat()}"

    begin_evaluation(scraped.engine, EvaluationKey(first.partition_key, window), None)
    remaining = tick(due_evaluations, scraped).run_requests
    assert [request.partition_key for request in remaining] == [a.account_id for a in scraped.accounts[1:]]


def test_an_account_without_a_partition_waits(scraped: Laboratory) -> None:
    scraped.instance.delete_dynamic_partition(NAME, scraped.accounts[0].account_id)
    requests = tick(due_evaluations, scraped).run_requests
    assert scraped.accounts[0].account_id not in [request.partition_key for request in requests]


def test_an_account_whose_access_is_marked_is_left_alone_for_as_long_as_the_setting_says(scraped: Laboratory) -> None:
    lax, broken, *others = [account.account_id for account in scraped.accounts]
    mark = sa.text("update accounts set access_state = :s, access_checked_at = :c where account_id = :a")
    retry = timedelta(seconds=scraped.settings.access_retry_s)
    with scraped.engine.begin() as connection:
        connection.execute(mark, {"s": "lax", "c": datetime.now(UTC), "a": lax})
        connection.execute(mark, {"s": "access_broken", "c": datetime.now(UTC) - retry / 2, "a": broken})
    assert [request.partition_key for request in tick(due_evaluations, scraped).run_requests] == others
    with scraped.engine.begin() as connection:
        connection.execute(mark, {"s": "lax", "c": datetime.now(UTC) - retry, "a": lax})
    assert [request.partition_key for request in tick(due_evaluations, scraped).run_requests] == [lax, *others]


def test_what_the_cache_lacks_is_scraped_before_any_evaluation_starts(scraped: Laboratory) -> None:
    scraped.redis.flushdb()
    requests = tick(due_evaluations, scraped).run_requests
    assert {request.job_name for request in requests} == {"advisor_scrape", "catalogue_scrape"}
    assert [again.run_key for again in tick(due_evaluations, scraped).run_requests] == [r.run_key for r in requests]
    scraped.redis.sadd(INSTANCE_METADATA, "m5.large")
    assert [r.job_name for r in tick(due_evaluations, scraped).run_requests] == ["advisor_scrape"]


def test_schedules_run_at_least_twice_within_the_time_to_live_of_what_they_fill(settings: Settings) -> None:
    for schedule, ttl_s in (
        (advisor_schedule, settings.spot_risk_ttl_s),
        (catalogue_schedule, settings.instance_metadata_ttl_s),
    ):
        ticks = cron_string_iterator(datetime(2026, 1, 31, tzinfo=UTC).timestamp(), str(schedule.cron_schedule), "UTC")
        times = [next(ticks) for _ in range(200)]
        assert max(after - before for before, after in pairwise(times)).total_seconds() <= ttl_s / 2


def test_a_database_that_was_never_migrated_says_in_one_line_what_to_start(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    downgrade(settings, "base")
    monkeypatch.setattr(resources, "get_settings", lambda: settings)
    with pytest.raises(PermanentError, match="Run `spotlab up`"):
        resources.database(dg.build_init_resource_context())
