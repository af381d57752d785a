"""Many threads, many accounts: one AssumeRole for all, nobody waits for another's throttling, nobody's keys mix."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from spotlab_pipelines.accounts import renewal
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.zones import availability_zones
from spotlab_pipelines.errors import AccountSkipped, Throttled
from spotlab_pipelines_tests.accounts.registering import audit_rows, count_calls, register_in_aws

A, B = "111122223333", "444455556666"
THREADS, CALLS, EVERY = 16, 500, 25


def test_sixteen_threads_times_five_hundred_calls_assume_the_role_once(engine, local_aws, monkeypatch):
    """Each of the 8,000 calls asks for its client; every 25th also asks AWS who it is talking to."""
    register_in_aws(engine, local_aws, A)
    assumed = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)
    start = threading.Barrier(THREADS)

    def work(_):
        start.wait()
        clients, zones = set(), 0
        for call in range(CALLS):
            client = sessions.get_ec2_client(A, "us-east-1")
            clients.add(id(client))
            if call % EVERY == 0:
                zones += bool(client.describe_availability_zones()["AvailabilityZones"])
        return clients, zones

    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(work, range(THREADS)))
    took = time.monotonic() - began
    assert len(set().union(*(clients for clients, _ in done))) == 1
    assert sum(zones for _, zones in done) == THREADS * CALLS / EVERY
    assert len(assumed) <= 2
    assert len(audit_rows(engine, "assume_role")) == len(assumed)
    # On a slow and busy machine it has taken a minute; what waits for ever takes longer.
    assert took < 150


def test_threads_that_meet_a_denying_role_do_not_wait_for_each_other_for_ever(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A, denies="assume")
    assumed = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)

    def work(_):
        try:
            sessions.get_ec2_client(A, "us-east-1")
        except AccountSkipped:
            return "skipped"
        except Exception as error:
            return type(error).__name__
        return "in"

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(work, range(64)))
    assert set(outcomes) == {"AccessDenied", "skipped"}
    # The third marks the account; those that were admitted before may still be denied.
    assert 3 <= len(assumed) <= THREADS + 3


def test_throttling_waits_with_jitter_and_delays_only_its_own_account(engine, local_aws, monkeypatch):
    for account_id in (A, B):
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)
    for account_id in (A, B):
        sessions.get_ec2_client(account_id, "us-east-1")
    local_aws.add_fault("DescribeAvailabilityZones", times=None, account_id=A, code="RequestLimitExceeded", status=503)
    asked: list[tuple[str, float]] = []
    take = local_aws.app.faults.take

    def watching(action, **where):
        if action == "DescribeAvailabilityZones":
            asked.append((where["account_id"], time.monotonic()))
        return take(action, **where)

    monkeypatch.setattr(local_aws.app.faults, "take", watching)

    def throttled():
        with pytest.raises(Throttled, match=f"DescribeAvailabilityZones of account {A}"):
            availability_zones(sessions, A, "us-east-1")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(throttled) for _ in range(2)]
        while sum(account_id == A for account_id, _ in asked) < 2:
            time.sleep(0.005)
        began = time.monotonic()
        for _ in range(5):
            assert availability_zones(sessions, B, "us-east-1")
        took = time.monotonic() - began
        assert not all(each.done() for each in waiting)
        for each in waiting:
            each.result()
    of_a = [at for account_id, at in asked if account_id == A]
    assert len(of_a) == 2 * 4
    gaps = [later - earlier for earlier, later in pairwise(of_a)]
    assert len({round(gap, 3) for gap in gaps}) > 3
    assert took < (of_a[-1] - of_a[0])


def test_an_sts_that_keeps_one_account_waiting_delays_only_that_one(engine, local_aws):
    for account_id in (A, B):
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)
    local_aws.add_fault("AssumeRole", times=1, latency_s=3.0)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(sessions.get_ec2_client, A, "us-east-1")
        while local_aws.app.faults.pending:
            time.sleep(0.005)
        assert sessions.get_ec2_client(B, "us-east-1") is not None
        assert not slow.done()
        assert slow.result() is not None


def test_every_account_is_met_with_its_own_keys_only(engine, local_aws, monkeypatch):
    monkeypatch.setattr(renewal, "RENEW_AGAIN_AFTER_S", 0)
    accounts = [A, B, "777788889999"]
    for account_id in accounts:
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)

    def who(account_id):
        session = sessions.get_cross_account_session(account_id, "us-east-1")
        return account_id, session.client("sts").get_caller_identity()["Account"]

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(3):
            met = list(pool.map(who, accounts * 16))
            assert all(wanted == came for wanted, came in met)
            for account_id in accounts:
                local_aws.expire_sessions(account_id)
