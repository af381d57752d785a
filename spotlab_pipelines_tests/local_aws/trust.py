"""Trust policies: may this caller assume this role? Pure, and closed to what it does not understand.

It evaluates what SpotLab's customers write: Principal (account root, bare account id, role, user or session ARN, a
list, "*"), Action, and conditions on sts:ExternalId, aws:PrincipalArn, aws:PrincipalAccount and the session's name
with the String operators and Null, each also with IfExists, and with ForAnyValue or ForAllValues before it. Deny wins.
Anything else is a PolicyError, which the server takes for a denial: a policy that cannot be evaluated must never let
anyone in.

Reference: IAM user guide, "IAM JSON policy elements: Principal", "… Condition operators", "Policy evaluation logic".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

ASSUME_ROLE = "sts:AssumeRole"
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringEqualsIgnoreCase": lambda value, wanted: value.casefold() == wanted.casefold(),
    "StringLike": lambda value, wanted: _like(value, wanted),
    "ArnEquals": lambda value, wanted: _like(value, wanted),
    "ArnLike": lambda value, wanted: _like(value, wanted),
}
_SETS = ("ForAnyValue:", "ForAllValues:")
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}
_STATEMENT_KEYS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "Condition"}
_ROLE_SESSION = re.compile(r"arn:(aws[\w-]*):sts::(\d{12}):assumed-role/([^/]+)/.+", re.ASCII)


class PolicyError(Exception):
    """A policy that cannot be evaluated: not JSON, an unknown element, operator or condition key."""


@dataclass(frozen=True)
class Caller:
    """Who calls: account, the ARN of the user or of the role session."""

    account_id: str
    arn: str

    @property
    def principal_arn(self) -> str:
        """What aws:PrincipalArn holds: of a role session, the role's ARN."""
        if session := _ROLE_SESSION.fullmatch(self.arn):
            partition, account_id, role = session.groups()
            return f"arn:{partition}:iam::{account_id}:role/{role}"
        return self.arn


def may_assume(policy: str, caller: Caller, *, external_id: str | None, session_name: str) -> bool:
    """Whether a role's trust policy lets `caller` assume it with this external id (None: none was sent).

    Raises:
        PolicyError: the policy cannot be evaluated.
    """
    context = {
        "sts:externalid": external_id,
        "sts:rolesessionname": session_name,
        "aws:principalarn": caller.principal_arn,
        "aws:principalaccount": caller.account_id,
    }
    # Every statement is evaluated before any counts, so that an unknown operator anywhere closes the door.
    effects = [statement["Effect"] for statement in _statements(policy) if _applies(statement, caller, context)]
    return "Deny" not in effects and "Allow" in effects


def _statements(policy: str) -> list[dict[str, Any]]:
    try:
        statements = _listed(json.loads(policy)["Statement"])
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"The trust policy is not a policy document ({error}).") from None
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise PolicyError("A statement needs the effect Allow or Deny.")
        if unknown := set(statement) - _STATEMENT_KEYS:
            raise PolicyError(f"Unknown or unsupported element {sorted(unknown)[0]} in a trust policy.")
        if "Action" not in statement or ("Principal" in statement) == ("NotPrincipal" in statement):
            raise PolicyError("A statement needs Action and one of Principal and NotPrincipal.")
    return statements


def _applies(statement: dict[str, Any], caller: Caller, context: dict[str, str | None]) -> bool:
    conditions = [
        _condition(operator, key, _listed(wanted), context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    ]
    if "Principal" in statement:
        principal = _is_principal(statement["Principal"], caller)
    else:
        principal = not _is_principal(statement["NotPrincipal"], caller)
    action = any(_like(ASSUME_ROLE.lower(), name.lower()) for name in _listed(statement["Action"]))
    return principal and action and all(conditions)


def _is_principal(principal: Any, caller: Caller) -> bool:
    if principal == "*":
        return True
    if not isinstance(principal, dict) or set(principal) - {"AWS", "Service", "Federated", "CanonicalUser"}:
        raise PolicyError('Principal must be "*" or a map of AWS, Service, Federated or CanonicalUser.')
    return any(_is_aws_principal(entry, caller) for entry in _listed(principal.get("AWS", [])))


def _is_aws_principal(entry: Any, caller: Caller) -> bool:
    if not isinstance(entry, str):
        raise PolicyError("A principal must be a string.")
    partition = caller.arn.split(":")[1]
    whole_account = {caller.account_id, f"arn:{partition}:iam::{caller.account_id}:root"}
    # A role's path is not part of its session's ARN, so a role is recognised by account and name.
    role = re.sub(r":role/.*/", ":role/", entry)
    return entry == "*" or entry in whole_account or entry == caller.arn or role == caller.principal_arn


def _condition(operator: str, key: str, wanted: list[Any], context: dict[str, str | None]) -> bool:
    if key.lower() not in context:
        raise PolicyError(f"Unknown condition key {key}.")
    if not all(isinstance(value, (str, bool)) for value in wanted):
        raise PolicyError(f"The values of {key} must be strings.")
    value = context[key.lower()]
    if operator == "Null":
        return (value is None) in [str(entry).lower() == "true" for entry in wanted]
    quantifier = next((prefix for prefix in _SETS if operator.startswith(prefix)), "")
    operator = operator.removeprefix(quantifier)
    name, if_exists = operator.removesuffix("IfExists"), operator.endswith("IfExists")
    negated = name in _NEGATED
    name = _NEGATED.get(name, name)
    if name not in _OPERATORS:
        raise PolicyError(f"Unknown condition operator {operator}.")
    if value is None:
        # As in IAM: without the key a positive operator fails and a negated one holds; of the set operators
        # ForAllValues holds for no value at all, which is why IAM warns of it, and ForAnyValue fails.
        return if_exists or (quantifier == "ForAllValues:" if quantifier else negated)
    return any(_OPERATORS[name](value, str(entry)) for entry in wanted) != negated


def _like(value: str, pattern: str) -> bool:
    # IAM knows * and ? only; fnmatch's brackets are taken literally.
    return re.fullmatch(translate(pattern.replace("[", "[[]")), value) is not None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
