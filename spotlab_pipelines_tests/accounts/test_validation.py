"""Nine trust policies × right, wrong and missing external id × three partitions; and what validation says of each.

The expected grants are IAM's, written down by hand: "The confused deputy problem" and "Multivalued context keys" of
its user guide. The local AWS decides by itself, validation only sees its answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from spotlab_pipelines.accounts.own import OwnKeys
from spotlab_pipelines.accounts.policies import READ
from spotlab_pipelines.accounts.registry import get_account, trust_policy
from spotlab_pipelines.accounts.report import RegionReach
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.validation import PROBES
from spotlab_pipelines.errors import (
    AccessDenied,
    InvalidInput,
    NotFound,
    SettingsError,
    SourceMalformed,
    SourceUnavailable,
    Throttled,
)
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows, count_calls, register, register_in_aws
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT

A = "111122223333"
REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
NO_RETRIES = Config(retries={"total_max_attempts": 1})

Conditions = Callable[[str], dict[str, Any] | None]
RIGHT_ONLY, NOBODY, EVERYBODY = ("right",), (), ("right", "wrong", "missing")

ROLES: dict[str, tuple[Conditions, tuple[str, ...], str]] = {
    "correct": (lambda own: {"StringEquals": {"sts:ExternalId": own}}, RIGHT_ONLY, "ok"),
    "for any value": (lambda own: {"ForAnyValue:StringEquals": {"sts:ExternalId": [own]}}, RIGHT_ONLY, "ok"),
    "no condition": (lambda own: None, EVERYBODY, "lax"),
    "if exists": (lambda own: {"StringEqualsIfExists": {"sts:ExternalId": own}}, ("right", "missing"), "lax"),
    "for all values": (lambda own: {"ForAllValues:StringEquals": {"sts:ExternalId": own}}, ("right", "missing"), "lax"),
    "not null": (lambda own: {"Null": {"sts:ExternalId": "false"}}, ("right", "wrong"), "lax"),
    "anything": (lambda own: {"StringLike": {"sts:ExternalId": "*"}}, ("right", "wrong"), "lax"),
    "other principal": (lambda own: {"StringEquals": {"sts:ExternalId": own}}, NOBODY, "broken"),
    "deny wins": (lambda own: {"StringEquals": {"sts:ExternalId": own}}, NOBODY, "broken"),
}


def policy_of(role: str, partition: str, external_id: str) -> dict[str, Any]:
    """The trust policy of one of ROLES."""
    trusted = "999999999999" if role == "other principal" else OWN_ACCOUNT
    principal = {"AWS": f"arn:{partition}:iam::{trusted}:root"}
    allow: dict[str, Any] = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    if (condition := ROLES[role][0](external_id)) is not None:
        allow["Condition"] = condition
    deny = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [allow, deny] if role == "deny wins" else [allow]}


def granted_by_aws(role_arn: str, region: str, external_id: str | None, profile: str | None) -> bool:
    """Whether the local AWS lets SpotLab's own keys assume the role, asked by plain boto3."""
    sts: Any = boto3.Session(profile_name=profile).client("sts", region_name=region, config=NO_RETRIES)
    arguments = {"RoleArn": role_arn, "RoleSessionName": "test"}
    try:
        sts.assume_role(**arguments, **({} if external_id is None else {"ExternalId": external_id}))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("partition", REGIONS)
@pytest.mark.parametrize("role", ROLES)
def test_no_wrong_grant_and_the_right_verdict(engine, local_aws, own_profiles, role, partition):
    region = REGIONS[partition]
    account = register(engine, A, regions=[region], role_arn=f"arn:{partition}:iam::{A}:role/SpotLab")
    own = account.external_id.get_secret_value()
    local_aws.add_account(A, external_id=None, regions=[region], trust_policy=policy_of(role, partition, own))
    sent = {"right": own, "wrong": "somebody-elses-external-id-0123456789", "missing": None}
    profile = own_profiles.get(partition)
    granted = tuple(name for name, value in sent.items() if granted_by_aws(account.role_arn, region, value, profile))
    _, expected, verdict = ROLES[role]
    assert granted == expected

    report = AccountSessions(engine, run_id="r1", own_keys=OwnKeys(own_profiles)).validate_account_access(A)
    assert report.verdict == verdict
    without, wrong = ("missing" in expected), ("wrong" in expected)
    # The first door that opens ends the validation.
    assert report.granted_without_id is without
    assert report.granted_with_wrong_id is (None if without else wrong)
    assert report.assumable is (None if verdict == "lax" else "right" in expected)
    kept = get_account(engine, A)
    assert kept.access_state == {"broken": "access_broken"}.get(verdict, verdict)
    assert kept.access_reason == report.reason
    assert kept.access_checked_at is not None
    (entry,) = audit_rows(engine, "validate_access")
    assert (entry["actor"], entry["outcome"]) == ("run:r1", "done" if verdict == "ok" else "refused")
    assert own not in repr(report) + str(report.reason) + json.dumps(audit_rows(engine), default=str)


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
def test_keys_of_another_partition_are_named_by_the_setting_that_is_missing(engine, local_aws, own_profiles, partition):
    region = REGIONS[partition]
    account = register(engine, A, regions=[region], role_arn=f"arn:{partition}:iam::{A}:role/SpotLab")
    local_aws.add_account(A, external_id=account.external_id.get_secret_value(), regions=[region])
    sessions = AccountSessions(engine)
    named = f"SPOTLAB_{partition.upper().replace('-', '_')}_PROFILE"
    for ask in (sessions.validate_account_access, lambda _: sessions.principal(account)):
        with pytest.raises(SettingsError, match=named):
            ask(A)
    assert get_account(engine, A).access_state == "unknown"
    names = {"aws_cn_profile": own_profiles["aws-cn"], "aws_us_gov_profile": own_profiles["aws-us-gov"]}
    assert AccountSessions.of(Settings(**names), engine).principal(account) == OWN_ACCOUNT


