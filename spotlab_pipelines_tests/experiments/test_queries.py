"""What the CLI, the demo and the sensor ask: who is due, what was decided, how much is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, fail_evaluation
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.queries import due_accounts, latest_decisions, list_experiments, row_counts
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, KEY, WINDOW, decided, decisions, register

NOW = datetime(2026, 11, 23, 12, 44, 59, 999999, tzinfo=UTC)
OTHER = "210000000002"
RETRY_S = 3600.0


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive_location)


def due(engine: sa.Engine, now: datetime) -> list[tuple[str, datetime]]:
    return [(account.account_id, account.window_start) for account in due_accounts(engine, now, retry_s=RETRY_S)]


def evaluate(engine: sa.Engine, archive: Archive, key: EvaluationKey, seed: int = 7) -> pd.DataFrame:
    frame = decided(engine, archive, key=key, frame=decisions(4, account_id=key.account_id, seed=seed))
    log_evaluation(engine, archive, key)
    return frame


def test_the_latest_decisions_are_those_that_were_logged_one_row_per_instance_and_version(
    engine: sa.Engine, archive: Archive
) -> None:
    register(engine)
    evaluate(engine, archive, EvaluationKey(ACCOUNT, WINDOW - timedelta(minutes=30)), seed=6)
    frame = evaluate(engine, archive, KEY)
    begin_evaluation(engine, EvaluationKey(ACCOUNT, WINDOW + timedelta(minutes=30)), None)

    latest = latest_decisions(engine, ACCOUNT)

    assert (latest["window_start"] == WINDOW).all()
    shared = [name for name in frame.columns if name not in ("account_id", "features")]
    pd.testing.assert_frame_equal(
        latest[shared].sort_values(["instance_id", "model_version"], ignore_index=True),
        frame[shared].sort_values(["instance_id", "model_version"], ignore_index=True),
    )
    assert list(latest["acting"]) == [True, False] * 4


def test_a_window_is_asked_for_by_its_start(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    earlier = EvaluationKey(ACCOUNT, WINDOW - timedelta(minutes=30))
    frame = evaluate(engine, archive, earlier, seed=6)
    evaluate(engine, archive, KEY)
    found = latest_decisions(engine, ACCOUNT, earlier.window_start)
    assert set(found["p_current_6h"].dropna()) == set(frame["p_current_6h"].dropna())


def test_no_logged_evaluation_is_an_empty_frame_with_the_same_columns(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    nothing = latest_decisions(engine, ACCOUNT)
    assert len(nothing) == 0
    evaluate(engine, archive, KEY)
    assert list(nothing.columns) == list(latest_decisions(engine, ACCOUNT).columns)
    assert len(latest_decisions(engine, OTHER)) == 0


def test_experiments_are_listed_latest_first_with_their_counts_and_errors(engine: sa.Engine, archive: Archive) -> None:
    register(engine, ACCOUNT, OTHER)
    evaluate(engine, archive, KEY)
    failed = EvaluationKey(OTHER, WINDOW + timedelta(minutes=30))
    begin_evaluation(engine, failed, "run-2")
    fail_evaluation(engine, failed, at_step="pool_features", error="MarketDataStale: too old")

    listed = list_experiments(engine)
    assert list(listed["account_id"]) == [OTHER, ACCOUNT]
    assert list(listed["state"]) == ["failed", "logged"]
    assert listed.loc[0, "error"] == "MarketDataStale: too old"
    assert listed["counts"].tolist()[1]["rows"] == 24
    assert list(list_experiments(engine, ACCOUNT)["account_id"]) == [ACCOUNT]
    assert len(list_experiments(engine, limit=1)) == 1
    with pytest.raises(InvalidInput, match="limit"):
        list_experiments(engine, limit=0)


@pytest.mark.parametrize(
    ("interval_s", "window"),
    [
        (60, datetime(2026, 11, 23, 12, 44, tzinfo=UTC)),
        (660, datetime(2026, 11, 23, 12, 40, tzinfo=UTC)),
        (1800, datetime(2026, 11, 23, 12, 30, tzinfo=UTC)),
        (3600, datetime(2026, 11, 23, 12, 0, tzinfo=UTC)),
        (86400, datetime(2026, 11, 23, 0, 0, tzinfo=UTC)),
    ],
)
def test_an_account_is_due_for_the_multiple_of_its_interval_that_has_begun(
    engine: sa.Engine, interval_s: int, window: datetime
) -> None:
    assert window == datetime.fromtimestamp(NOW.timestamp() // interval_s * interval_s, UTC)
    register(engine, interval_s=interval_s)
    assert due(engine, NOW) == [(ACCOUNT, window)]
    begin_evaluation(engine, EvaluationKey(ACCOUNT, window), None)
    assert due(engine, NOW) == []
    nearly_next = window + timedelta(seconds=interval_s, microseconds=-1)
    assert due(engine, nearly_next) == []
    assert due(engine, window + timedelta(seconds=interval_s)) == [(ACCOUNT, window + timedelta(seconds=interval_s))]


def test_a_manual_evaluation_within_the_window_does_not_stand_for_the_scheduled_one(engine: sa.Engine) -> None:
    register(engine)
    begin_evaluation(engine, EvaluationKey(ACCOUNT, WINDOW + timedelta(seconds=17)), None)
    assert due(engine, NOW) == [(ACCOUNT, WINDOW)]


def test_disabled_accounts_are_never_due_and_a_failed_window_is_not_started_again(engine: sa.Engine) -> None:
    register(engine, ACCOUNT)
    register(engine, OTHER, state="disabled")
    begin_evaluation(engine, KEY, None)
    fail_evaluation(engine, KEY, at_step="pool_features", error="MarketDataStale: too old")
    assert due(engine, NOW) == []


@pytest.mark.parametrize("state", ["lax", "access_broken"])
def test_an_account_that_is_marked_is_due_again_only_at_its_next_try(engine: sa.Engine, state: str) -> None:
    register(engine, ACCOUNT, OTHER)
    marked = sa.text("update accounts set access_state = :s, access_checked_at = :c where account_id = :a")

    def mark(checked_at: datetime | None, as_state: str = state) -> list[str]:
        with engine.begin() as connection:
            connection.execute(marked, {"s": as_state, "c": checked_at, "a": OTHER})
        return [account_id for account_id, _ in due(engine, NOW)]

    assert mark(NOW - timedelta(seconds=RETRY_S - 1)) == [ACCOUNT]
    assert mark(NOW - timedelta(seconds=RETRY_S + 1)) == [ACCOUNT, OTHER]
    assert mark(None) == [ACCOUNT, OTHER], "nobody knows when it was looked at"
    assert mark(NOW, "ok") == mark(NOW, "unknown") == [ACCOUNT, OTHER]


def test_a_time_without_a_zone_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        due_accounts(engine, datetime(2026, 11, 23, 12, 0), retry_s=RETRY_S)  # noqa: DTZ001


def test_one_statement_says_who_is_due_among_many_accounts_by_an_index(engine: sa.Engine) -> None:
    register(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into accounts (account_id, name, owner_id, role_arn, external_id, regions, evaluation_interval_s,"
            " interruption_cost_usd) select to_char(g, 'FM000000000000'), 'many', (select id from users),"
            " 'arn:aws:iam::' || to_char(g, 'FM000000000000') || ':role/x',"
            " 'external-id-of-many-' || to_char(g, 'FM000000'), '{us-east-1}', 1800, 1 from generate_series(1, 1000) g"
        )
        connection.exec_driver_sql(
            "insert into evaluations (account_id, window_start, step) select account_id,"
            " timestamptz '2026-11-23 12:30:00+00' - s * interval '30 min', 100 - s"
            " from accounts, generate_series(1, 48) s where name = 'many'"
        )
        connection.exec_driver_sql("analyze")
    statements: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
    assert len(due_accounts(engine, NOW, retry_s=RETRY_S)) == 1001
    assert len(statements) == 1
    with engine.connect() as connection:
        statement, parameters = statements[0]
        plan = connection.exec_driver_sql(f"explain {statement}", parameters).scalars().all()
    assert not any("Seq Scan on evaluations" in line for line in plan), "\n".join(plan)
    assert any("Index" in line and " on evaluations" in line for line in plan), "\n".join(plan)


def test_rows_are_counted_exactly_in_every_table(engine: sa.Engine, archive: Archive) -> None:
    register(engine, ACCOUNT, OTHER)
    evaluate(engine, archive, KEY)
    counts = row_counts(engine)
    assert "logins" not in counts
    assert {"users", "accounts", "instances", "model_registry", "tracking_runs"} <= set(counts)
    assert (counts["accounts"], counts["evaluations"], counts["experiment_logs"]) == (2, 1, 24)
    assert counts["instances"] == 0
    assert all(np.issubdtype(type(count), np.integer) or isinstance(count, int) for count in counts.values())
