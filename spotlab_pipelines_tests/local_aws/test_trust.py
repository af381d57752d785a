"""Trust policies, case by case; the expected answers are IAM's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spotlab_pipelines_tests.local_aws.trust import Caller, PolicyError, may_assume

US = Caller("123456789012", "arn:aws:iam::123456789012:user/spotlab")
OUR_ROLE = Caller("123456789012", "arn:aws:sts::123456789012:assumed-role/Runner/worker-1")
ROOT = {"AWS": "arn:aws:iam::123456789012:root"}


def statement(principal: Any = None, effect: str = "Allow", action: Any = "sts:AssumeRole", **condition: Any) -> dict:
    made: dict[str, Any] = {"Effect": effect, "Principal": principal or ROOT, "Action": action}
    return made | ({"Condition": condition} if condition else {})


def allowed(
    *statements: dict, caller: Caller = US, external_id: str | None = "right", session: str = "spotlab"
) -> bool:
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    return may_assume(policy, caller, external_id=external_id, session_name=session)


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ({"AWS": "arn:aws:iam::123456789012:root"}, True),
        ({"AWS": "123456789012"}, True),
        ({"AWS": ["999999999999", "123456789012"]}, True),
        ({"AWS": "*"}, True),
        ("*", True),
        ({"AWS": "arn:aws:iam::123456789012:user/spotlab"}, True),
        ({"AWS": "arn:aws:iam::123456789012:user/somebody"}, False),
        ({"AWS": "arn:aws:iam::999999999999:root"}, False),
        ({"AWS": "arn:aws:iam::12345678901:root"}, False),
        ({"AWS": []}, False),
        ({"Service": "ec2.amazonaws.com"}, False),
    ],
)
def test_principals(principal: Any, expected: bool) -> None:
    assert allowed(statement(principal)) is expected


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ({"AWS": "arn:aws:iam::123456789012:role/Runner"}, True),
        ({"AWS": "arn:aws:iam::123456789012:role/teams/ml/Runner"}, True),
        ({"AWS": "arn:aws:sts::123456789012:assumed-role/Runner/worker-1"}, True),
        ({"AWS": "arn:aws:sts::123456789012:assumed-role/Runner/worker-2"}, False),
        ({"AWS": "arn:aws:iam::123456789012:role/Walker"}, False),
        ({"AWS": "arn:aws:iam::123456789012:root"}, True),
    ],
)
def test_principals_of_a_role_session(principal: Any, expected: bool) -> None:
    assert allowed(statement(principal), caller=OUR_ROLE) is expected


@pytest.mark.parametrize(
    ("condition", "sent", "expected"),
    [
        ({"StringEquals": {"sts:ExternalId": "right"}}, "right", True),
        ({"StringEquals": {"sts:ExternalId": "right"}}, "wrong", False),
        ({"StringEquals": {"sts:ExternalId": "right"}}, "Right", False),
        ({"StringEquals": {"sts:ExternalId": "right"}}, None, False),
        ({"StringEquals": {"STS:externalid": "right"}}, "right", True),
        ({"StringEquals": {"sts:ExternalId": ["other", "right"]}}, "right", True),
        ({"StringEqualsIfExists": {"sts:ExternalId": "right"}}, None, True),
        ({"StringEqualsIfExists": {"sts:ExternalId": "right"}}, "wrong", False),
        ({"StringEqualsIgnoreCase": {"sts:ExternalId": "RIGHT"}}, "right", True),
        ({"StringNotEquals": {"sts:ExternalId": "wrong"}}, "right", True),
        ({"StringNotEquals": {"sts:ExternalId": "wrong"}}, "wrong", False),
        ({"StringNotEquals": {"sts:ExternalId": "wrong"}}, None, True),
        ({"StringNotEquals": {"sts:ExternalId": ["right", "wrong"]}}, "right", False),
        ({"StringLike": {"sts:ExternalId": "ri*"}}, "right", True),
        ({"StringLike": {"sts:ExternalId": "r?ght"}}, "right", True),
        ({"StringLike": {"sts:ExternalId": "r[i]ght"}}, "right", False),
        ({"StringNotLike": {"sts:ExternalId": "ri*"}}, "right", False),
        ({"Null": {"sts:ExternalId": "false"}}, None, False),
        ({"Null": {"sts:ExternalId": "false"}}, "anything", True),
        ({"Null": {"sts:ExternalId": True}}, None, True),
        ({"StringEquals": {"sts:ExternalId": "right", "aws:PrincipalAccount": "999999999999"}}, "right", False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/*"}}, "right", True),
        ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/*"}}, "right", False),
        ({"StringEquals": {"sts:RoleSessionName": "spotlab"}}, "right", True),
        ({"ForAnyValue:StringEquals": {"sts:ExternalId": ["right", "other"]}}, "right", True),
        ({"ForAnyValue:StringEquals": {"sts:ExternalId": "right"}}, "wrong", False),
        ({"ForAnyValue:StringEquals": {"sts:ExternalId": "right"}}, None, False),
        ({"ForAnyValue:StringNotEquals": {"sts:ExternalId": "wrong"}}, None, False),
        ({"ForAllValues:StringEquals": {"sts:ExternalId": "right"}}, "right", True),
        ({"ForAllValues:StringEquals": {"sts:ExternalId": "right"}}, "wrong", False),
        ({"ForAllValues:StringEquals": {"sts:ExternalId": "right"}}, None, True),
    ],
)
def test_conditions(condition: dict[str, Any], sent: str | None, expected: bool) -> None:
    assert allowed(statement(**condition), external_id=sent) is expected


def test_the_principal_arn_of_a_session_is_its_role() -> None:
    role = {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/Runner"}
    assert allowed(statement(StringEquals=role), caller=OUR_ROLE)


@pytest.mark.parametrize(("partition", "expected"), [("aws-cn", True), ("aws", False), ("aws-us-gov", False)])
def test_a_principal_is_of_the_callers_partition(partition: str, expected: bool) -> None:
    caller = Caller("123456789012", "arn:aws-cn:iam::123456789012:user/spotlab")
    principal = {"AWS": f"arn:{partition}:iam::123456789012:root"}
    assert allowed(statement(principal), caller=caller) is expected


def test_deny_wins_over_allow_in_either_order() -> None:
    deny = statement("*", effect="Deny")
    assert not allowed(statement(), deny)
    assert not allowed(deny, statement())


def test_a_deny_with_a_condition_holds_only_where_it_applies() -> None:
    deny = statement("*", effect="Deny", StringNotEquals={"sts:ExternalId": "right"})
    assert allowed(statement(), deny, external_id="right")
    assert not allowed(statement(), deny, external_id="wrong")
    assert not allowed(statement(), deny, external_id=None)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("sts:*", True),
        ("*", True),
        ("sts:assumerole", True),
        (["sts:TagSession", "sts:AssumeRole"], True),
        ("sts:AssumeRoleWithSAML", False),
        ("sts:TagSession", False),
        ("ec2:*", False),
    ],
)
def test_actions(action: Any, expected: bool) -> None:
    assert allowed(statement(action=action)) is expected


def test_not_principal_denies_everyone_else() -> None:
    deny = {"Effect": "Deny", "NotPrincipal": ROOT, "Action": "sts:AssumeRole"}
    assert allowed(statement("*"), deny)
    assert not allowed(statement("*"), deny, caller=Caller("999999999999", "arn:aws:iam::999999999999:user/x"))


def test_no_statement_lets_nobody_in() -> None:
    assert not allowed()


@pytest.mark.parametrize(
    "policy",
    [
        "not json",
        "[]",
        "{}",
        json.dumps({"Statement": [statement(StringSounds={"sts:ExternalId": "right"})]}),
        json.dumps({"Statement": [statement() | {"Condition": {"ForAllValues:Null": {"sts:ExternalId": "false"}}}]}),
        json.dumps({"Statement": [statement(Bool={"aws:MultiFactorAuthPresent": "true"})]}),
        json.dumps({"Statement": [statement(StringEquals={"aws:PrincipalOrgID": "o-1"})]}),
        json.dumps({"Statement": [statement(), statement("*", effect="Deny", Unheard={"sts:ExternalId": "x"})]}),
        json.dumps({"Statement": [{**statement(), "NotAction": "sts:*"}]}),
        json.dumps({"Statement": [{**statement(), "Effect": "Perhaps"}]}),
        json.dumps({"Statement": [statement({"Nobody": "x"})]}),
    ],
)
def test_what_is_not_understood_is_an_error_even_beside_an_allow(policy: str) -> None:
    with pytest.raises(PolicyError):
        may_assume(policy, US, external_id="right", session_name="spotlab")
