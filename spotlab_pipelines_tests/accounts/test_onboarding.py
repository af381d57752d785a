"""The template of the customer's role: it parses, it is the role we need, and it allows nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
import yaml

from spotlab_pipelines.accounts.onboarding import onboarding_template
from spotlab_pipelines.accounts.policies import LAUNCH_ACTIONS, READ
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines_tests.accounts.registering import register
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT
from spotlab_pipelines_tests.local_aws.session_policy import SessionPolicy, read_session_policy

A = "111122223333"


def properties(template: str) -> dict:
    """The role of a template."""
    return json.loads(template)["Resources"]["SpotLabRole"]["Properties"]


def actions(document: dict) -> set[str]:
    """What a policy document allows."""
    assert all(statement["Effect"] == "Allow" for statement in document["Statement"])
    return {action for statement in document["Statement"] for action in statement["Action"]}


def test_it_is_yaml_and_json_alike_with_the_sections_of_cloudformation(engine):
    text = onboarding_template(register(engine), OWN_ACCOUNT)
    template = json.loads(text)
    assert yaml.safe_load(text) == template
    assert template["AWSTemplateFormatVersion"] == "2010-09-09"
    assert template["Outputs"]["RoleArn"]["Value"] == {"Fn::GetAtt": ["SpotLabRole", "Arn"]}
    assert template["Resources"]["SpotLabRole"]["Type"] == "AWS::IAM::Role"


def test_the_role_trusts_our_principal_with_the_external_id_only(engine):
    account = register(engine)
    (statement,) = properties(onboarding_template(account, OWN_ACCOUNT))["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"AWS": {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{OWN_ACCOUNT}:root"}},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": account.external_id.get_secret_value()}},
    }


def test_a_principal_that_is_an_arn_is_kept(engine):
    arn = f"arn:aws:iam::{OWN_ACCOUNT}:role/Runner"
    (statement,) = properties(onboarding_template(register(engine), arn))["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"AWS": arn}


@pytest.mark.parametrize(
    "principal", ["*", "", "12345", "arn:aws:iam::1:root", "arn:aws:iam::123456789012:role/*", "١" * 12]
)
def test_a_principal_that_lets_others_in_is_refused(engine, principal):
    with pytest.raises(InvalidInput, match="principal"):
        onboarding_template(register(engine), principal)


def deployed(account, name: str, roles: Sequence[str] = ()) -> SessionPolicy:
    """One of the template's policies as CloudFormation makes it, to be evaluated by the local AWS."""
    policies = properties(onboarding_template(account, OWN_ACCOUNT))["Policies"]
    found = [one for one in (each.get("Fn::If", [None, each])[1] for each in policies) if one["PolicyName"] == name]
    text = json.dumps(found[0]["PolicyDocument"]).replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", A)
    text = re.sub(r'\{"Fn::Sub": ("[^"]*")\}', r"\1", text)
    return read_session_policy(text.replace('{"Ref": "InstanceRoleArns"}', json.dumps(list(roles))))


def test_switching_is_off_by_default_and_passes_no_role_unless_roles_are_listed(engine):
    template = json.loads(onboarding_template(register(engine), OWN_ACCOUNT))
    read, switch, passing = template["Resources"]["SpotLabRole"]["Properties"]["Policies"]
    assert actions(read["PolicyDocument"]) == READ.actions
    for optional, condition in ((switch, "Switching"), (passing, "Passing")):
        assert (optional["Fn::If"][0], optional["Fn::If"][2]) == (condition, {"Ref": "AWS::NoValue"})
    needed = {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"}
    assert actions(switch["Fn::If"][1]["PolicyDocument"]) == {*LAUNCH_ACTIONS, *needed}
    assert actions(passing["Fn::If"][1]["PolicyDocument"]) == {"iam:PassRole"}
    assert {name: one["Default"] for name, one in template["Parameters"].items()} == {
        "EnableSwitching": "false",
        "InstanceRoleArns": "",
    }
    assert template["Conditions"]["Switching"] == {"Fn::Equals": [{"Ref": "EnableSwitching"}, "true"]}
    none_listed = {"Fn::Equals": [{"Fn::Join": ["", {"Ref": "InstanceRoleArns"}]}, ""]}
    assert template["Conditions"]["Passing"] == {"Fn::And": [{"Condition": "Switching"}, {"Fn::Not": [none_listed]}]}


def test_what_the_deployed_role_may_launch_end_and_pass_on(engine):
    account = register(engine)
    switch = deployed(account, "SpotLabSwitch")
    instance, foreign = (f"arn:aws:ec2:us-east-1:{owner}:instance/i-1" for owner in (A, "999999999999"))
    for action, tag in (
        ("ec2:TerminateInstances", "aws:ResourceTag/spotlab:managed"),
        ("ec2:RunInstances", "aws:RequestTag/spotlab:managed"),
    ):
        assert switch.allows(action, instance, {tag: "true"})
        assert not switch.allows(action, instance)
        assert not switch.allows(action, instance, {tag: "false"})
        assert not switch.allows(action, foreign, {tag: "true"})
    assert switch.allows("ec2:RunInstances", "arn:aws:ec2:us-east-1::image/ami-1")
    assert switch.allows("ec2:RunInstances", f"arn:aws:ec2:us-east-1:{A}:subnet/subnet-1")
    assert not switch.allows("ec2:CreateTags", instance)
    web, admin = (f"arn:aws:iam::{A}:role/{name}" for name in ("Web", "Admin"))
    passing, to_ec2 = deployed(account, "SpotLabPass", [web]), {"iam:PassedToService": "ec2.amazonaws.com"}
    assert passing.allows("iam:PassRole", web, to_ec2)
    assert not passing.allows("iam:PassRole", admin, to_ec2)
    assert not passing.allows("iam:PassRole", web, {"iam:PassedToService": "lambda.amazonaws.com"})
    assert not switch.allows("iam:PassRole", web, to_ec2)


def test_name_path_and_duration_are_those_that_are_registered_and_used(engine):
    account = register(engine, role_arn=f"arn:aws:iam::{A}:role/ops/lab/SpotLab")
    role = properties(onboarding_template(account, OWN_ACCOUNT))
    assert (role["RoleName"], role["Path"], role["MaxSessionDuration"]) == ("SpotLab", "/ops/lab/", 3600)


def test_a_role_made_from_it_is_validated_as_ok(engine, local_aws):
    account = register(engine)
    document = properties(onboarding_template(account, OWN_ACCOUNT))["AssumeRolePolicyDocument"]
    # What CloudFormation does with Fn::Sub.
    deployed = json.loads(json.dumps(document).replace("${AWS::Partition}", "aws"))
    deployed["Statement"][0]["Principal"]["AWS"] = deployed["Statement"][0]["Principal"]["AWS"]["Fn::Sub"]
    local_aws.add_account(A, external_id=None, trust_policy=deployed)
    assert AccountSessions(engine).validate_account_access(A).verdict == "ok"
    assert get_account(engine, A).access_state == "ok"
