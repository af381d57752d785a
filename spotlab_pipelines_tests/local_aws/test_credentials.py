"""AssumeRole and what its keys are worth, through boto3."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.conftest import ACCOUNT, EXTERNAL_ID, NO_RETRIES, ROLE, Clients, session_of
from spotlab_pipelines_tests.local_aws.server import LocalAws

OTHER = "333333333333"


def refusal(call: Any, **parameters: Any) -> str:
    """The error code with which AWS refuses a call."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response.get("Error", {}).get("Code"))


def assume(**parameters: Any) -> Any:
    wanted = {"RoleArn": ROLE, "RoleSessionName": "spotlab", "ExternalId": EXTERNAL_ID} | parameters
    wanted = {key: value for key, value in wanted.items() if value is not None}
    sts: Any = boto3.client("sts", config=NO_RETRIES)
    return sts.assume_role(**wanted)


def session_policy(action: Any, effect: str = "Allow", **elements: Any) -> str:
    """A session policy of one statement."""
    statement = {"Effect": effect, "Action": action, "Resource": "*"} | elements
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ExternalId": None}, "AccessDenied"),
        ({"ExternalId": "another-one"}, "AccessDenied"),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/Missing"}, "AccessDenied"),
        ({"RoleArn": f"arn:aws:iam::{OTHER}:role/SpotLab"}, "AccessDenied"),
        ({"RoleArn": "arn:aws:iam::2222:role/SpotLab"}, "ValidationError"),
        ({"ExternalId": "ünïcode"}, "ValidationError"),
        ({"ExternalId": "with space"}, "ValidationError"),
        ({"ExternalId": "x" * 1225}, "ValidationError"),
        ({"RoleSessionName": "x" * 65}, "ValidationError"),
        ({"RoleSessionName": "a/b"}, "ValidationError"),
        ({"DurationSeconds": 43201}, "ValidationError"),
        ({"DurationSeconds": 7200}, "ValidationError"),
        ({"Policy": "x" * 2049}, "ValidationError"),
        ({"Policy": "not json"}, "MalformedPolicyDocument"),
        ({"Policy": session_policy("ec2:*", NotAction="ec2:RunInstances")}, "MalformedPolicyDocument"),
        ({"Policy": session_policy("ec2:*", Resource="instance/*")}, "MalformedPolicyDocument"),
    ],
)
@pytest.mark.usefixtures("clients")
def test_a_role_is_refused(parameters: dict[str, Any], code: str) -> None:
    assert refusal(assume, **parameters) == code


@pytest.mark.usefixtures("clients")
def test_the_right_external_id_opens_the_role() -> None:
    session = session_of()
    identity = session.client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/SpotLab/spotlab"


def test_a_role_that_allows_it_may_be_assumed_for_longer(local_aws: LocalAws) -> None:
    local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, max_session_duration_s=7200)
    assert session_of(DurationSeconds=7200)
    assert refusal(assume, DurationSeconds=7201) == "ValidationError"


def test_a_chained_session_lasts_an_hour_at_most(local_aws: LocalAws, clients: Clients) -> None:
    local_aws.add_account(OTHER, external_id=EXTERNAL_ID, principal_account=ACCOUNT, max_session_duration_s=43200)
    role = {"RoleArn": f"arn:aws:iam::{OTHER}:role/SpotLab", "RoleSessionName": "chained", "ExternalId": EXTERNAL_ID}
    sts = clients("sts")
    assert sts.assume_role(**role, DurationSeconds=3600)
    assert refusal(sts.assume_role, **role, DurationSeconds=3601) == "ValidationError"


def test_a_policy_that_is_not_understood_denies(local_aws: LocalAws) -> None:
    policy = local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID)
    assert policy.role_arn == ROLE
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}
    local_aws.set_trust_policy(ACCOUNT, {"Statement": [allow]})
    assert assume(ExternalId=None)
    local_aws.set_trust_policy(ACCOUNT, {"Statement": [allow, allow | {"Condition": {"Odd": {"sts:ExternalId": "x"}}}]})
    assert refusal(assume) == "AccessDenied"


def test_an_account_can_deny_the_role_or_only_its_actions(local_aws: LocalAws, clients: Clients) -> None:
    ec2, pricing = clients("ec2"), clients("pricing")
    local_aws.set_denies(ACCOUNT, "actions")
    assert assume()
    assert refusal(ec2.describe_instances) == "UnauthorizedOperation"
    assert refusal(ec2.describe_spot_price_history) == "UnauthorizedOperation"
    assert refusal(pricing.get_products, ServiceCode="AmazonEC2") == "AccessDeniedException"
    local_aws.set_denies(ACCOUNT, "assume")
    assert refusal(assume) == "AccessDenied"
    assert ec2.describe_instances()["Reservations"] == []
    local_aws.set_denies(ACCOUNT, None)
    assert assume()


def test_expired_keys_are_refused_in_each_services_own_words(local_aws: LocalAws, clients: Clients) -> None:
    ec2, sts, pricing = clients("ec2"), clients("sts"), clients("pricing")
    assert local_aws.expire_sessions(ACCOUNT) == 1
    assert refusal(ec2.describe_instances) == "RequestExpired"
    assert refusal(sts.get_caller_identity) == "ExpiredToken"
    assert refusal(pricing.get_products, ServiceCode="AmazonEC2") == "ExpiredTokenException"


