"""The role that a customer makes for SpotLab, as a CloudFormation template to deploy as it is.

Least privilege: the actions of policies.py and nothing else; those that move instances only where the customer switches
them on, on instances that carry the customer's tag, and with the instance roles that the customer lists. JSON, because
it is YAML too and needs no library. Nothing here talks to AWS.

References: EC2 user guide, "Example policies to control access to the EC2 API" (RunInstances, tags); IAM user guide,
"Grant a user permissions to pass a role to an AWS service".
"""

from __future__ import annotations

import json
from typing import Any

from spotlab_pipelines.accounts.assuming import SESSION_S
from spotlab_pipelines.accounts.policies import (
    LAUNCH_ACTIONS,
    MANAGED_TAG,
    PASSED_TO_EC2,
    READ_STATEMENTS,
    TAG_LAUNCHED,
    allow,
)
from spotlab_pipelines.accounts.registry import Account, trust_document
from spotlab_pipelines.accounts.rules import ACCOUNT_ID, ROLE_ARN, check_principal
from spotlab_pipelines.errors import InvalidInput

PARAMETERS = {
    "EnableSwitching": {
        "Type": "String",
        "Default": "false",
        "AllowedValues": ["true", "false"],
        "Description": "Let SpotLab launch instances, and terminate those with the tag"
        f" {MANAGED_TAG}=true; without it SpotLab only reads.",
    },
    "InstanceRoleArns": {
        "Type": "CommaDelimitedList",
        "Default": "",
        "Description": "ARNs of the roles in the instance profiles of those instances, which new ones keep."
        " SpotLab can act with their permissions: list no others. None: such instances are not replaced.",
    },
}
CONDITIONS = {
    "Switching": {"Fn::Equals": [{"Ref": "EnableSwitching"}, "true"]},
    "Passing": {
        "Fn::And": [
            {"Condition": "Switching"},
            {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": "InstanceRoleArns"}]}, ""]}]},
        ]
    },
}


def onboarding_template(account: Account, principal: str) -> str:
    """A CloudFormation template of the account's role.

    Args:
        principal: ARN or 12-digit id of the AWS account or role that SpotLab runs as.

    Returns:
        JSON text. It holds the external id: show it to the account's owner only.

    Raises:
        InvalidInput: the principal is neither, or the registered role ARN is none.
    """
    check_principal(principal)
    role = ROLE_ARN.fullmatch(account.role_arn)
    if role is None:
        raise InvalidInput(
            f"Expected account {account.account_id} to have a role ARN, got {account.role_arn!r}.",
            remedy="Register the account anew.",
        )
    trusted: Any = principal
    if ACCOUNT_ID.fullmatch(principal):
        trusted = {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{principal}:root"}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The role that SpotLab assumes in this account: it reads, and switches only if you enable it.",
        "Parameters": PARAMETERS,
        "Conditions": CONDITIONS,
        "Resources": {
            "SpotLabRole": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": role["name"],
                    "Path": role["path"],
                    "Description": "What SpotLab may do in this account.",
                    "MaxSessionDuration": SESSION_S,
                    "AssumeRolePolicyDocument": trust_document(account, trusted),
                    "Policies": [
                        {"PolicyName": "SpotLabRead", "PolicyDocument": _document(READ_STATEMENTS)},
                        _only_if("Switching", "SpotLabSwitch", _switch_statements()),
                        _only_if("Passing", "SpotLabPass", (_pass_statement(),)),
                    ],
                },
            }
        },
        "Outputs": {
            "RoleArn": {
                "Description": "The ARN that is registered with SpotLab.",
                "Value": {"Fn::GetAtt": ["SpotLabRole", "Arn"]},
            }
        },
    }
    return json.dumps(template, indent=2)


def _document(statements: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _only_if(condition: str, name: str, statements: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    policy = {"PolicyName": name, "PolicyDocument": _document(statements)}
    return {"Fn::If": [condition, policy, {"Ref": "AWS::NoValue"}]}


def _switch_statements() -> tuple[dict[str, Any], ...]:
    """Launching, of instances that are tagged as SpotLab's at once, and ending those that carry the tag."""
    instances = _of_account("instance/*")
    # The request's tags are those of the instance alone: a condition on them would refuse everything else it needs.
    needed = [
        {"Fn::Sub": "arn:${AWS::Partition}:ec2:*::image/*"},
        *(_of_account(f"{kind}/*") for kind in ("key-pair", "network-interface", "security-group", "subnet", "volume")),
    ]
    return (
        allow(*LAUNCH_ACTIONS),
        allow("ec2:RunInstances", resource=needed),
        allow("ec2:RunInstances", resource=instances, condition=_tagged("aws:RequestTag")),
        TAG_LAUNCHED,
        allow("ec2:TerminateInstances", resource=instances, condition=_tagged("aws:ResourceTag")),
    )


def _pass_statement() -> dict[str, Any]:
    return allow("iam:PassRole", resource={"Ref": "InstanceRoleArns"}, condition=PASSED_TO_EC2)


def _of_account(resource: str) -> dict[str, str]:
    return {"Fn::Sub": f"arn:${{AWS::Partition}}:ec2:*:${{AWS::AccountId}}:{resource}"}


def _tagged(key: str) -> dict[str, Any]:
    return {"StringEquals": {f"{key}/{MANAGED_TAG}": "true"}}
