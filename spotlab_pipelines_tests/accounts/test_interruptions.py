"""An interruption counts once, whichever sources tell of it and however often; a second one of the instance counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from moto.ec2.models import ec2_backends

from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.frames import ENDING_COLUMNS, TIME
from spotlab_pipelines.accounts.interruptions import SOURCES, StateReasonEndings, endings_of_requests, record_endings
from spotlab_pipelines.accounts.past import remember_past, sync_fleet_and_past
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.spot_requests import INTERRUPTED_CODES, read_spot_requests
from spotlab_pipelines.database.tables import EVENT_SOURCES
from spotlab_pipelines_tests.accounts.registering import register_in_aws
from spotlab_pipelines_tests.features.seeded import ACCOUNT, seed_account, seeded_market
from spotlab_pipelines_tests.local_aws.server import LocalAws

NOW = datetime(2026, 2, 1, tzinfo=UTC)
FIRST, SECOND = (f"i-{n:017x}" for n in (0, 1))


@pytest.fixture
def fleet(engine: sa.Engine) -> sa.Engine:
    """Two instances that run since 2026-01-01."""
    seed_account(engine, seeded_market(now=NOW), instances=2)
    return engine


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def endings(*rows: tuple[str, float | None, bool]) -> pd.DataFrame:
    """Endings: instance, minutes after NOW, whether it was interrupted."""
    frame = pd.DataFrame(
        [
            (name, "us-east-1", "use1-az1", "m0.s0", "Linux/UNIX", None, "told", taken, None if m is None else at(m))
            for name, m, taken in rows
        ],
        columns=list(ENDING_COLUMNS),
    )
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"], utc=True).astype(TIME)
    return frame


def do(engine: sa.Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def events(engine: sa.Engine) -> list[tuple[str, int, str, datetime]]:
    query = "select instance_id, number, source, occurred_at from interruption_events order by instance_id, number"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_two_sources_and_a_notice_tell_of_one_interruption(fleet: sa.Engine) -> None:
    assert record_endings(fleet, ACCOUNT, "spot_request", endings((FIRST, 0, True)), read_at=at(1)) == 1
    for source, minutes in (("spot_request", 2), ("state_reason", 3), ("state_reason", None), ("eventbridge", -2)):
        assert record_endings(fleet, ACCOUNT, source, endings((FIRST, minutes, True)), read_at=at(60)) == 0
    assert (
        record_endings(fleet, ACCOUNT, "eventbridge", endings((SECOND, 1, True), (SECOND, 3, True)), read_at=NOW) == 1
    )
    assert events(fleet) == [(FIRST, 1, "spot_request", at(0)), (SECOND, 1, "eventbridge", at(1))]


def test_an_instance_that_was_started_again_may_be_interrupted_again(fleet: sa.Engine) -> None:
    record_endings(fleet, ACCOUNT, "spot_request", endings((FIRST, 0, True)), read_at=at(1))
    assert record_endings(fleet, ACCOUNT, "state_reason", endings((FIRST, 90, True)), read_at=at(91)) == 0, "not known"
    do(fleet, "update instances set launched_at = :t where instance_id = :i", t=at(60), i=FIRST)
    assert record_endings(fleet, ACCOUNT, "spot_request", endings((FIRST, 1, True)), read_at=at(61)) == 0
    for _ in range(2):
        record_endings(fleet, ACCOUNT, "state_reason", endings((FIRST, 90, True)), read_at=at(91))
    assert [row[1:] for row in events(fleet)] == [(1, "spot_request", at(0)), (2, "state_reason", at(90))]


def test_a_time_that_nobody_tells_is_when_the_instance_was_missed_or_else_now(fleet: sa.Engine) -> None:
    do(fleet, "update instances set state = 'terminated', ended_at = :t where instance_id = :i", t=at(5), i=FIRST)
    told = endings((FIRST, None, True), (SECOND, None, True))
    assert record_endings(fleet, ACCOUNT, "state_reason", told, read_at=at(9)) == 2
    assert [row[3] for row in events(fleet)] == [at(5), at(9)]


def test_who_ended_an_instance_is_told_once_and_only_of_one_that_is_gone(fleet: sa.Engine) -> None:
    do(fleet, "update instances set state = 'terminated', ended_at = :t where instance_id = :i", t=at(5), i=FIRST)
    told = endings((FIRST, 3, False), (SECOND, 3, False))
    for source in ("state_reason", "spot_request"):
        assert record_endings(fleet, ACCOUNT, source, told, read_at=at(9)) == 0
    with fleet.connect() as connection:
        rows = connection.execute(
            sa.text("select ended_by, ended_source, ended_at from instances order by instance_id")
        ).all()
    assert rows == [("owner", "state_reason", at(3)), (None, None, None)]
    assert events(fleet) == []


def ends(engine: sa.Engine) -> list[tuple[str | None, datetime | None]]:
    with engine.connect() as connection:
        query = sa.text("select ended_by, ended_at from instances order by instance_id")
        return [tuple(row) for row in connection.execute(query)]


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_an_instance_that_its_owner_stopped_is_ended_by_its_owner_until_it_runs_again(
    fleet: sa.Engine, state: str
) -> None:
    do(fleet, "update instances set state = :s, launched_at = :t, last_running_at = :t", s=state, t=at(0))
    told = endings((FIRST, 3, False), (SECOND, -3, False))
    assert record_endings(fleet, ACCOUNT, "spot_request", told, read_at=at(9)) == 0
    assert ends(fleet) == [("owner", at(3)), (None, None)], "the second one's stop was before it was started again"


def test_an_end_whose_time_nobody_tells_was_when_the_instance_was_last_seen_running(fleet: sa.Engine) -> None:
    do(fleet, "update instances set last_running_at = :t", t=at(1))
    do(fleet, "update instances set state = 'terminated', ended_at = :t where instance_id = :i", t=at(5), i=FIRST)
    do(fleet, "update instances set state = 'stopped' where instance_id = :i", i=SECOND)
    told = endings((FIRST, None, False), (SECOND, None, False))
    assert record_endings(fleet, ACCOUNT, "state_reason", told, read_at=at(9)) == 0
    assert ends(fleet) == [("owner", at(1)), ("owner", at(1))]


def test_these_status_codes_are_interruptions() -> None:
    """By the EC2 user guide's table; `-oversubscribed` are its codes of earlier years."""
    assert {
        "marked-for-stop", "marked-for-termination",
        "instance-stopped-by-price", "instance-stopped-no-capacity", "instance-stopped-capacity-oversubscribed",
        "instance-terminated-by-price", "instance-terminated-no-capacity",
        "instance-terminated-capacity-oversubscribed", "instance-terminated-launch-group-constraint",
    } == INTERRUPTED_CODES  # fmt: skip


