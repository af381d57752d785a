"""Denials mark an account, marked accounts are left alone and tried again; and every step of it is on record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.accounts.access import next_try, skipped_accounts, store_verdict
from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import AccessDenied, AccountSkipped, SourceUnavailable
from spotlab_pipelines_tests.accounts.registering import audit_rows, count_calls, register, register_in_aws

A, B = "111122223333", "444455556666"
HOUR = 3600.0


def denied(sessions, account_id=A):
    """One refused opening of a session, whose error is returned."""
    with pytest.raises(AccessDenied) as caught:
        sessions.get_ec2_client(account_id, "us-east-1")
    return caught.value


def later(owner, hours):
    """Let the verdict of every account be this many hours old."""
    with owner.begin() as connection:
        connection.execute(
            sa.text("update accounts set access_checked_at = access_checked_at - make_interval(hours => :hours)"),
            {"hours": hours},
        )


def test_a_denial_is_not_retried(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A, denies="assume")
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    denied(AccountSessions(engine))
    assert len(calls) == 1


def test_a_denied_action_is_not_retried(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A, denies="actions")
    calls = count_calls(local_aws, monkeypatch, "DescribeInstances")
    with pytest.raises(AccessDenied):
        sync_fleet(AccountSessions(engine), engine, A)
    assert len(calls) == 1
    # Nor is it a denial of the role.
    assert get_account(engine, A).access_state == "unknown"


def test_after_three_denials_in_a_row_the_account_is_marked_with_the_reason(engine, local_aws):
    account = register_in_aws(engine, local_aws, A, denies="assume")
    for run in range(3):
        assert get_account(engine, A).access_state == "unknown"
        denied(AccountSessions(engine, run_id=f"r{run}"))
    marked = get_account(engine, A)
    assert marked.access_state == "access_broken"
    assert "not authorized to perform: sts:AssumeRole" in str(marked.access_reason)
    assert account.external_id.get_secret_value() not in str(marked.access_reason)
    (entry,) = audit_rows(engine, "access_broken")
    assert (entry["actor"], entry["account_id"], entry["details"]["denials"]) == ("run:r2", A, 3)


def test_a_success_in_between_starts_the_count_anew(engine, local_aws):
    register_in_aws(engine, local_aws, A, denies="assume")
    sessions = AccountSessions(engine)
    for _ in range(2):
        denied(sessions)
    local_aws.set_denies(A, None)
    sessions.get_ec2_client(A, "us-east-1")
    local_aws.set_denies(A, "assume")
    for _ in range(2):
        denied(AccountSessions(engine))
    assert get_account(engine, A).access_state == "unknown"


def test_how_many_denials_it_takes_is_a_setting(engine, local_aws):
    register_in_aws(engine, local_aws, A, denies="assume")
    denied(AccountSessions(engine, denials_max=1))
    assert get_account(engine, A).access_state == "access_broken"


@pytest.mark.parametrize("state", ["lax", "access_broken"])
def test_a_marked_account_is_refused_by_name_without_asking_aws(engine, local_aws, monkeypatch, state):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine, retry_s=HOUR)
    sessions.get_ec2_client(A, "us-east-1")
    store_verdict(engine, A, state, "A reason.", actor=None)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    for ask in (sessions.get_ec2_client, sessions.get_pricing_client, sessions.get_cross_account_session):
        with pytest.raises(AccountSkipped, match=f"{A} is skipped until .* {state}: A reason"):
            ask(A, "us-east-1")
    assert calls == []


@pytest.mark.parametrize("state", ["lax", "access_broken"])
def test_a_client_that_is_held_gets_no_new_keys_for_a_marked_account(engine, local_aws, monkeypatch, state):
    register_in_aws(engine, local_aws, A)
    client = AccountSessions(engine, retry_s=HOUR).get_ec2_client(A, "us-east-1")
    store_verdict(engine, A, state, "A reason.", actor=None)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    local_aws.expire_sessions(A)
    with pytest.raises(AccountSkipped, match=f"{state}: A reason"):
        client.describe_availability_zones()
    assert calls == []


def test_a_broken_account_is_tried_again_on_a_slow_schedule_and_goes_on_once_it_is_well(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A, denies="assume")
    sessions = AccountSessions(engine, denials_max=1, retry_s=6 * HOUR)
    denied(sessions)
    local_aws.set_denies(A, None)
    later(owner, 5)
    assert isinstance(denied(sessions), AccountSkipped)
    later(owner, 2)
    assert len(sync_fleet(sessions, engine, A)) == 2
    assert get_account(engine, A).access_state == "ok"
    assert get_account(engine, A).access_reason is None


def test_an_account_that_is_still_broken_waits_again(engine, local_aws, owner, monkeypatch):
    register_in_aws(engine, local_aws, A, denies="assume")
    sessions = AccountSessions(engine, denials_max=1, retry_s=6 * HOUR)
    denied(sessions)
    later(owner, 7)
    assert isinstance(denied(sessions), AccountSkipped)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    assert isinstance(denied(sessions), AccountSkipped)
    assert calls == []


def test_sixteen_threads_try_a_due_account_once(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A)
    store_verdict(engine, A, "access_broken", "A reason.", actor=None)
    later(owner, 7)
    sessions = AccountSessions(engine)
    with ThreadPoolExecutor(16) as pool:
        clients = set(pool.map(lambda _: id(sessions.get_ec2_client(A, "us-east-1")), range(32)))
    assert len(clients) == 1
    # The first is the mark itself.
    assert [row["outcome"] for row in audit_rows(engine, "validate_access")] == ["refused", "done"]


@pytest.mark.parametrize("code", ["AccessDenied", "InternalFailure", "InvalidClientTokenId"])
def test_a_renewal_that_failed_is_not_asked_for_at_every_call_while_the_old_keys_are_good(
    engine, local_aws, monkeypatch, code
):
    """botocore asks anew at each call from 15 minutes before the end, and goes on with what it has."""
    register_in_aws(engine, local_aws, A)
    local_aws.shorten_sessions(14 * 60)
    sessions = AccountSessions(engine)
    client = sessions.get_ec2_client(A, "us-east-1")
    # An InternalFailure with this status is not retried by botocore itself.
    local_aws.add_fault("AssumeRole", times=None, code=code)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    for _ in range(5):
        assert client.describe_availability_zones()["AvailabilityZones"]
    assert len(calls) == 1
    assert get_account(engine, A).access_state == "unknown"


def test_a_lax_account_is_let_in_only_when_its_door_is_shut_to_others(engine, local_aws, owner):
    account = register_in_aws(engine, local_aws, A, external_id=None)
    sessions = AccountSessions(engine, retry_s=6 * HOUR)
    assert sessions.validate_account_access(A).verdict == "lax"
    later(owner, 7)
    # AWS would grant it: that is what is wrong.
    assert isinstance(denied(sessions), AccountSkipped)
    later(owner, 7)
    local_aws.add_account(A, external_id=account.external_id.get_secret_value())
    assert sessions.get_ec2_client(A, "us-east-1") is not None
    assert get_account(engine, A).access_state == "ok"


@pytest.mark.parametrize("door", [{"external_id": None}, {}])
def test_before_the_first_session_the_door_is_tried(engine, local_aws, monkeypatch, door):
    """An account that nobody validated is not entered if its role lets others in as well."""
    register_in_aws(engine, local_aws, A, door="never tried", **door)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)
    if door:
        assert "lax: AWS lets SpotLab assume" in str(denied(sessions))
        assert (get_account(engine, A).access_state, len(calls)) == ("lax", 1)
        return
    assert sessions.get_ec2_client(A, "us-east-1") is not None
    assert len(calls) == 3
    AccountSessions(engine).get_ec2_client(A, "us-east-1")
    assert len(calls) == 4
    (entry,) = audit_rows(engine, "validate_access")
    assert (entry["outcome"], entry["details"]) == ("done", {"door": "shut"})


def test_a_door_that_was_seen_shut_is_tried_again_the_next_day(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine, recheck_s=24 * HOUR)
    assert sessions.validate_account_access(A).verdict == "ok"
    local_aws.add_account(A, external_id=None)
    later(owner, 23)
    sessions.get_ec2_client(A, "us-east-1")
    later(owner, 2)
    # Although there are good keys and a client.
    assert isinstance(denied(sessions), AccountSkipped)
    assert get_account(engine, A).access_state == "lax"


def test_while_the_door_cannot_be_tried_nobody_goes_in(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sessions.get_ec2_client(A, "us-east-1")
    later(owner, 25)
    local_aws.add_fault("AssumeRole", times=1, code="InternalFailure")
    with pytest.raises(SourceUnavailable):
        sessions.get_ec2_client(A, "us-east-1")
    assert get_account(engine, A).access_state == "unknown"
    assert sessions.get_ec2_client(A, "us-east-1") is not None


def test_a_disabled_account_is_not_entered_and_a_held_client_gets_no_new_keys(engine, local_aws, owner, monkeypatch):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    client = sessions.get_ec2_client(A, "us-east-1")
    with owner.begin() as connection:
        connection.execute(sa.text("update accounts set state = 'disabled'"))
    later(owner, 25)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    assert "is disabled" in str(denied(sessions))
    local_aws.expire_sessions(A)
    with pytest.raises(AccountSkipped, match="is disabled"):
        client.describe_availability_zones()
    assert calls == []


def test_denials_do_not_wash_a_lax_mark_away(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A, external_id=None)
    sessions = AccountSessions(engine, denials_max=1, retry_s=HOUR)
    sessions.validate_account_access(A)
    assumption = sessions.assumption(get_account(engine, A))
    local_aws.set_trust_policy(A, {"Version": "2012-10-17", "Statement": []})
    with pytest.raises(AccessDenied):
        assumption.fetch()
    assert get_account(engine, A).access_state == "lax"
    with pytest.raises(AccessDenied):
        assumption.fetch()


def test_who_is_skipped_now_is_one_query(engine):
    for account_id in (A, B, "777788889999"):
        register(engine, account_id)
    store_verdict(engine, A, "access_broken", "Denied.", actor=None)
    store_verdict(engine, B, "ok", None, actor=None)
    now = datetime.now(UTC)
    assert skipped_accounts(engine, now, retry_s=HOUR) == {A: "access_broken: Denied."}
    assert skipped_accounts(engine, now + timedelta(hours=2), retry_s=HOUR) == {}
    due = next_try(get_account(engine, A), HOUR)
    assert due is not None
    assert timedelta(minutes=59) < due - now < timedelta(minutes=61)
    assert next_try(get_account(engine, B), HOUR) is None


def test_every_assume_role_is_on_record_once_per_fetch(engine, local_aws):
    account = register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine, run_id="run-1")
    client = sessions.get_ec2_client(A, "us-east-1")
    client.describe_availability_zones()
    sessions.get_pricing_client(A, "us-east-1")
    local_aws.expire_sessions(A)
    client.describe_availability_zones()
    local_aws.set_denies(A, "assume")
    denied(AccountSessions(engine, run_id="run-2"))
    rows = audit_rows(engine, "assume_role")
    assert [(row["actor"], row["outcome"]) for row in rows] == [
        ("run:run-1", "done"),
        ("run:run-1", "done"),
        ("run:run-2", "refused"),
    ]
    assert all(row["account_id"] == A and row["request_id"] for row in rows)
    assert rows[0]["details"] == {
        "role": account.role_arn,
        "session_policy": "read",
        "session_name": "spotlab-run-1",
    }
    assert "AssumeRole" in rows[2]["reason"]


def test_without_an_audit_row_there_is_no_session(engine, local_aws, owner):
    register_in_aws(engine, local_aws, A)
    with owner.begin() as connection:
        connection.execute(sa.text("revoke insert on audit_log from spotlab_pipeline"))
    sessions = AccountSessions(engine)
    for _ in range(2):
        with pytest.raises(ProgrammingError):
            sessions.get_ec2_client(A, "us-east-1")