def test_a_lax_report_carries_the_policy_that_makes_it_well(engine, local_aws):
    account = register_in_aws(engine, local_aws, A, external_id=None)
    sessions = AccountSessions(engine)
    report = sessions.validate_account_access(A)
    assert report.trust_policy is not None
    assert report.trust_policy.get_secret_value() == trust_policy(account, OWN_ACCOUNT)
    local_aws.set_trust_policy(A, json.loads(report.trust_policy.get_secret_value()))
    assert sessions.validate_account_access(A).verdict == "ok"
    assert get_account(engine, A).access_state == "ok"


def test_every_action_is_reported_in_every_region(engine, local_aws):
    regions = ("us-east-1", "us-west-2")
    denied = ["ec2:DescribeSpotPriceHistory", "pricing:GetProducts"]
    register_in_aws(engine, local_aws, A, regions=regions, fleet=(), denied_actions=denied)
    report = AccountSessions(engine).validate_account_access(A)
    assert report.regions == tuple(RegionReach(region, True) for region in regions)
    tried = {(each.action, each.region): each.allowed for each in report.permissions}
    ec2 = {(action, region) for action in PROBES if action.startswith("ec2:") for region in regions}
    assert set(tried) == ec2 | {("pricing:GetProducts", "us-east-1")}
    assert {action for (action, _), allowed in tried.items() if not allowed} == set(denied)
    assert report.verdict == "broken"
    assert report.reason is not None
    assert "ec2:DescribeSpotPriceHistory may not be called in us-west-2" in report.reason
    assert f"accounts onboarding {A}" in str(report.remedy)


def test_every_action_of_the_read_policy_is_tried(engine, local_aws):
    # GetCallerIdentity needs no permission, and every assumption calls it.
    assert set(PROBES) == READ.actions - {"sts:GetCallerIdentity"}


def test_a_region_that_is_not_enabled_or_does_not_answer_is_named(engine, local_aws):
    register_in_aws(engine, local_aws, A, regions=("us-east-1", "us-west-2"), fleet=())
    local_aws.add_fault("DescribeAvailabilityZones", times=4, region="us-west-2", code="Unavailable", status=503)
    report = AccountSessions(engine).validate_account_access(A)
    assert [each.reachable for each in report.regions] == [True, False]
    assert report.verdict == "broken"
    assert "us-west-2 is not reachable" in str(report.reason)


@pytest.mark.parametrize(("code", "status"), [("AuthFailure", 401), ("OptInRequired", 401)])
def test_a_region_that_the_account_has_not_enabled_is_named_as_such(engine, local_aws, code, status):
    register_in_aws(engine, local_aws, A, regions=("us-east-1", "us-west-2"), fleet=())
    local_aws.add_fault("DescribeAvailabilityZones", times=None, region="us-west-2", code=code, status=status)
    report = AccountSessions(engine).validate_account_access(A)
    assert [(each.region, each.reachable) for each in report.regions] == [("us-east-1", True), ("us-west-2", False)]
    assert "us-west-2 is not reachable" in str(report.reason)
    assert "has not enabled the region" in str(report.reason)
    assert "may not be called" not in str(report.reason)


