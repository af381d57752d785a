"""Session policies: which actions an assumed session may call at all. Pure, and closed to what it does not understand.

A session may do what its role *and* its session policy allow. Evaluated are Effect, Action with * and ?, and
Resource "*"; an Allow with a condition allows nothing here, a Deny with one denies, whatever the condition says.

Reference: STS API reference, AssumeRole, parameter Policy; IAM user guide, "Session policies".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from spotlab_pipelines_tests.local_aws.wire import AwsError

POLICY_MAX = 2048
_KEYS = {"Sid", "Effect", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class SessionPolicy:
    """The actions that a session policy allows and denies, as patterns."""

    allowed: tuple[str, ...]
    denied: tuple[str, ...]

    def allows(self, action: str) -> bool:
        """Whether `service:Action` may be called."""
        return _any(self.allowed, action) and not _any(self.denied, action)


def read_session_policy(text: str) -> SessionPolicy:
    """The policy in AssumeRole's parameter Policy.

    Raises:
        AwsError: ValidationError if it is too long, MalformedPolicyDocument if it cannot be evaluated.
    """
    if len(text) > POLICY_MAX:
        raise AwsError("ValidationError", f"'policy' must have length less than or equal to {POLICY_MAX}")
    try:
        document = json.loads(text)
        statements = _listed(document["Statement"])
        fits = document["Version"] == "2012-10-17" and bool(statements) and all(_fits(one) for one in statements)
    except (ValueError, KeyError, TypeError):
        fits, statements = False, []
    if not fits:
        raise AwsError("MalformedPolicyDocument", "The policy is not in the expected format.")
    allowed = [one for one in statements if one["Effect"] == "Allow" and "Condition" not in one]
    denied = [one for one in statements if one["Effect"] == "Deny"]
    return SessionPolicy(_actions(allowed), _actions(denied))


def _fits(statement: dict[str, Any]) -> bool:
    known = not set(statement) - _KEYS and "Action" in statement
    return known and statement["Effect"] in ("Allow", "Deny") and statement["Resource"] == "*"


def _actions(statements: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(str(action) for statement in statements for action in _listed(statement["Action"]))


def _any(patterns: tuple[str, ...], action: str) -> bool:
    return any(
        re.fullmatch(translate(pattern.lower().replace("[", "[[]")), action.lower()) is not None for pattern in patterns
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
