"""The life of an evaluation: one row per account and window, numbered once, reopened after a failure only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, fail_evaluation, failed_accounts
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID, WINDOW, fill

KEY = EvaluationKey(ACCOUNT_ID, WINDOW)


def state(engine: sa.Engine) -> tuple[object, ...]:
    with engine.connect() as connection:
        query = sa.text("select state, step, run_id, error from evaluations where window_start = :window")
        return tuple(connection.execute(query, {"window": WINDOW}).one())


def test_a_window_needs_a_zone() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        EvaluationKey(ACCOUNT_ID, datetime(2026, 1, 1))  # noqa: DTZ001


def test_begun_twice_is_one_evaluation(engine: sa.Engine, owner: sa.Engine) -> None:
    fill(owner)
    assert begin_evaluation(engine, KEY, "run-1") == 1
    assert begin_evaluation(engine, KEY, "run-2") == 1
    assert state(engine) == ("running", 1, "run-2", None)


def test_steps_count_an_accounts_evaluations_without_gap(engine: sa.Engine, owner: sa.Engine) -> None:
    fill(owner)
    keys = [EvaluationKey(ACCOUNT_ID, WINDOW + timedelta(hours=hour)) for hour in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        steps = sorted(pool.map(lambda key: begin_evaluation(engine, key, None), keys))
    assert steps == list(range(2, 10))


def test_a_failure_is_kept_and_a_retry_reopens_it(engine: sa.Engine, owner: sa.Engine) -> None:
    fill(owner)
    fail_evaluation(engine, KEY, at_step="spot_prices", error="Throttled: slowly")
    assert state(engine)[0] == "failed"
    failures = failed_accounts(engine, WINDOW, [ACCOUNT_ID, "000000000000"])
    assert {account: failure.at_step for account, failure in failures.items()} == {ACCOUNT_ID: "spot_prices"}
    begin_evaluation(engine, KEY, "run-2")
    assert state(engine) == ("running", 1, "run-2", None)
    assert failed_accounts(engine, WINDOW, [ACCOUNT_ID]) == {}


def test_what_is_logged_stays_logged(engine: sa.Engine, owner: sa.Engine) -> None:
    fill(owner)
    with engine.begin() as connection:
        connection.execute(sa.text("update evaluations set state = 'logged', snapshot_id = repeat('c', 64)"))
    begin_evaluation(engine, KEY, "run-2")
    fail_evaluation(engine, KEY, at_step="late", error="too late")
    assert state(engine)[:3] == ("logged", 1, None)
