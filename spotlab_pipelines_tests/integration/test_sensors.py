"""Sensors: accounts become partitions, due evaluations start once, and an unreadable registry is not an empty one."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation
from spotlab_pipelines.defs.evaluation import ACCOUNT_TAG, WINDOW_TAG, parse_window
from spotlab_pipelines.defs.jobs import due_evaluations, registered_accounts
from spotlab_pipelines.defs.partitions import account_partitions
from spotlab_pipelines.errors import StoreUnavailable
from spotlab_pipelines_tests.integration.conftest import Laboratory

NAME = str(account_partitions.name)


def tick(sensor: dg.SensorDefinition, laboratory: Laboratory, database: sa.Engine | None = None) -> Any:
    from spotlab_pipelines.definitions import defs

    context = dg.build_sensor_context(instance=laboratory.instance, definitions=defs)
    return sensor(context, database=database or laboratory.engine)


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


def test_due_accounts_are_evaluated_once_per_window(laboratory: Laboratory) -> None:
    requests = tick(due_evaluations, laboratory).run_requests
    assert [request.partition_key for request in requests] == [a.account_id for a in laboratory.accounts]
    first = requests[0]
    window = parse_window(first.tags[WINDOW_TAG])
    assert int(window.timestamp()) % laboratory.accounts[0].evaluation_interval_s == 0
    assert first.tags[ACCOUNT_TAG] == first.partition_key
    assert first.run_key == f"{first.partition_key}/{window.isoformat()}"

    begin_evaluation(laboratory.engine, EvaluationKey(first.partition_key, window), None)
    remaining = tick(due_evaluations, laboratory).run_requests
    assert [request.partition_key for request in remaining] == [a.account_id for a in laboratory.accounts[1:]]


def test_an_account_without_a_partition_waits(laboratory: Laboratory) -> None:
    laboratory.instance.delete_dynamic_partition(NAME, laboratory.accounts[0].account_id)
    requests = tick(due_evaluations, laboratory).run_requests
    assert laboratory.accounts[0].account_id not in [request.partition_key for request in requests]
