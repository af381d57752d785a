"""Sessions against the local AWS: no entry without our external id, never into another account, one AssumeRole."""

import json
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from spotlab_pipelines.accounts import renewal
from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.rules import partition_of
from spotlab_pipelines.accounts.sessions import AccountSessions, own_account_id
from spotlab_pipelines.accounts.zones import availability_zones
from spotlab_pipelines.errors import AccessDenied, InvalidInput, NotFound, SourceUnavailable, Throttled, WrongAccount
from spotlab_pipelines_tests.accounts.registering import audit_rows, count_calls, register, register_in_aws

A, B = "111122223333", "444455556666"
IDENTITY_OF_B = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    f"<Arn>arn:aws:sts::{B}:assumed-role/SpotLab/x</Arn><UserId>AROA:x</UserId><Account>{B}</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)


def test_a_session_is_in_the_account(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    session = AccountSessions(engine).get_cross_account_session(A, "us-east-1")
    identity = session.client("sts").get_caller_identity()
    assert identity["Account"] == A
    assert session.region_name == "us-east-1"


def test_the_role_session_carries_the_run_id(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    session = AccountSessions(engine, run_id="run/77").get_cross_account_session(A, "us-east-1")
    assert session.client("sts").get_caller_identity()["Arn"].endswith(":assumed-role/SpotLab/spotlab-run-77")


def test_a_role_that_demands_another_external_id_is_denied(engine, local_aws):
    register_in_aws(engine, local_aws, A, external_id="another-external-id-of-someone")
    with pytest.raises(AccessDenied, match=f"{A}.*trust policy"):
        AccountSessions(engine).get_ec2_client(A, "us-east-1")


def test_a_role_that_denies_us_is_denied_and_other_accounts_go_on(engine, local_aws):
    register_in_aws(engine, local_aws, A, denies="assume")
    register_in_aws(engine, local_aws, B)
    sessions = AccountSessions(engine)
    with pytest.raises(AccessDenied, match=A):
        sync_fleet(sessions, engine, A)
    assert len(sync_fleet(sessions, engine, B)) == 2


def test_a_role_that_may_do_nothing_is_denied_by_the_action(engine, local_aws):
    register_in_aws(engine, local_aws, A, denies="actions")
    with pytest.raises(AccessDenied, match="DescribeAvailabilityZones"):
        availability_zones(AccountSessions(engine), A, "us-east-1")


def test_an_account_that_is_not_registered_is_not_found(engine, local_aws):
    with pytest.raises(NotFound, match=A):
        AccountSessions(engine).get_ec2_client(A, "us-east-1")


def test_a_session_of_another_account_is_refused(engine, local_aws, monkeypatch):
    """Behind a proxy that answers for another account, the session is dropped before anything is read."""
    account = register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    local_aws.add_fault("GetCallerIdentity", status=200, body=IDENTITY_OF_B)
    with pytest.raises(WrongAccount, match=f"{A} led to account {B}"):
        sessions.get_ec2_client(account.account_id, "us-east-1")
    assert sessions.get_ec2_client(account.account_id, "us-east-1") is not None


def test_sixteen_threads_make_one_assume_role_and_share_a_client(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)

    def zones(_):
        client = sessions.get_ec2_client(A, "us-east-1")
        client.describe_availability_zones()
        return id(client)

    with ThreadPoolExecutor(16) as pool:
        clients = set(pool.map(zones, range(64)))
    assert len(clients) == 1
    assert len(calls) == 1


def test_accounts_never_share_credentials(engine, local_aws):
    for account_id in (A, B):
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)
    fleets = [sync_fleet(sessions, engine, account_id) for account_id in (A, B)]
    assert not set(fleets[0]["instance_id"]) & set(fleets[1]["instance_id"])


def test_throttling_that_lasts_is_named(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sessions.get_ec2_client(A, "us-east-1")
    local_aws.add_fault("DescribeAvailabilityZones", times=None, code="RequestLimitExceeded", status=503)
    with pytest.raises(Throttled, match="DescribeAvailabilityZones"):
        availability_zones(sessions, A, "us-east-1")


def test_a_hiccup_is_retried(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    local_aws.add_fault("DescribeAvailabilityZones", times=1, code="InternalError", status=500)
    assert availability_zones(AccountSessions(engine), A, "us-east-1")["us-east-1a"].startswith("use1-az")


def test_an_endpoint_that_is_down_is_unavailable(engine, local_aws, monkeypatch):
    register(engine, A)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="AWS_ENDPOINT_URL"):
        AccountSessions(engine).get_ec2_client(A, "us-east-1")


def test_without_credentials_of_our_own_the_error_says_so(engine, local_aws, monkeypatch):
    register(engine, A)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AccessDenied, match="no AWS credentials of its own"):
        AccountSessions(engine).get_ec2_client(A, "us-east-1")


def test_a_profile_that_does_not_exist_is_named(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    monkeypatch.setenv("AWS_PROFILE", "typo")
    sessions = AccountSessions(engine)
    for ask in (
        own_account_id,
        lambda: sessions.get_ec2_client(A, "us-east-1"),
        lambda: sessions.get_cross_account_session(A, "us-east-1"),
    ):
        with pytest.raises(AccessDenied, match=r"typo.*Correct AWS_PROFILE"):
            ask()


def test_credentials_are_renewed_before_they_expire_and_not_sooner(engine, local_aws, monkeypatch):
    """botocore renews from 15 minutes before the end; this session passes that point some seconds after its start."""
    register_in_aws(engine, local_aws, A)
    local_aws.shorten_sessions(15 * 60 + 5)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)
    client = sessions.get_ec2_client(A, "us-east-1")
    for _ in range(3):
        client.describe_availability_zones()
    assert len(calls) == 1
    time.sleep(5.5)
    local_aws.shorten_sessions(None)
    client.describe_availability_zones()
    assert len(calls) == 2
    client.describe_availability_zones()
    assert availability_zones(sessions, A, "us-east-1")
    assert len(calls) == 2


def test_a_session_whose_old_credentials_have_ended_goes_on_with_the_new_ones(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    local_aws.shorten_sessions(2)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    sessions = AccountSessions(engine)
    client = sessions.get_ec2_client(A, "us-east-1")
    opened = len(calls)
    time.sleep(2.1)
    local_aws.shorten_sessions(None)
    assert client.describe_availability_zones()["AvailabilityZones"]
    assert len(calls) == opened + 1


def test_keys_that_end_in_mid_run_are_renewed_once_and_the_call_goes_on(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    client = sessions.get_ec2_client(A, "us-east-1")
    local_aws.expire_sessions(A)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    assert client.describe_availability_zones()["AvailabilityZones"]
    assert len(calls) == 1


@pytest.fixture
def often(monkeypatch):
    """Let keys be renewed out of turn as often as AWS asks for it: a test does not last a minute."""
    monkeypatch.setattr(renewal, "RENEW_AGAIN_AFTER_S", 0)


def test_keys_that_were_renewed_a_moment_ago_are_not_renewed_again(engine, local_aws, monkeypatch):
    """A region that is not enabled says AuthFailure to any keys: that must not assume the role at each call."""
    register_in_aws(engine, local_aws, A)
    client = AccountSessions(engine).get_ec2_client(A, "us-east-1")
    local_aws.add_fault("DescribeInstances", times=None, code="AuthFailure", status=401)
    assumed = count_calls(local_aws, monkeypatch, "AssumeRole")
    for _ in range(3):
        with pytest.raises(ClientError, match="AuthFailure"):
            client.describe_instances()
    assert len(assumed) == 1


def test_revoked_keys_are_dropped_at_the_first_denial_and_the_next_call_is_made_with_new_ones(
    engine, local_aws, monkeypatch
):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    ec2, pricing = sessions.get_ec2_client(A, "us-east-1"), sessions.get_pricing_client(A, "us-east-1")
    ec2.describe_availability_zones()
    local_aws.revoke_sessions(A)
    assumed = count_calls(local_aws, monkeypatch, "AssumeRole")
    asked = count_calls(local_aws, monkeypatch, "DescribeAvailabilityZones")
    # Young keys are denied for another reason than their age.
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        ec2.describe_availability_zones()
    with pytest.raises(ClientError, match="AccessDeniedException"):
        pricing.get_products(ServiceCode="AmazonEC2", MaxResults=1)
    assert (len(assumed), len(asked)) == (0, 1)
    monkeypatch.setattr(renewal, "REVOKED_AFTER_S", 0)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        pricing.get_products(ServiceCode="AmazonEC2", MaxResults=1)
    assert (len(assumed), len(asked)) == (0, 1)
    assert ec2.describe_availability_zones()["AvailabilityZones"]
    assert pricing.get_products(ServiceCode="AmazonEC2", MaxResults=1)["PriceList"]
    assert (len(assumed), len(asked)) == (1, 2)


def test_a_session_that_was_handed_out_renews_its_keys_too(engine, local_aws, often):
    register_in_aws(engine, local_aws, A)
    session = AccountSessions(engine).get_cross_account_session(A, "us-east-1")
    pricing, sts = session.client("pricing"), session.client("sts")
    for call in (lambda: pricing.get_products(ServiceCode="AmazonEC2", MaxResults=1), sts.get_caller_identity):
        local_aws.expire_sessions(A)
        assert call()["ResponseMetadata"]["HTTPStatusCode"] == 200


@pytest.mark.parametrize("code", ["RequestExpired", "ExpiredToken", "InvalidClientTokenId", "AuthFailure"])
def test_keys_that_stay_refused_fail_the_step_by_name_after_one_renewal(engine, local_aws, monkeypatch, code):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sessions.get_ec2_client(A, "us-east-1")
    local_aws.add_fault("DescribeAvailabilityZones", times=None, code=code, status=400)
    assumed = count_calls(local_aws, monkeypatch, "AssumeRole")
    asked = count_calls(local_aws, monkeypatch, "DescribeAvailabilityZones")
    with pytest.raises(AccessDenied, match=f"DescribeAvailabilityZones of account {A}.*{code}"):
        availability_zones(sessions, A, "us-east-1")
    assert (len(assumed), len(asked)) == (1, 2)


def test_a_role_that_is_taken_away_in_mid_run_fails_by_name_and_nobody_elses_session_serves(engine, local_aws):
    for account_id in (A, B):
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)
    clients = {account_id: sessions.get_ec2_client(account_id, "us-east-1") for account_id in (A, B)}
    local_aws.set_denies(A, "assume")
    local_aws.expire_sessions(A)
    for _ in range(2):
        with pytest.raises(AccessDenied, match=f"Assuming arn:aws:iam::{A}:role/SpotLab"):
            clients[A].describe_instances()
    assert clients[B].describe_instances()["Reservations"]


def test_renewed_keys_of_another_account_are_refused(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    client = AccountSessions(engine).get_ec2_client(A, "us-east-1")
    local_aws.expire_sessions(A)
    local_aws.add_fault("GetCallerIdentity", status=200, body=IDENTITY_OF_B)
    with pytest.raises(WrongAccount, match=f"{A} led to account {B}"):
        client.describe_availability_zones()


def test_sixteen_threads_that_are_refused_at_once_renew_once(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    client = AccountSessions(engine).get_ec2_client(A, "us-east-1")
    local_aws.expire_sessions(A)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.describe_availability_zones(), range(32)))
    assert all(answer["AvailabilityZones"] for answer in answers)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("changes", "region", "expected"),
    [
        ({}, "cn-north-1", "partition aws, but region cn-north-1 is in aws-cn"),
        ({}, "us-gov-west-1", "partition aws, but region us-gov-west-1 is in aws-us-gov"),
        ({}, "us-iso-east-1", "aws, aws-cn or aws-us-gov"),
        ({}, "nowhere", "AWS region like"),
        ({"regions": ["cn-north-1"], "role_arn": f"arn:aws-cn:iam::{A}:role/S"}, "us-east-1", "partition aws-cn"),
        ({"regions": ["us-gov-west-1"], "role_arn": f"arn:aws-us-gov:iam::{A}:role/S"}, "eu-west-1", "aws-us-gov"),
    ],
)
def test_what_breaks_a_rule_is_refused_before_any_call(engine, monkeypatch, changes, region, expected):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    register(engine, A, **changes)
    sessions = AccountSessions(engine)
    for ask in (sessions.get_ec2_client, sessions.get_pricing_client, sessions.get_cross_account_session):
        with pytest.raises(InvalidInput, match=expected):
            ask(A, region)
        with pytest.raises(InvalidInput, match="12 digits"):
            ask("١" * 12, region)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("external_id", "canary with spaces and more of them", "2 to 1224"),
        ("role_arn", "arn:aws:iam::444455556666:role/SpotLab", "belongs to account 444455556666"),
        ("role_arn", f"arn:aws:iam::{A}:role/Spöt", "Expected a role ARN"),
    ],
)
def test_a_row_that_was_tampered_with_opens_nothing(engine, owner, monkeypatch, column, value, expected):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    register(engine, A)
    with owner.begin() as connection:
        # The database refuses another account's role by itself; here somebody has taken that away too.
        connection.execute(sa.text("alter table accounts drop constraint ck_accounts_role_arn"))
        connection.execute(sa.text(f"update accounts set {column} = :value"), {"value": value})
    with pytest.raises(InvalidInput, match=expected) as caught:
        AccountSessions(engine).get_ec2_client(A, "us-east-1")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("eu-west-1", "https://sts.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
        ("us-gov-east-1", "https://sts.us-gov-east-1.amazonaws.com"),
        # Has to be enabled, and may not be so in SpotLab's own account.
        ("ap-east-1", "https://sts.us-east-1.amazonaws.com"),
    ],
)
def test_sts_is_asked_at_the_endpoint_of_the_accounts_first_region(engine, local_aws, monkeypatch, region, endpoint):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    account = register(engine, A, regions=[region], role_arn=f"arn:{partition_of(region)}:iam::{A}:role/SpotLab")
    assumption = AccountSessions(engine).assumption(account)
    keys = {"access_key": "ASIA", "secret_key": "x", "token": "y"}
    with assumption.own_sts() as own_sts:
        assert [sts.meta.endpoint_url for sts in (own_sts, assumption.sts_with(keys))] == [endpoint] * 2