def test_an_instance_that_was_terminated_while_stopped_says_nothing_of_who_stopped_it_and_when(
    engine: sa.Engine, local_aws: LocalAws
) -> None:
    account = get_account(engine, register_in_aws(engine, local_aws).account_id)
    sessions = AccountSessions(engine)
    running = sync_fleet(sessions, engine, account.account_id)
    [spot] = running.loc[running["lifecycle"] == "spot", "instance_id"]
    local_aws.interrupt(account.account_id, "us-east-1", spot, status_code="instance-terminated-by-service")
    requests = read_spot_requests(sessions, account)
    [told] = requests[requests["instance_id"] == spot].to_dict("records")
    assert (told["status_code"], told["interrupted"]) == ("instance-terminated-by-service", False)
    assert spot not in set(endings_of_requests(requests)["instance_id"])
    sync_fleet(sessions, engine, account.account_id)
    remember_past(engine, account.account_id, requests)
    with engine.connect() as connection:
        query = sa.text("select state, ended_by from instances where instance_id = :i")
        assert connection.execute(query, {"i": spot}).one() == ("terminated", None)


def test_sources_tell_of_the_same_interruption_of_a_real_instance(engine: sa.Engine, local_aws: LocalAws) -> None:
    account = get_account(engine, register_in_aws(engine, local_aws).account_id)
    sessions = AccountSessions(engine)
    running = sync_fleet(sessions, engine, account.account_id)
    [spot] = running.loc[running["lifecycle"] == "spot", "instance_id"]
    assert StateReasonEndings().read(sessions, account).empty
    local_aws.interrupt(account.account_id, "us-east-1", spot)
    sync_fleet_and_past(sessions, engine, account.account_id)
    told = {source.name: source.read(sessions, account) for source in SOURCES}
    assert set(told) <= set(EVENT_SOURCES)
    for name, frame in told.items():
        mine = frame[frame["instance_id"] == spot].iloc[0]
        assert mine["interrupted"], name
        assert abs(mine["occurred_at"] - pd.Timestamp(datetime.now(UTC))) < timedelta(minutes=2), name
    (reason,) = told["state_reason"]["code"]
    assert reason == "Server.SpotInstanceTermination"
    new = [
        record_endings(engine, account.account_id, name, frame, read_at=datetime.now(UTC))
        for name, frame in (*told.items(), *told.items())
    ]
    assert new[0] >= 1
    assert new[1:] == [0, 0, 0]


def test_what_is_known_of_a_stop_holds_until_the_instance_runs_again(engine: sa.Engine, local_aws: LocalAws) -> None:
    account = register_in_aws(engine, local_aws).account_id
    sessions = AccountSessions(engine)
    running = sync_fleet(sessions, engine, account)
    [spot] = running.loc[running["lifecycle"] == "spot", "instance_id"]
    do(engine, "update instances set launched_at = :t, last_running_at = :t", t=at(0))
    backend = ec2_backends[account]["us-east-1"]
    query = sa.text("select state, ended_by, ended_at from instances where instance_id = :i")

    def found() -> tuple[str, str | None, datetime | None]:
        sync_fleet(sessions, engine, account)
        with engine.connect() as connection:
            return tuple(connection.execute(query, {"i": spot}).one())

    backend.stop_instances([spot])
    assert found() == ("stopped", None, None)
    now = datetime.now(UTC)
    told = endings((spot, (now - NOW) / timedelta(minutes=1), False))
    record_endings(engine, account, "state_reason", told, read_at=now)
    assert found() == ("stopped", "owner", now)
    backend.start_instances([spot])
    assert found() == ("running", None, None)
    backend.stop_instances([spot])
    assert found() == ("stopped", None, None)
    record_endings(engine, account, "state_reason", told, read_at=now)
    backend.terminate_instances([spot])
    assert found() == ("terminated", "owner", now), "it ran no longer for being terminated later"


def test_an_owner_who_terminates_an_instance_interrupts_nothing(engine: sa.Engine, local_aws: LocalAws) -> None:
    account = get_account(engine, register_in_aws(engine, local_aws).account_id)
    sessions = AccountSessions(engine)
    running = sync_fleet(sessions, engine, account.account_id)
    [spot] = running.loc[running["lifecycle"] == "spot", "instance_id"]
    ec2_backends[account.account_id]["us-east-1"].terminate_instances(list(running["instance_id"]))
    (row,) = StateReasonEndings().read(sessions, account).to_dict("records")
    assert (row["instance_id"], row["interrupted"], row["code"]) == (spot, False, "Client.UserInitiatedShutdown")
