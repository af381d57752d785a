"""The log holds every decision at its grain, to the last bit, and holds it once however often it is written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, fail_evaluation
from spotlab_pipelines.database.tables import Evaluation, ExperimentLog
from spotlab_pipelines.errors import IntegrityError, NotFound, SourceMalformed, StoreUnavailable
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, KEY, SNAPSHOT, WINDOW, decided, decisions, register


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive_location)


def rows(engine: sa.Engine) -> pd.DataFrame:
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(ExperimentLog.__table__).order_by(
                ExperimentLog.instance_id, ExperimentLog.model_version, ExperimentLog.horizon_h
            )
        )
        return pd.DataFrame(found.fetchall(), columns=list(found.keys()))


def evaluation(engine: sa.Engine, key: EvaluationKey = KEY) -> sa.Row:
    with engine.connect() as connection:
        return connection.execute(
            sa.select(Evaluation.__table__).where(
                Evaluation.account_id == key.account_id, Evaluation.window_start == key.window_start
            )
        ).one()


def assert_nothing_written(engine: sa.Engine) -> None:
    assert len(rows(engine)) == 0
    assert evaluation(engine).state == "running"


def test_each_instance_version_and_horizon_is_one_row_with_its_values_to_the_last_bit(
    engine: sa.Engine, archive: Archive
) -> None:
    register(engine)
    frame = decided(engine, archive, frame=decisions(4))
    wide_rows: dict[tuple[str, str], Any] = {
        (row["instance_id"], row["model_version"]): row for row in frame.to_dict("records")
    }
    amounts = [name for name in map(str, frame.columns) if name.endswith("_usd_per_hour")]

    report = log_evaluation(engine, archive, KEY)

    logged = rows(engine)
    assert report.written == len(logged) == 4 * 2 * 3
    assert not report.already_logged
    assert report.step == 1
    for row in logged.to_dict("records"):
        wide = wide_rows[row["instance_id"], row["model_version"]]
        assert (row["account_id"], row["window_start"], row["snapshot_id"]) == (ACCOUNT, WINDOW, SNAPSHOT)
        assert row["features"] == wide["features"]
        assert row["timings_ms"] == {"features": 1.5, "predictions": 2.5, "decisions": 3.5}
        for name in ("model_role", "acting", "shadow", "pipeline_mode", "decision", "reason", "region", "from_pool"):
            assert row[name] == wide[name]
        for name in (*amounts, "gain"):
            np.testing.assert_equal(float(row[name]), wide[name])
        np.testing.assert_equal(float(row["p_current"]), wide[f"p_current_{row['horizon_h']}h"])
        np.testing.assert_equal(float(row["p_target"]), wide[f"p_target_{row['horizon_h']}h"])


def test_unknown_values_are_null_never_nan(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    frame = decisions(4)
    unknown_feature = {"price_position": float("nan"), "discount_depth": 0.7}
    frame["features"] = pd.Series([unknown_feature, *frame["features"].tolist()[1:]], dtype=object)
    decided(engine, archive, frame=frame)
    log_evaluation(engine, archive, KEY)

    with engine.connect() as connection:
        unknown = connection.execute(
            sa.text(
                "select count(*) filter (where 'NaN' in (p_current, p_target, gain, to_cost_usd_per_hour)) as nans,"
                " count(*) filter (where p_current is null) as p_nulls,"
                " count(*) filter (where to_pool is null) as without_target,"
                " count(*) filter (where features is null) as without_features,"
                " count(*) filter (where features -> 'price_position' = 'null') as json_nulls from experiment_logs"
            )
        ).one()
    assert unknown == (0, 6, 18, 6, 3)


def test_the_evaluation_keeps_its_snapshot_and_counts(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(9))
    report = log_evaluation(engine, archive, KEY)

    found = evaluation(engine)
    assert (found.state, found.snapshot_id) == ("logged", SNAPSHOT)
    assert found.finished_at is not None
    assert (
        found.counts
        == report.counts
        == {
            "instances": 9,
            "versions": 2,
            "pools": 3,
            "excluded": {"on-demand price is missing": 1},
            "decisions": {"STAY": 3, "SWITCH": 2, "FALLBACK_ON_DEMAND": 2, "SKIP": 2},
            "rows": 54,
        }
    )


def test_the_evaluation_keeps_the_on_demand_price_of_the_pools_that_its_instances_were_in(
    engine: sa.Engine, archive: Archive
) -> None:
    register(engine)
    frame = decisions(9)
    # One pool whose price nobody knows, and no instance in the third.
    frame.loc[frame["instance_id"] == "i-00000000000000000", "from_pool"] = "c5.large:use1-az1:Linux/UNIX"
    decided(engine, archive, frame=frame)
    log_evaluation(engine, archive, KEY)
    assert evaluation(engine).details["on_demand_usd_per_hour"] == {"m5.large:use1-az1:Linux/UNIX": 0.096}


def test_a_retry_writes_nothing_and_names_the_first_snapshot(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive)
    first = log_evaluation(engine, archive, KEY)
    before = rows(engine)
    decided(engine, archive, frame=decisions(5, seed=8), snapshot_id="6" * 64)

    again = log_evaluation(engine, archive, KEY)

    assert (again.written, again.already_logged, again.snapshot_id) == (0, True, SNAPSHOT)
    assert again.counts == first.counts
    pd.testing.assert_frame_equal(rows(engine), before)


def test_eight_writers_at_once_write_once(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(50))
    together = Barrier(8)

    def write(_: int) -> int:
        together.wait()
        return log_evaluation(engine, archive, KEY).written

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(8)))
    assert sorted(written) == [0] * 7 + [300]
    assert len(rows(engine)) == 300


def test_an_evaluation_that_a_doubled_run_failed_is_still_logged(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive)
    fail_evaluation(engine, KEY, at_step="pool_features", error="MarketDataStale: too old")
    log_evaluation(engine, archive, KEY)
    found = evaluation(engine)
    assert (found.state, found.error, found.failed_at_step) == ("logged", None, None)


def test_accounts_and_windows_are_separate_evaluations(engine: sa.Engine, archive: Archive) -> None:
    other = EvaluationKey("210000000002", WINDOW)
    later = EvaluationKey(ACCOUNT, datetime(2027, 1, 31, 23, 59, tzinfo=UTC))
    register(engine, ACCOUNT, other.account_id)
    for key in (KEY, other, later):
        decided(engine, archive, key=key)
        assert log_evaluation(engine, archive, key).written == 18
    assert evaluation(engine, later).step == 2
    assert len(rows(engine)) == 54


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("p_current_6h", 1.01),
        ("p_target_1h", -0.01),
        ("from_cost_usd_per_hour", np.inf),
        ("decision", "MOVE"),
        ("model_role", "king"),
        ("candidates_considered", -1),
        ("reason", ""),
    ],
)
def test_decisions_out_of_shape_are_refused_by_name(
    engine: sa.Engine, archive: Archive, column: str, value: Any
) -> None:
    register(engine)
    frame = decisions()
    frame.loc[1, column] = value
    decided(engine, archive, frame=frame)
    with pytest.raises(SourceMalformed, match=column):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_a_missing_column_or_a_doubled_instance_is_refused(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions().drop(columns="p_target_12h"))
    with pytest.raises(SourceMalformed, match="p_target_12h"):
        log_evaluation(engine, archive, KEY)
    decided(engine, archive, frame=pd.concat([decisions(), decisions()], ignore_index=True))
    with pytest.raises(SourceMalformed, match=r"unique|instance_id"):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_rows_of_another_account_are_refused(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(account_id="210000000009"))
    with pytest.raises(IntegrityError, match="210000000009"):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_a_version_that_is_not_registered_leaves_nothing_half_written(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    frame = decisions(60)
    frame.loc[119, "model_version"] = "unheard-of/1"
    decided(engine, archive, frame=frame)
    with pytest.raises(IntegrityError, match="model_version"):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_tables_of_two_snapshots_are_refused(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    frame = decided(engine, archive)
    archive.write_table("decisions", KEY, frame, {"snapshot_id": "7" * 64})
    with pytest.raises(IntegrityError, match="one snapshot"):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_rows_that_an_unlogged_evaluation_already_has_are_an_error(
    engine: sa.Engine, owner: sa.Engine, archive: Archive
) -> None:
    register(engine)
    decided(engine, archive)
    log_evaluation(engine, archive, KEY)
    with owner.begin() as connection:
        connection.execute(sa.update(Evaluation).values(state="running"))
        connection.execute(sa.delete(ExperimentLog).where(ExperimentLog.horizon_h == 6))
    with pytest.raises(IntegrityError, match="12 of the 18"):
        log_evaluation(engine, archive, KEY)
    assert len(rows(engine)) == 12


def test_what_cannot_be_summed_up_is_not_logged(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(3).assign(from_cost_usd_per_hour=1.7e308))
    with pytest.raises(SourceMalformed, match="from_cost_usd_per_hour"):
        log_evaluation(engine, archive, KEY)
    assert_nothing_written(engine)


def test_what_was_not_begun_or_not_decided_is_named(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    with pytest.raises(NotFound, match="no evaluation 210000000001"):
        log_evaluation(engine, archive, KEY)
    begin_evaluation(engine, KEY, None)
    with pytest.raises(NotFound, match="decisions"):
        log_evaluation(engine, archive, KEY)


def test_a_fleet_without_instances_is_logged_as_such(engine: sa.Engine, archive: Archive) -> None:
    register(engine)
    decided(engine, archive, frame=decisions(1).head(0))
    report = log_evaluation(engine, archive, KEY)
    assert (report.written, report.already_logged, report.counts["instances"]) == (0, False, 0)
    assert evaluation(engine).state == "logged"


def test_a_database_that_is_gone_is_named(engine: sa.Engine, archive: Archive, server: sa.Engine) -> None:
    register(engine)
    decided(engine, archive)
    with server.connect() as connection:
        connection.execute(sa.text(f"alter database {engine.url.database} allow_connections false"))
        connection.execute(
            sa.text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name"),
            {"name": engine.url.database},
        )
    with pytest.raises(StoreUnavailable, match="Postgres"):
        log_evaluation(engine, archive, KEY)
    with server.connect() as connection:
        connection.execute(sa.text(f"alter database {engine.url.database} allow_connections true"))
    assert log_evaluation(engine, archive, KEY).written == 18