def test_a_changed_external_id_never_meets_an_old_session(engine, owner, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sessions.get_ec2_client(A, "us-east-1")
    with owner.begin() as connection:
        connection.execute(sa.text("update accounts set external_id = 'another-id-of-at-least-22-characters'"))
    with pytest.raises(AccessDenied):
        sessions.get_ec2_client(A, "us-east-1")


def test_credentials_that_are_expired_when_they_come_are_named(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    local_aws.shorten_sessions(-5)
    with pytest.raises(AccessDenied, match=r"expired already.*clock"):
        AccountSessions(engine).get_ec2_client(A, "us-east-1")
    (row,) = audit_rows(engine, "assume_role")
    assert (row["outcome"], bool(row["request_id"])) == ("failed", True)


def test_a_canary_shows_nowhere(engine, local_aws, caplog, often):
    """Through opening, validating, renewing, a denial of the renewal and a lax role: log, errors and audit log."""
    caplog.set_level(logging.DEBUG)
    account = register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine, run_id="r1", denials_max=1)
    secrets, shown = [account.external_id.get_secret_value()], [repr(account), repr(sessions)]
    client = sessions.get_ec2_client(A, "us-east-1")
    for _ in range(2):
        credentials = sessions.get_cross_account_session(A, "us-east-1").get_credentials()
        assert credentials is not None
        frozen = credentials.get_frozen_credentials()
        secrets += [frozen.secret_key, frozen.token]
        local_aws.expire_sessions(A)
        client.describe_availability_zones()
    shown += [repr(sessions.validate_account_access(A)), repr(sessions.assumption(account))]
    local_aws.set_denies(A, "assume")
    local_aws.expire_sessions(A)
    with pytest.raises(AccessDenied) as caught:
        client.describe_availability_zones()
    shown += ["".join(traceback.format_exception(caught.value))]
    local_aws.add_account(A, external_id=None)
    shown += [repr(sessions.validate_account_access(A))]
    local_aws.add_fault("AssumeRole", times=None, code="ValidationError", message=f"Value '{secrets[0]}' is invalid")
    with pytest.raises(InvalidInput) as caught:
        sessions.validate_account_access(A)
    shown += ["".join(traceback.format_exception(caught.value)), str(get_account(engine, A).access_reason)]
    rows = audit_rows(engine)
    assert {row["action"] for row in rows} == {
        "add_user", "add_account", "assume_role", "validate_access", "access_broken",
    }  # fmt: skip
    assert "mandatory refresh" in caplog.text
    everything = caplog.text + "".join(shown) + json.dumps(rows, default=str)
    assert [secret for secret in secrets if secret in everything] == []


@pytest.mark.parametrize("denies", [None, "assume", "actions"])
def test_no_external_id_and_no_token_in_logs_or_errors(engine, local_aws, caplog, denies):
    caplog.set_level(logging.DEBUG)
    account = register_in_aws(engine, local_aws, A, denies=denies)
    sessions = AccountSessions(engine)
    errors = []
    tokens = []
    try:
        sync_fleet(sessions, engine, A)
        credentials = sessions.get_cross_account_session(A, "us-east-1").get_credentials()
        assert credentials is not None
        frozen = credentials.get_frozen_credentials()
        tokens = [frozen.secret_key, frozen.token]
    except AccessDenied as error:
        errors = [repr(error), str(error), json.dumps([str(part) for part in error.args])]
    shown = caplog.text + "".join(errors) + repr(sessions) + repr(account)
    for secret in [account.external_id.get_secret_value(), *tokens]:
        assert secret not in shown