def test_when_aws_does_not_serve_us_no_verdict_is_kept(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    local_aws.add_fault("AssumeRole", times=4, code="InternalFailure", status=500)
    with pytest.raises(SourceUnavailable):
        AccountSessions(engine).validate_account_access(A)
    assert get_account(engine, A).access_state == "unknown"
    assert [entry["outcome"] for entry in audit_rows(engine, "validate_access")] == ["failed"]


@pytest.mark.parametrize("failing", ["DescribeAvailabilityZones", "GetCallerIdentity"])
def test_a_lax_door_is_marked_whatever_fails_later_and_nothing_is_opened(engine, local_aws, monkeypatch, failing):
    register_in_aws(engine, local_aws, A, external_id=None)
    local_aws.add_fault(failing, times=None, code="InternalFailure", status=400)
    calls = count_calls(local_aws, monkeypatch, "AssumeRole")
    report = AccountSessions(engine).validate_account_access(A)
    assert (report.verdict, report.assumable, len(calls)) == ("lax", None, 1)
    assert get_account(engine, A).access_state == "lax"
    if failing == "GetCallerIdentity":
        with pytest.raises(SourceUnavailable, match="who SpotLab is"):
            _ = report.trust_policy


def test_a_validation_that_ends_in_the_middle_makes_no_account_well(engine, local_aws):
    register_in_aws(engine, local_aws, A, denies="assume")
    sessions = AccountSessions(engine, denials_max=1, retry_s=0)
    with pytest.raises(AccessDenied):
        sessions.get_ec2_client(A, "us-east-1")
    local_aws.set_denies(A, None)
    local_aws.add_fault("DescribeAvailabilityZones", times=None, code="Throttling")
    with pytest.raises(Throttled):
        sessions.validate_account_access(A)
    assert get_account(engine, A).access_state == "access_broken"


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException"])
def test_both_codes_of_sts_are_a_refusal(engine, local_aws, code):
    register_in_aws(engine, local_aws, A, external_id=None)
    local_aws.add_fault("AssumeRole", times=2, code=code, status=403)
    sessions = AccountSessions(engine, denials_max=1)
    # Both doors refuse, and the role opens with its id.
    assert sessions.validate_account_access(A).verdict == "ok"
    local_aws.add_fault("AssumeRole", times=None, code=code, status=403)
    with pytest.raises(AccessDenied):
        sessions.get_ec2_client(A, "us-east-1")
    assert get_account(engine, A).access_state == "access_broken"
    local_aws.clear_faults()
    local_aws.add_fault("AssumeRole", times=3, code=code, status=403)
    assert sessions.validate_account_access(A).verdict == "broken"


@pytest.mark.parametrize(
    ("inside", "said"),
    [("<x/>", "could not be read"), ("<AssumeRoleResult/>", "without AccessKeyId")],
)
def test_an_answer_without_credentials_is_no_grant(engine, local_aws, inside, said):
    register_in_aws(engine, local_aws, A, external_id=None)
    body = f"<AssumeRoleResponse>{inside}</AssumeRoleResponse>"
    local_aws.add_fault("AssumeRole", times=None, status=200, body=body)
    sessions = AccountSessions(engine)
    for ask in (sessions.validate_account_access, lambda account: sessions.get_ec2_client(account, "us-east-1")):
        with pytest.raises(SourceMalformed, match=said):
            ask(A)
    assert [row["outcome"] for row in audit_rows(engine, "assume_role")] == ["failed", "failed"]
    assert get_account(engine, A).access_state == "unknown"


@pytest.mark.parametrize("fault", ["InvalidClientTokenId", "SignatureDoesNotMatch", "our clock"])
def test_what_is_wrong_with_us_at_the_last_step_is_not_the_accounts_fault(engine, local_aws, fault):
    register_in_aws(engine, local_aws, A)
    if fault == "our clock":
        local_aws.shorten_sessions(-5)
    else:
        local_aws.add_fault("AssumeRole", times=2)
        local_aws.add_fault("AssumeRole", times=None, code=fault, status=403)
    with pytest.raises(AccessDenied):
        AccountSessions(engine, denials_max=1).validate_account_access(A)
    assert get_account(engine, A).access_state == "unknown"
    assert [row["outcome"] for row in audit_rows(engine, "assume_role")] == ["refused", "refused", "failed"]


def test_our_own_keys_being_refused_says_nothing_about_the_account(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    local_aws.add_fault("AssumeRole", times=None, code="InvalidClientTokenId", status=403)
    sessions = AccountSessions(engine, denials_max=1)
    with pytest.raises(AccessDenied):
        sessions.validate_account_access(A)
    with pytest.raises(AccessDenied):
        sessions.get_ec2_client(A, "us-east-1")
    assert get_account(engine, A).access_state == "unknown"


def test_probes_keep_no_session_and_use_none(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sessions.get_ec2_client(A, "us-east-1")
    local_aws.set_denies(A, "assume")
    assert sessions.validate_account_access(A).verdict == "broken"
    local_aws.set_denies(A, None)
    assert sessions.validate_account_access(A).verdict == "ok"
    assert [entry["details"].get("probe") for entry in audit_rows(engine, "assume_role")] == [
        None,
        *("without an external id", "with a wrong external id", None) * 2,
    ]


def test_an_account_that_is_none_is_refused_before_any_call(engine):
    sessions = AccountSessions(engine)
    with pytest.raises(NotFound):
        sessions.validate_account_access(A)
    with pytest.raises(InvalidInput):
        sessions.validate_account_access("12")
