"""What is learned from tells of those that ended as well as of those that run on, however long ago it was."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.frames import SPOT_REQUEST_COLUMNS
from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines.training.exposures import exposures_of, recorded_runs
from spotlab_pipelines_tests.experiments.ended import Log, W, hours
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, register

Row = tuple[str, float, float | None, bool]


def runs_of(engine: sa.Engine, since: float = -1, until: float = 100) -> list[Row]:
    start, end = W + timedelta(hours=since), W + timedelta(hours=until)
    return told(recorded_runs(engine, [ACCOUNT], since=start, until=end))


def told(frame: pd.DataFrame) -> list[Row]:
    assert list(frame.columns) == list(SPOT_REQUEST_COLUMNS)
    times = [((frame[name] - pd.Timestamp(W)) / pd.Timedelta(hours=1)).round(3) for name in ("started_at", "ended_at")]
    rows = zip(frame["instance_id"], *times, frame["interrupted"], strict=True)
    return [(name, started, None if pd.isna(ended) else ended, taken) for name, started, ended, taken in rows]


def requests(*rows: Row) -> pd.DataFrame:
    frame = pd.DataFrame([("sir-" + row[0], row[0], *"razp", *map(hours, row[1:3]), row[3], "") for row in rows])
    frame.columns = list(SPOT_REQUEST_COLUMNS)
    for name in ("started_at", "ended_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    return frame


@pytest.fixture
def log(engine: sa.Engine) -> Log:
    register(engine)
    ensure_partitions(engine, W)
    return Log(engine)


def test_a_run_goes_from_its_first_window_to_its_interruption_or_to_when_it_was_last_seen(log: Log) -> None:
    log.instance("i-taken", ended=20)
    log.event("i-taken", 20)
    log.instance("i-ended", ended=9, by="owner")
    log.instance("i-runs", running=25)
    log.instance("i-again", launched=30, running=45)
    log.event("i-again", 3)
    for at in (0, 8):
        log.window(at, "i-taken", "i-ended", "i-runs")
    log.window(1, "i-again")
    log.window(31, "i-again")
    log.read(50)
    log.resolve()
    assert runs_of(log.engine) == [
        ("i-again", 1, 3, True),
        ("i-again", 31, 45, False),
        ("i-ended", 0, 9, False),
        ("i-runs", 0, 25, False),
        ("i-taken", 0, 20, True),
    ]
    assert {row[0] for row in runs_of(log.engine, since=21)} == {"i-again", "i-runs"}
    assert runs_of(log.engine, until=0) == []


def test_a_past_that_was_looked_at_later_shows_survivors_alone_and_does_not_count(log: Log) -> None:
    log.instance("i-runs", running=25)
    log.window(0, "i-runs", details='{"retrospective": true}')
    log.window(3, "i-runs", scored=0.7, finished=0.8)
    log.window(9, "i-runs")
    log.read(50)
    log.resolve()
    assert runs_of(log.engine) == [("i-runs", 9, 25, False)]


def test_before_the_first_end_that_is_told_of_a_request_does_not_count() -> None:
    """AWS has forgotten who ended then: those that it still tells of would all have survived."""
    asked = requests(("i-old", 0, None, False), ("i-taken", 5, 90, True), ("i-young", 95, None, False))
    nothing = requests(("i", 0, 1, False)).head(0)
    assert told(exposures_of(asked, nothing)) == [
        ("i-old", 90, None, False),
        ("i-taken", 90, 90, True),
        ("i-young", 95, None, False),
    ]
    assert told(exposures_of(asked[asked["ended_at"].isna()], nothing)) == []


def test_what_is_on_record_counts_from_the_first_window_and_what_aws_has_forgotten_counts_too() -> None:
    asked = requests(("i-old", 0, None, False), ("i-taken", 5, 90, True))
    runs = requests(("i-old", 10, 30, False), ("i-old", 40, 70, False), ("i-gone", 10, 20, True))
    assert told(exposures_of(asked, runs)) == [
        ("i-old", 10, None, False),
        ("i-taken", 90, 90, True),
        ("i-gone", 10, 20, True),
    ]
