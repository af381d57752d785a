"""What SpotLab may do in a customer's account, as data: the session policies that narrow every assumed role.

A session has the permissions that both its role and its session policy allow. So a role that may do everything can
still change nothing through a session that reads. onboarding.py gives a customer's role the same actions.
"""

from __future__ import annotations

import json
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
    "ec2:RunInstances",
    "ec2:TerminateInstances",
)


def allow(*actions: str, condition: dict[str, Any] | None = None) -> dict[str, Any]:
    """A statement that allows `actions` on every resource, where EC2 has no narrower one that fits any customer."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return statement if condition is None else statement | {"Condition": condition}


READ_STATEMENTS = (allow(*READ_ACTIONS),)
SWITCH_STATEMENTS = (
    allow(*LAUNCH_ACTIONS),
    # Tags only on what a launch makes, so that nobody's tags can be overwritten.
    allow("ec2:CreateTags", condition={"StringEquals": {"ec2:CreateAction": "RunInstances"}}),
    # An instance keeps its profile when it moves; the role may go to EC2 alone.
    allow(
        "iam:PassRole",
        condition={"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}},
    ),
)


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

SWITCH = SessionPolicy("switch", READ_STATEMENTS + SWITCH_STATEMENTS)
"""For moving instances, and for nothing else."""
