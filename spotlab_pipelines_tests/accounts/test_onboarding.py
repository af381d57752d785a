"""The template of the customer's role: it parses, it is the role we need, and it allows nothing else."""

from __future__ import annotations

import json

import pytest
import yaml

from spotlab_pipelines.accounts.onboarding import onboarding_template
from spotlab_pipelines.accounts.policies import READ, SWITCH
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines_tests.accounts.registering import register
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT

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


def test_the_actions_are_those_of_the_session_policies_and_switching_is_off_by_default(engine):
    text = onboarding_template(register(engine), OWN_ACCOUNT)
    read, switch = properties(text)["Policies"]
    assert actions(read["PolicyDocument"]) == READ.actions
    condition, on, off = switch["Fn::If"]
    assert actions(on["PolicyDocument"]) | READ.actions == SWITCH.actions
    assert off == {"Ref": "AWS::NoValue"}
    template = json.loads(text)
    assert template["Conditions"] == {condition: {"Fn::Equals": [{"Ref": "EnableSwitching"}, "true"]}}
    assert template["Parameters"]["EnableSwitching"]["Default"] == "false"


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
