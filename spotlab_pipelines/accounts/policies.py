"""What SpotLab may do in a customer's account, as data: the session policies that narrow every assumed role.

A session has the permissions that both its role and its session policy allow. So a role that may do everything can
still change nothing through a session that reads. onboarding.py gives a customer's role the same actions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

POLICY_MAX = 2048
"""Characters of a session policy that STS takes."""

READ_ACTIONS = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
    "sts:GetCallerIdentity",
)
"""What the read paths call, and nothing else."""

LAUNCH_ACTIONS = (
    "ec2:CancelSpotInstanceRequests",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
)
"""What a launch looks at, and the taking back of a request: EC2 has no narrower resource or condition for most."""

MANAGED_TAG = "spotlab:managed"
"""The tag, with the value true, by which a customer's own role knows the instances that SpotLab may replace."""

PASSED_TO_EC2 = {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}}


def allow(*actions: str, resource: Any = "*", condition: dict[str, Any] | None = None) -> dict[str, Any]:
    """A statement that allows `actions`: on every resource, where EC2 has no narrower one that fits any customer."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return statement if condition is None else statement | {"Condition": condition}


READ_STATEMENTS = (allow(*READ_ACTIONS),)
TAG_LAUNCHED = allow("ec2:CreateTags", condition={"StringEquals": {"ec2:CreateAction": "RunInstances"}})
"""Tags only on what a launch makes, so that nobody's tags can be overwritten."""


@dataclass(frozen=True)
class SessionPolicy:
    """A session policy by name; the name is part of the key under which credentials are kept."""

    name: str
    statements: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        if len(self.document) > POLICY_MAX:
            raise ValueError(f"Session policy {self.name}: expected at most {POLICY_MAX} characters, got more.")

    @cached_property
    def document(self) -> str:
        """The policy as STS takes it: compact JSON."""
        return json.dumps({"Version": "2012-10-17", "Statement": list(self.statements)}, separators=(",", ":"))

    @property
    def actions(self) -> frozenset[str]:
        """Every action that a statement allows."""
        return frozenset(action for statement in self.statements for action in statement["Action"])


READ = SessionPolicy("read", READ_STATEMENTS)
"""For everything that only looks: the fleet, the market, outcomes."""


def switch_policy(*, terminates: Sequence[str] = (), passes: Sequence[str] = ()) -> SessionPolicy:
    """The session policy for moving instances: it may launch, and end or pass on only what is named here.

    Launching with a role of one's choice would be to have that role's permissions, so none can be passed unless named.

    Args:
        terminates: ARNs of the instances that are replaced.
        passes: ARNs of the roles in their instance profiles, which the new instances keep.
    """
    statements = [allow(*LAUNCH_ACTIONS, "ec2:RunInstances"), TAG_LAUNCHED]
    if terminates:
        statements.append(allow("ec2:TerminateInstances", resource=sorted(terminates)))
    if passes:
        statements.append(allow("iam:PassRole", resource=sorted(passes), condition=PASSED_TO_EC2))
    named = hashlib.sha256(json.dumps([sorted(terminates), sorted(passes)]).encode()).hexdigest()[:16]
    name = f"switch-{named}" if terminates or passes else "switch"
    return SessionPolicy(name, (*READ_STATEMENTS, *statements))
