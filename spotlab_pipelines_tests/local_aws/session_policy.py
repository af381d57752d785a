"""Session policies: what an assumed session may call, on what. Pure, and closed to what it does not understand.

A session may do what its role *and* its session policy allow. Evaluated are Effect, Action and Resource with * and ?,
and conditions with StringEquals and StringLike on the keys that the caller of `allows` knows. An Allow with any other
condition, or on a key that the request does not have, allows nothing; a Deny with one denies.

Reference: STS API reference, AssumeRole, parameter Policy; IAM user guide, "Session policies", "Policy evaluation".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from spotlab_pipelines_tests.local_aws.wire import AwsError

POLICY_MAX = 2048
_KEYS = {"Sid", "Effect", "Action", "Resource", "Condition"}
_RESOURCE = re.compile(r"\*|arn:[^:]+:[^:]*:[^:]*:[^:]*:.+", re.ASCII)


@dataclass(frozen=True)
class SessionPolicy:
    """A session policy's statements."""

    statements: tuple[Mapping[str, Any], ...]

    def allows(self, action: str, resource: str = "*", context: Mapping[str, str] | None = None) -> bool:
        """Whether `service:Action` may be called on a resource.

        Args:
            resource: its ARN; "*" for actions that have none.
            context: the request's condition keys and their values.
        """
        context = {key.lower(): value for key, value in (context or {}).items()}
        effects = {
            one["Effect"]
            for one in self.statements
            if _any(_listed(one["Action"]), action, fold=True)
            and _any(_listed(one["Resource"]), resource)
            and _holds(one, context)
        }
        return effects == {"Allow"}


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
    return SessionPolicy(tuple(statements))


def _fits(statement: dict[str, Any]) -> bool:
    known = not set(statement) - _KEYS and "Action" in statement
    resources = all(_RESOURCE.fullmatch(one) for one in _listed(statement["Resource"]))
    return known and statement["Effect"] in ("Allow", "Deny") and resources


def _holds(statement: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    met = [
        _condition(operator, _listed(wanted), context.get(key.lower()))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    ]
    return None not in met and all(met) if statement["Effect"] == "Allow" else all(one is not False for one in met)


def _condition(operator: str, wanted: list[Any], value: str | None) -> bool | None:
    """Whether a condition holds; None if that cannot be told."""
    if value is None:
        return None
    if operator == "StringEquals":
        return value in wanted
    return _any(wanted, value) if operator == "StringLike" else None


def _any(patterns: Iterable[Any], value: str, *, fold: bool = False) -> bool:
    wanted = [str(pattern).lower() if fold else str(pattern) for pattern in patterns]
    value = value.lower() if fold else value
    return any(re.fullmatch(translate(pattern.replace("[", "[[]")), value) is not None for pattern in wanted)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
