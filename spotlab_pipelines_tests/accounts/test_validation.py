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

from spotlab_pipelines.accounts.policies import READ
from spotlab_pipelines.accounts.registry import get_account, trust_policy
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.validation import PROBES, RegionReach
from spotlab_pipelines.errors import AccessDenied, InvalidInput, NotFound, SourceUnavailable
from spotlab_pipelines_tests.accounts.registering import audit_rows, register, register_in_aws
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


def granted_by_aws(role_arn: str, region: str, external_id: str | None) -> bool:
    """Whether the local AWS lets SpotLab's own keys assume the role, asked by plain boto3."""
    sts: Any = boto3.client("sts", region_name=region, config=NO_RETRIES)
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
def test_no_wrong_grant_and_the_right_verdict(engine, local_aws, role, partition):
    region = REGIONS[partition]
    account = register(engine, A, regions=[region], role_arn=f"arn:{partition}:iam::{A}:role/SpotLab")
    own = account.external_id.get_secret_value()
    local_aws.add_account(A, external_id=None, regions=[region], trust_policy=policy_of(role, partition, own))
    sent = {"right": own, "wrong": "somebody-elses-external-id-0123456789", "missing": None}
    granted = tuple(name for name, value in sent.items() if granted_by_aws(account.role_arn, region, value))
    _, expected, verdict = ROLES[role]
    assert granted == expected

    report = AccountSessions(engine, run_id="r1").validate_account_access(A)
    assert report.verdict == verdict
    assert (report.assumable, report.granted_with_wrong_id, report.granted_without_id) == tuple(
        name in expected for name in ("right", "wrong", "missing")
    )
    kept = get_account(engine, A)
    assert kept.access_state == {"broken": "access_broken"}.get(verdict, verdict)
    assert kept.access_reason == report.reason
    assert kept.access_checked_at is not None
    (entry,) = audit_rows(engine, "validate_access")
    assert (entry["actor"], entry["outcome"]) == ("run:r1", "done" if verdict == "ok" else "refused")
    assert own not in repr(report) + str(report.reason) + json.dumps(audit_rows(engine), default=str)


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


def test_when_aws_does_not_serve_us_no_verdict_is_kept(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    local_aws.add_fault("AssumeRole", times=4, code="InternalFailure", status=500)
    with pytest.raises(SourceUnavailable):
        AccountSessions(engine).validate_account_access(A)
    assert get_account(engine, A).access_state == "unknown"
    assert [entry["outcome"] for entry in audit_rows(engine, "validate_access")] == ["failed"]


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
