"""The role that a customer makes for SpotLab, as a CloudFormation template to deploy as it is.

Least privilege: the actions of policies.py and nothing else; those that move instances only where the customer switches
them on. JSON, because it is YAML too and needs no library. Nothing here talks to AWS.
"""

from __future__ import annotations

import json
from typing import Any

from spotlab_pipelines.accounts.assuming import SESSION_S
from spotlab_pipelines.accounts.policies import READ_STATEMENTS, SWITCH_STATEMENTS
from spotlab_pipelines.accounts.registry import Account, trust_document
from spotlab_pipelines.accounts.rules import ACCOUNT_ID, ROLE_ARN, check_principal
from spotlab_pipelines.errors import InvalidInput


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
    switching = {"PolicyName": "SpotLabSwitch", "PolicyDocument": _document(SWITCH_STATEMENTS)}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The role that SpotLab assumes in this account: it reads, and switches only if you enable it.",
        "Parameters": {
            "EnableSwitching": {
                "Type": "String",
                "Default": "false",
                "AllowedValues": ["true", "false"],
                "Description": "Let SpotLab launch and terminate instances; without it SpotLab only reads.",
            }
        },
        "Conditions": {"Switching": {"Fn::Equals": [{"Ref": "EnableSwitching"}, "true"]}},
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
                        {"Fn::If": ["Switching", switching, {"Ref": "AWS::NoValue"}]},
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
