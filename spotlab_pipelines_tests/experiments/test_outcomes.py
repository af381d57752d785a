"""Each logged prediction comes to be interrupted, survived or censored, by what is known and by no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.frames import ENDING_COLUMNS
from spotlab_pipelines.accounts.interruptions import record_endings
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.experiments.labels import labelled
from spotlab_pipelines.experiments.learning import tell_switches
from spotlab_pipelines.experiments.outcomes import (
    FOR_HASHING,
    PATIENCE,
    RESOLVE,
    list_outcomes,
    resolve_outcomes,
    values_of,
)
from spotlab_pipelines_tests.experiments.ended import LATER, Log, W, hours
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHAMPION, register
from spotlab_pipelines_tests.experiments.outcome_log import fill

OUTCOME_POOL = "'us-east-1', 'm5.large', 'use1-az1', 'Linux/UNIX'"


@pytest.fixture
def log(engine: sa.Engine) -> Log:
    return Log.begin(engine)


CASES: dict[str, tuple[dict[str, Any], list[tuple[float, int]], str, str, str | None]] = {
    # name: instance, events (hour, number), labels, source, ended by
    "i-taken-early": ({"ended": 0.5}, [(0.5, 1)], "III", "spot_request", None),
    "i-taken-at-the-deadline": ({"ended": 6}, [(6, 1)], "SII", "spot_request", None),
    "i-taken-after-all": ({"ended": 13}, [(13, 1)], "SSS", "spot_request", None),
    "i-still-there": ({"running": 13}, [], "SSS", "fleet", None),
    "i-seen-up-to-a-deadline": ({"running": 6}, [], "Scc", "fleet", None),
    "i-not-seen-since": ({"running": 0.2}, [], "ccc", "fleet", None),
    "i-never-seen-running": ({}, [], "ccc", "fleet", None),
    "i-ended-by-its-owner": ({"running": 2, "ended": 3, "by": "owner"}, [], "SCC", "spot_request", "owner"),
    "i-gone-unexplained": ({"running": 2, "ended": 3}, [], "Scc", "fleet", None),
    "i-started-again": ({"running": 20, "launched": 4}, [], "CCC", "fleet", "owner"),
    "i-started-again-and-taken": ({"ended": 5, "launched": 4}, [(5, 1)], "CCC", "fleet", "owner"),
    "i-taken-and-started-again": ({"running": 20, "launched": 4}, [(2, 1)], "SII", "spot_request", None),
    "i-taken-twice": ({"ended": 9, "launched": 4}, [(2, 1), (9, 2)], "SII", "spot_request", None),
    "i-taken-before-and-since": ({"ended": 9, "launched": -1}, [(-2, 1), (9, 2)], "SSI", "spot_request", None),
    "i-taken-before-not-since": ({"running": 20, "launched": -1}, [(-2, 1)], "SSS", "fleet", None),
    "i-being-taken": ({"running": 0.01, "ended": 0.02}, [(-0.01, 1)], "CCC", "spot_request", None),
    "i-launched-after-the-floor": ({"running": 20, "launched": 0.05}, [], "SSS", "fleet", None),
}  # fmt: skip


def test_what_is_known_makes_the_label(log: Log) -> None:
    log.window(0, *CASES, "i-on-demand")
    log.instance("i-on-demand", lifecycle="on-demand", running=13)
    for name, (instance, events, *_) in CASES.items():
        log.instance(name, **instance)
        for at, number in events:
            log.event(name, at, number)
    log.read(30)
    report = log.resolve()
    assert {name: log.labels(name) for name in CASES} == {name: case[2] for name, case in CASES.items()}
    for name, (*_, source, ended_by) in CASES.items():
        found = log.predictions(name)
        assert set(found["source"]) == {source}, name
        assert found["ended_by"].isna().all() if ended_by is None else set(found["ended_by"]) == {ended_by}, name
    assert (report.labels, report.rows_written, report.interrupted) == (17, 17, 6)
    assert report.sources == {"spot_request": 8, "fleet": 9}
    assert (report.survived, report.censored, report.still_open) == (3, 4, 4), "with the interrupted they are all"
    assert (report.windows, report.windows_settled) == (1, 0)
    assert set(log.predictions("i-on-demand")["outcome"]) == {"censored"}, "no row of it: it cannot be interrupted"
    assert "i-on-demand" not in set(list_outcomes(log.engine, ACCOUNT)["instance_id"])


def test_an_end_after_a_decision_to_move_is_a_switch_and_censored_like_any_end_by_the_owner(
    log: Log, owner: sa.Engine
) -> None:
    # name: what the acting version's rows say, by window; the version in shadow always says the opposite.
    moves = {
        "i-moved": ("STAY", "SWITCH"),
        "i-fled": ("STAY", "FALLBACK_ON_DEMAND"),
        "i-stayed-after-all": ("SWITCH", "STAY"),
        "i-in-shadow": ("SWITCH", "SWITCH"),
        "i-long-after": ("SWITCH", "SWITCH"),
        "i-taken": ("SWITCH", "SWITCH"),
    }
    for number, at in enumerate((0, 1)):
        log.window(at, *moves)
        for name, said in moves.items():
            values = {"i": name, "w": hours(at), "said": said[number], "shadow": name == "i-in-shadow"}
            Log(owner).do(
                "update experiment_logs set decision = case when acting then :said else 'SWITCH' end, "
                "shadow = not acting or :shadow where instance_id = :i and window_start = :w",
                **values,
            )
    for name in moves:
        log.instance(name, running=1.5, ended=14 if name == "i-long-after" else 2, by="owner")
    log.instance("i-taken", ended=2)
    log.event("i-taken", 2)
    log.read(30)
    assert tell_switches(log.engine, ACCOUNT, LATER) == 2
    assert tell_switches(log.engine, ACCOUNT, LATER) == 0
    log.resolve()
    ended_by = list_outcomes(log.engine, ACCOUNT).set_index("instance_id")["ended_by"].groupby(level=0).first()
    assert ended_by.dropna().to_dict() == {
        "i-moved": "switch", "i-fled": "switch", "i-stayed-after-all": "owner", "i-in-shadow": "owner",
        "i-long-after": "owner",
    }  # fmt: skip
    assert log.labels("i-moved") == log.labels("i-stayed-after-all") == "SCC"
    assert log.labels("i-taken") == "SII"


def test_resolving_again_changes_nothing_and_what_is_open_is_taken_up_when_more_is_known(log: Log) -> None:
    log.window(0, "i-1", "i-2")
    for name in ("i-1", "i-2"):
        log.instance(name, running=2)
    assert log.resolve().events_read_until is None
    assert log.labels("i-1") == "ccc", "nobody has read the interruptions: nothing follows from silence"
    log.read(0.5)
    log.resolve()
    assert log.labels("i-1") == "ccc", "seen for two hours, but the events are known for half of one"
    log.read(9, error="AccessDenied")
    assert log.resolve().rows_written == 0, "a reading that failed says nothing"
    log.read(9)
    first = log.resolve()
    assert log.labels("i-1") == "Scc"
    assert log.resolve() == replace(first, rows_written=0)
    log.event("i-1", 5, source="state_reason")
    log.instance("i-2", running=13)
    log.read(14)
    last = log.resolve()
    assert [log.labels(name) for name in ("i-1", "i-2")] == ["SII", "SSS"]
    assert set(log.predictions("i-1")["source"]) == {"state_reason"}
    assert (last.windows_settled, last.still_open) == (1, 0)
    assert log.resolve().windows == 0, "a settled window is not looked at again"
    log.event("i-2", 8)
    log.do("update evaluations set outcomes_settled = false")
    assert log.resolve().rows_written == 0
    assert log.labels("i-2") == "SSS", "what is final stays, whatever is told later"


def test_an_end_that_nobody_explains_is_censored_for_good_when_aws_has_forgotten_it(log: Log) -> None:
    log.window(0, "i-1")
    log.instance("i-1", running=2, ended=3)
    log.read(30)
    end = W + timedelta(hours=12) + PATIENCE
    assert log.resolve(end).still_open == 1
    assert log.resolve(end + timedelta(seconds=1)).windows_settled == 1
    assert log.labels("i-1") == "SCC"


@pytest.mark.parametrize("state", ["terminated", "stopped"])
def test_an_end_by_the_owner_at_a_time_that_nobody_tells_proves_no_survival(log: Log, state: str) -> None:
    """Ended at 5.5 h as it may be, and noticed at 6.2 h."""
    log.window(0, "i-1")
    log.instance("i-1", running=5.2, ended=6.2)
    if state == "stopped":
        log.do("update instances set state = 'stopped', ended_at = null")
    code = "Client.UserInitiatedShutdown"
    row = ("i-1", "us-east-1", "use1-az1", "m5.large", "Linux/UNIX", None, code, False, None)
    told = pd.DataFrame([row], columns=list(ENDING_COLUMNS))
    record_endings(log.engine, ACCOUNT, "state_reason", told, read_at=W + timedelta(hours=6.3))
    log.read(6.3)
    assert log.resolve().windows_settled == 1
    assert log.labels("i-1") == "SCC"


def test_a_window_without_spot_instances_is_settled_at_once(log: Log) -> None:
    log.window(0, "i-1")
    log.instance("i-1", lifecycle="on-demand", running=1)
    assert (log.resolve().windows_settled, log.resolve().windows) == (1, 0)


def test_past_windows_are_marked_and_resolve_like_any_other(log: Log) -> None:
    log.window(0, "i-1", "i-2", finished=200, details='{"retrospective": true}')
    log.window(3, "i-1", finished=200)
    log.instance("i-1", running=8, ended=8, launched=-3)
    log.event("i-1", 8)
    log.instance("i-2", running=4, ended=4, by="owner", launched=-3)
    log.read(199)
    log.resolve(W + timedelta(hours=200))
    assert (log.labels("i-1"), log.labels("i-1", 3), log.labels("i-2")) == ("SSI", "SII", "SCC")
    assert log.predictions("i-1")["retrospective"].all()
    assert not log.predictions("i-1", 3)["retrospective"].any()


def test_a_window_that_was_scored_late_is_a_past_one_and_what_was_launched_in_it_was_not_there(log: Log) -> None:
    log.window(0, "i-new", "i-old", "i-restarted", scored=15, finished=15.1)
    log.instance("i-new", launched=14, ended=16)
    log.event("i-new", 16)
    log.instance("i-old", ended=16)
    log.event("i-old", 16)
    log.instance("i-restarted", launched=4, running=20)
    log.event("i-restarted", 2)
    log.read(30)
    assert log.resolve().windows_settled == 1
    assert log.labels("i-new") == "CCC", "it did not exist yet"
    assert log.labels("i-old") == "SSS"
    assert log.labels("i-restarted") == "SII", "it was there, and was taken before it came back"
    assert log.predictions("i-old")["retrospective"].all()
    outcome = list_outcomes(log.engine, ACCOUNT).set_index("instance_id").loc["i-new"]
    assert (outcome["watched_until"], outcome["ended_by"], outcome["source"]) == (W, None, "fleet")
    with log.engine.connect() as connection:
        rows = labelled(connection, CHAMPION, horizon_h=6, since=W)
    assert rows["retrospective"].tolist() == [True, True, True]


def test_half_an_hour_is_not_late(log: Log) -> None:
    log.window(0, "i-1", scored=0.5, finished=0.6)
    log.window(1, "i-1", scored=0.501, finished=0.6)
    log.instance("i-1", launched=0.5, running=14)
    log.read(20)
    log.resolve()
    assert not log.predictions("i-1")["retrospective"].any()
    assert log.predictions("i-1", 1)["retrospective"].all()
    assert log.labels("i-1") == "SSS"


def performance(log: Log) -> list[tuple[int, int, int]]:
    """Predictions, resolved and interrupted of the champion at 1, 6 and 12 hours."""
    query = sa.text(
        "select predictions, resolved, interrupted from v_model_performance where model_version = :v order by horizon_h"
    )
    with log.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"v": CHAMPION})]


def test_performance_counts_an_interruption_no_sooner_than_the_survivals_of_its_window(log: Log) -> None:
    names = [f"i-{number}" for number in range(10)]
    log.window(0, *names)
    for name in names:
        log.instance(name, running=0.7)
    log.instance(names[0], running=0.5, ended=0.5)
    log.event(names[0], 0.5)
    log.read(0.7)
    log.resolve()
    assert performance(log) == [(10, 0, 0)] * 3
    for name in names[1:]:
        log.instance(name, running=6.5)
    log.read(6.5)
    log.resolve()
    assert performance(log) == [(10, 10, 1), (10, 10, 1), (10, 0, 0)]


def test_performance_takes_a_look_that_only_an_outcome_shows(log: Log) -> None:
    log.window(0, "i-1", "i-2")
    log.do(
        "insert into interruption_outcomes (account_id, window_start, instance_id, region, instance_type, az_id, "
        "product, interrupted_at, watched_until, source, settled) values "
        f"(:a, :w, 'i-1', {OUTCOME_POOL}, :taken, :taken, 'import', true), "
        f"(:a, :w, 'i-2', {OUTCOME_POOL}, null, :seen, 'import', true)",
        w=W, taken=hours(0.5), seen=hours(7),
    )  # fmt: skip
    assert performance(log) == [(2, 2, 1), (2, 2, 1), (2, 0, 0)]


def test_performance_leaves_past_windows_out(log: Log) -> None:
    log.window(0, "i-1")
    log.window(1, "i-1", details='{"retrospective": true}')
    log.window(2, "i-1", scored=3, finished=3.1)
    log.instance("i-1", running=20)
    log.read(30)
    log.resolve()
    assert performance(log) == [(1, 1, 0)] * 3


def test_performance_by_version_counts_its_own_outcomes(log: Log) -> None:
    log.window(0, "i-1", "i-2", "i-3")
    log.instance("i-1", ended=5)
    log.event("i-1", 5)
    log.instance("i-2", running=14)
    log.instance("i-3", running=0.1)
    log.read(20)
    log.resolve()
    query = sa.text("select * from v_model_performance where model_version = :v order by horizon_h")
    with log.engine.begin() as connection:
        found = connection.execute(query, {"v": CHAMPION}).mappings().all()
    assert [(row["predictions"], row["resolved"], row["interrupted"]) for row in found] == [
        (3, 2, 0), (3, 2, 1), (3, 2, 1),
    ]  # fmt: skip
    assert [float(row["brier"]) for row in found] == pytest.approx([0.01, (0.81 + 0.01) / 2, (0.81 + 0.01) / 2])


def test_a_large_log_is_read_by_index_once_and_joined_by_hash(engine: sa.Engine, owner: sa.Engine) -> None:
    register(owner)
    fill(owner, windows=40, instances=50, events=5000)
    now = datetime.now(UTC)
    with engine.connect() as connection:
        for setting in FOR_HASHING:
            connection.exec_driver_sql(f"set local {setting}")
        explained = sa.text(f"explain (analyze, timing off) {RESOLVE.text}")
        intervals = [sa.bindparam(name, type_=sa.Interval) for name in ("longest", "patience")]
        plan = "\n".join(connection.scalars(explained.bindparams(*intervals), values_of(ACCOUNT, now)))
    assert resolve_outcomes(engine, ACCOUNT, now).labels == 2000
    assert "Merge" not in plan
    for joined in ("i.instance_id", "s.instance_id"):
        assert f"Hash Cond: (l.instance_id = {joined})" in plan
    reads = [line for line in plan.splitlines() if " on experiment_logs" in line and "never executed" not in line]
    assert reads
    for line in reads:
        assert "Index Only Scan" in line, line
        assert int(line.split("loops=")[1].rstrip(")")) <= 40, "once for a window, not for an instance"


def test_a_time_without_a_zone_and_a_limit_out_of_bounds_are_refused(engine: sa.Engine) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        resolve_outcomes(engine, ACCOUNT, datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidInput, match="limit"):
        list_outcomes(engine, ACCOUNT, 0)