def test_sessions_can_be_short(local_aws: LocalAws, clients: Clients) -> None:
    local_aws.shorten_sessions(0.0001)
    assert refusal(session_of().client("ec2", region_name="us-east-1").describe_instances) == "RequestExpired"
    local_aws.shorten_sessions(None)
    assert session_of().client("ec2", region_name="us-east-1").describe_instances()
    assert clients("ec2").describe_instances()


def test_unknown_keys_are_refused(local_aws: LocalAws, clients: Clients) -> None:
    key = next(iter(local_aws.app.credentials.sessions))
    assert clients("ec2")
    for session in (boto3.Session("ASIAUNKNOWN000000000", "s", "t"), boto3.Session(key, "s", "not its token")):
        ec2 = session.client("ec2", region_name="us-east-1", config=NO_RETRIES)
        assert refusal(ec2.describe_instances) == "AuthFailure"
        assert refusal(session.client("sts").get_caller_identity) == "InvalidClientTokenId"
        pricing = session.client("pricing", region_name="us-east-1")
        assert refusal(pricing.get_products, ServiceCode="AmazonEC2") == "UnrecognizedClientException"


def test_accounts_do_not_see_each_other(local_aws: LocalAws) -> None:
    fleet = [FleetInstance("m5.large", "us-east-1", "use1-az1")]
    mine = local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, fleet=fleet).instance_ids
    theirs = local_aws.add_account(OTHER, external_id="the-other-id", fleet=fleet).instance_ids
    seen = {
        account: [
            instance["InstanceId"]
            for reservation in session_of(account, external_id)
            .client("ec2", region_name="us-east-1")
            .describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        ]
        for account, external_id in ((ACCOUNT, EXTERNAL_ID), (OTHER, "the-other-id"))
    }
    assert seen == {ACCOUNT: mine, OTHER: theirs}
    assert mine != theirs
    own = boto3.client("ec2", region_name="us-east-1")
    assert own.describe_instances()["Reservations"] == []


@pytest.mark.parametrize(
    ("policy", "zones", "launch"),
    [
        (session_policy(["ec2:DescribeAvailabilityZones"]), None, "UnauthorizedOperation"),
        (session_policy("ec2:Describe*"), None, "UnauthorizedOperation"),
        (session_policy("*"), None, "DryRunOperation"),
        (session_policy("EC2:RunInstances"), "UnauthorizedOperation", "DryRunOperation"),
        (session_policy("*", effect="Deny"), "UnauthorizedOperation", "UnauthorizedOperation"),
        (session_policy("*", Condition={"Bool": {"a": "b"}}), "UnauthorizedOperation", "UnauthorizedOperation"),
    ],
)
@pytest.mark.usefixtures("clients")
def test_a_session_may_do_only_what_its_session_policy_allows(policy: str, zones: str | None, launch: str) -> None:
    session = session_of(Policy=policy)
    ec2 = session.client("ec2", region_name="us-east-1", config=NO_RETRIES)
    if zones is None:
        assert ec2.describe_availability_zones()["AvailabilityZones"]
    else:
        assert refusal(ec2.describe_availability_zones) == zones
    wanted = {"ImageId": "ami-0spotlab0linux000", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    assert refusal(ec2.run_instances, **wanted, DryRun=True) == launch
    assert session.client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_a_role_may_lack_single_actions(local_aws: LocalAws) -> None:
    denied = ["ec2:DescribeInstances", "pricing:GetProducts"]
    local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, denied_actions=denied)
    session = session_of()
    ec2 = session.client("ec2", region_name="us-east-1", config=NO_RETRIES)
    assert refusal(ec2.describe_instances) == "UnauthorizedOperation"
    assert refusal(session.client("pricing").get_products, ServiceCode="AmazonEC2") == "AccessDeniedException"
    assert ec2.describe_availability_zones()["AvailabilityZones"]


def test_roles_and_keys_mean_nothing_in_another_partition(local_aws: LocalAws, own_profiles: dict[str, str]) -> None:
    added = local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, regions=["cn-north-1"])
    assert added.role_arn == f"arn:aws-cn:iam::{ACCOUNT}:role/SpotLab"
    wanted: Any = {"RoleArn": added.role_arn, "RoleSessionName": "spotlab", "ExternalId": EXTERNAL_ID}
    abroad: Any = boto3.client("sts", region_name="us-east-1", config=NO_RETRIES)
    assert refusal(abroad.assume_role, **wanted) == "AccessDenied"
    at_home: Any = boto3.client("sts", region_name="cn-north-1", config=NO_RETRIES)
    assert refusal(at_home.assume_role, **wanted) == "InvalidClientTokenId"
    own = boto3.Session(profile_name=own_profiles["aws-cn"])
    held = own.client("sts", region_name="cn-north-1", config=NO_RETRIES).assume_role(**wanted)["Credentials"]
    session = boto3.Session(held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])
    there, here = (session.client("sts", region_name=name) for name in ("cn-north-1", "us-east-1"))
    assert there.get_caller_identity()["Arn"].startswith("arn:aws-cn:sts::")
    assert refusal(here.get_caller_identity) == "InvalidClientTokenId"
