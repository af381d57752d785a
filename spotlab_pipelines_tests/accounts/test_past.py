"""Which instances ran when: from syncs, and from the Spot requests of before the account was connected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import load_fleet
from spotlab_pipelines.accounts.frames import SPOT_REQUEST_COLUMNS, check_frame, fleet_schema
from spotlab_pipelines.accounts.past import fleet_at, remember_past, sync_fleet_and_past
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines_tests.accounts.registering import register_in_aws
from spotlab_pipelines_tests.features.seeded import ACCOUNT, seed_account, seeded_market
from spotlab_pipelines_tests.local_aws.server import LocalAws

NOW = datetime(2026, 2, 1, tzinfo=UTC)
"""The seeded fleet was launched on 2026-01-01."""


def ago(hours: float) -> pd.Timestamp:
    return pd.Timestamp(NOW - timedelta(hours=hours)).as_unit("us")


def requests(*rows: tuple[str, float, float | None]) -> pd.DataFrame:
    """Spot requests: instance id, hours since it was created and since it ended."""
    frame = pd.DataFrame(
        [
            (f"sir-{i}", name, "us-east-1", "use1-az1", "m0.s0", "Linux/UNIX", ago(began),
             None if ended is None else ago(ended), ended is not None, "instance-terminated-no-capacity")
            for i, (name, began, ended) in enumerate(rows)
        ],
        columns=list(SPOT_REQUEST_COLUMNS),
    )  # fmt: skip
    return frame.assign(ended_at=pd.to_datetime(frame["ended_at"], utc=True).dt.as_unit("us"))


@pytest.fixture
def fleet(engine: sa.Engine) -> sa.Engine:
    """Two instances that run: i-…0 and i-…1."""
    seed_account(engine, seeded_market(now=NOW), instances=2)
    return engine


def present(engine: sa.Engine, hours: float) -> list[str]:
    found = check_frame(fleet_schema(), fleet_at(engine, ACCOUNT, NOW - timedelta(hours=hours)), "a past fleet")
    assert (found["state"] == "running").all()
    return [name[-1:] for name in found["instance_id"]]


def test_an_instance_is_there_from_its_launch_until_its_end(fleet: sa.Engine) -> None:
    remember_past(
        fleet, ACCOUNT, requests((f"i-{10:017x}", 20, 10), (f"i-{11:017x}", 15, 5), (f"i-{12:017x}", 9, None))
    )
    expected = {25: "01", 20: "01a", 15: "01ab", 10.1: "01ab", 10: "01b", 5: "01", 0: "01"}
    assert {hours: "".join(present(fleet, hours)) for hours in expected} == expected
    assert present(fleet, 24 * 40) == [], "before their launch"
    assert len(load_fleet(fleet, ACCOUNT)) == 2, "the present is not changed"


def test_a_request_corrects_the_end_that_a_sync_noted_late_and_never_what_is_still_there(fleet: sa.Engine) -> None:
    with fleet.begin() as connection:
        noted = sa.text("update instances set state = 'terminated', ended_at = :at where instance_id = :id")
        connection.execute(noted, {"at": NOW, "id": f"i-{0:017x}"})
    told = requests((f"i-{0:017x}", 24 * 31, 3), (f"i-{1:017x}", 24 * 31, 3))
    for _ in range(2):
        remember_past(fleet, ACCOUNT, told)
        assert [present(fleet, hours) for hours in (4, 3, 2)] == [["0", "1"], ["1"], ["1"]]
    remember_past(fleet, ACCOUNT, requests((f"i-{0:017x}", 24 * 31, 1)))
    assert present(fleet, 2) == ["1"], "a later end is no better"


def test_a_sync_knows_the_past_of_an_account_that_was_connected_today(engine: sa.Engine, local_aws: LocalAws) -> None:
    account = register_in_aws(engine, local_aws).account_id
    sessions = AccountSessions(engine)
    running = sync_fleet_and_past(sessions, engine, account)
    then = datetime.now(UTC) - timedelta(days=3)
    past = fleet_at(engine, account, then)
    assert len(past), "Spot instances that ended before the account was connected"
    assert not set(past["instance_id"]) & set(running["instance_id"]), "what runs was launched just now"
    [gone] = running.loc[running["lifecycle"] == "spot", "instance_id"]
    [kept] = running.loc[running["lifecycle"] == "on-demand", "instance_id"]
    local_aws.interrupt(account, "us-east-1", gone)
    sync_fleet_and_past(sessions, engine, account)
    now = fleet_at(engine, account, datetime.now(UTC))["instance_id"]
    assert kept in set(now)
    assert gone not in set(now)
    ended = sa.text("select now() - ended_at < interval '1 minute' from instances where instance_id = :i")
    with engine.connect() as connection:
        assert connection.scalar(ended, {"i": gone})
