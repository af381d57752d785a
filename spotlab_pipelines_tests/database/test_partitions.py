"""The log's months exist before they are needed, whoever asks, and rows never land elsewhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.database.migrate import drift, upgrade
from spotlab_pipelines.database.partitions import (
    drop_partitions,
    ensure_partitions,
    is_partition,
    maintain_partitions,
    month_start,
)
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.database.filled import WINDOW, fill


@pytest.mark.parametrize(
    ("moment", "offset", "expected"),
    [
        (datetime(2026, 1, 31, 23, 59, tzinfo=UTC), 0, (2026, 1)),
        (datetime(2026, 1, 31, tzinfo=UTC), -1, (2025, 12)),
        (datetime(2025, 12, 1, tzinfo=UTC), 1, (2026, 1)),
        (datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))), 0, (2026, 2)),
    ],
)
def test_months(moment: datetime, offset: int, expected: tuple[int, int]) -> None:
    assert month_start(moment, offset) == datetime(*expected, 1, tzinfo=UTC)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="zone"):
        month_start(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_month_before_of_and_after(engine: sa.Engine, settings: Settings) -> None:
    around = datetime(2031, 1, 15, tzinfo=UTC)
    expected = ["experiment_logs_2030_12", "experiment_logs_2031_01", "experiment_logs_2031_02"]
    assert ensure_partitions(engine, around) == expected
    assert ensure_partitions(engine, around) == []
    assert ensure_partitions(engine, datetime(2031, 2, 15, tzinfo=UTC)) == ["experiment_logs_2031_03"]
    assert drift(settings) == []
    assert is_partition("experiment_logs_2031_01")
    assert not is_partition("experiment_logs")


def test_a_partition_has_the_logs_rules(owner: sa.Engine) -> None:
    fill(owner)
    inspector = sa.inspect(owner)
    for name in ("experiment_logs", "experiment_logs_2026_03"):
        assert len(inspector.get_foreign_keys(name)) == 2, name
        assert len(inspector.get_check_constraints(name)) == 13, name
        assert len(inspector.get_unique_constraints(name)) == 1, name
    with owner.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from experiment_logs_2026_03")) == 1


def test_old_months_are_dropped_and_no_other(owner: sa.Engine) -> None:
    fill(owner)
    ensure_partitions(owner, datetime(2025, 12, 31, tzinfo=UTC))
    before = datetime(2026, 2, 1, tzinfo=UTC)
    dropped = drop_partitions(owner, before=before)
    assert dropped == [f"experiment_logs_{month}" for month in ("2025_11", "2025_12", "2026_01")]
    assert drop_partitions(owner, before=before) == []
    with owner.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from experiment_logs")) == 1
    assert ensure_partitions(owner, WINDOW, ahead=3) == ["experiment_logs_2026_05", "experiment_logs_2026_06"]


def test_maintenance_makes_months_ahead_and_keeps_what_is_retained(owner: sa.Engine, settings: Settings) -> None:
    fill(owner)
    keep = settings.model_copy(update={"log_months_ahead": 2, "log_retention_months": 3})
    report = maintain_partitions(keep, datetime(2026, 6, 15, tzinfo=UTC))
    assert report.made == [f"experiment_logs_2026_0{month}" for month in (5, 6, 7, 8)]
    assert report.dropped == ["experiment_logs_2026_02"]
    assert maintain_partitions(keep, datetime(2026, 6, 15, tzinfo=UTC)).made == []
    with owner.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from experiment_logs")) == 1, "March is the third month back"


def test_a_month_that_nobody_prepared_is_an_error(owner: sa.Engine) -> None:
    fill(owner)
    with pytest.raises(IntegrityError, match="no partition"), owner.begin() as connection:
        connection.execute(sa.text("update experiment_logs set window_start = '2019-01-01T00:00Z'"))


def test_many_that_ask_at_once(engine: sa.Engine) -> None:
    moments = [datetime(2033, month, 1, tzinfo=UTC) for month in (3, 4, 5, 6)]
    with ThreadPoolExecutor(4) as pool:
        created = sorted(
            name for names in pool.map(lambda moment: ensure_partitions(engine, moment), moments) for name in names
        )
    assert created == [f"experiment_logs_2033_{month:02}" for month in range(2, 8)]


def test_reading_another_month_does_not_wait(engine: sa.Engine, owner: sa.Engine) -> None:
    fill(owner)
    with engine.connect() as reader:
        reader.execute(sa.text("select count(*) from experiment_logs"))
        with engine.connect() as connection:
            connection.execute(sa.text("set lock_timeout = '1s'"))
        assert len(ensure_partitions(engine, datetime(2034, 1, 1, tzinfo=UTC))) == 3


def test_partitions_from_before_there_was_protection_have_it_too(empty_database: Settings) -> None:
    upgrade(empty_database, "0001")
    owner = connect(empty_database, role="owner")
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "create table experiment_logs_2026_03 partition of experiment_logs "
            "for values from ('2026-03-01') to ('2026-04-01')"
        )
    upgrade(empty_database)
    with owner.connect() as connection:
        protected = "select relrowsecurity and relforcerowsecurity from pg_class where relname = '{}'"
        assert connection.scalar(sa.text(protected.format("experiment_logs_2026_03"))) is True
