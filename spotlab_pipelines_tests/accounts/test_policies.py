"""Session policies: short enough, only what the read paths use, and stronger than an over-powerful role."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import spotlab_pipelines
from spotlab_pipelines.accounts.policies import POLICY_MAX, READ, SessionPolicy, allow, switch_policy
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines_tests.accounts.registering import register_in_aws
from spotlab_pipelines_tests.local_aws.session_policy import read_session_policy

A = "111122223333"
SWITCH = switch_policy()
INSTANCE, ROLE = f"arn:aws:ec2:us-east-1:{A}:instance/i-0123456789abcdef0", f"arn:aws:iam::{A}:role/Web"
NAMED = switch_policy(terminates=[INSTANCE], passes=[ROLE])
LAUNCH = {"ImageId": "ami-0spotlab0linux000", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}


@pytest.mark.parametrize("policy", [READ, SWITCH, NAMED])
def test_a_policy_is_compact_json_that_sts_takes(policy):
    assert len(policy.document) <= POLICY_MAX
    assert json.loads(policy.document)["Version"] == "2012-10-17"
    assert " " not in policy.document


def test_a_policy_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="2048"):
        SessionPolicy("long", (allow(*(f"ec2:Describe{number}" for number in range(200))),))


def test_reading_allows_nothing_that_changes_anything():
    assert all(re.fullmatch(r"ec2:Describe\w+|pricing:Get\w+|sts:GetCallerIdentity", name) for name in READ.actions)
    assert READ.actions < SWITCH.actions


def test_what_switching_may_end_and_pass_on_is_named_to_the_last():
    """A role that can be passed to an instance of one's own is a role that one has."""
    resources = {action: one["Resource"] for one in NAMED.statements for action in one["Action"]}
    assert (resources["ec2:TerminateInstances"], resources["iam:PassRole"]) == ([INSTANCE], [ROLE])
    assert not {"ec2:TerminateInstances", "iam:PassRole"} & SWITCH.actions
    assert len({SWITCH.name, NAMED.name, switch_policy(passes=[ROLE]).name, READ.name}) == 4
    evaluated = read_session_policy(NAMED.document)
    to_ec2, to_lambda = ({"iam:PassedToService": name} for name in ("ec2.amazonaws.com", "lambda.amazonaws.com"))
    assert evaluated.allows("iam:PassRole", ROLE, to_ec2)
    assert not evaluated.allows("iam:PassRole", ROLE, to_lambda)
    assert not evaluated.allows("iam:PassRole", ROLE)
    assert not evaluated.allows("iam:PassRole", ROLE.replace("Web", "Admin"), to_ec2)
    assert evaluated.allows("ec2:CreateTags", INSTANCE, {"ec2:CreateAction": "RunInstances"})
    assert not evaluated.allows("ec2:CreateTags", INSTANCE)


def test_a_switch_ends_the_instance_that_it_names_and_passes_no_other_role(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    reading: Any = sessions.get_ec2_client(A, "us-east-1")
    mine, other = sorted(
        each["InstanceId"] for one in reading.describe_instances()["Reservations"] for each in one["Instances"]
    )
    arn = f"arn:aws:ec2:us-east-1:{A}:instance/{mine}"
    client = sessions.get_ec2_client(A, "us-east-1", policy=switch_policy(terminates=[arn]))
    for refused in (
        lambda: client.terminate_instances(InstanceIds=[other]),
        lambda: client.terminate_instances(InstanceIds=[mine, other]),
        lambda: client.run_instances(**LAUNCH, IamInstanceProfile={"Name": "Admin"}),
        lambda: client.create_tags(Resources=[other], Tags=[{"Key": "spotlab:managed", "Value": "true"}]),
    ):
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*no session policy"):
            refused()
    assert client.terminate_instances(InstanceIds=[mine])["TerminatingInstances"]


def test_reading_allows_exactly_what_the_code_calls():
    """Every method called on a client of AWS, anywhere in the product, is an action of READ and the other way round."""
    called = set()
    for path in Path(spotlab_pipelines.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"(describe_|get_products|get_caller_identity)", node.attr):
                called.add(node.attr.title().replace("_", ""))
    assert called == {action.partition(":")[2] for action in READ.actions}


def test_an_over_powerful_role_cannot_change_anything_through_a_read_path(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    switching = sessions.get_ec2_client(A, "us-east-1", policy=SWITCH)
    launched: Any = switching.run_instances(**LAUNCH)
    victim = launched["Instances"][0]["InstanceId"]
    reading = [
        sessions.get_ec2_client(A, "us-east-1"),
        sessions.get_cross_account_session(A, "us-east-1").client("ec2"),
        sessions.fresh_clients(sessions.assumption(get_account(engine, A)))("ec2", "us-east-1"),
    ]
    for client in reading:
        for change in (
            lambda ec2: ec2.run_instances(**LAUNCH),
            lambda ec2: ec2.terminate_instances(InstanceIds=[victim]),
            lambda ec2: ec2.create_tags(Resources=[victim], Tags=[{"Key": "a", "Value": "b"}]),
        ):
            with pytest.raises(ClientError, match=r"UnauthorizedOperation.*no session policy"):
                change(client)
        assert client.describe_instances()["Reservations"]


def test_reading_and_switching_never_share_credentials(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    keys = set()
    for policy in (READ, SWITCH, READ):
        credentials = sessions.get_cross_account_session(A, "us-east-1", policy=policy).get_credentials()
        assert credentials is not None
        keys.add(credentials.get_frozen_credentials().access_key)
    assert len(keys) == 2
