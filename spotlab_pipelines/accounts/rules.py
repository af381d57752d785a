"""AWS's own rules for what a registration and a session are made of. Pure: no database, no AWS.

Sources: the API reference of STS (AssumeRole) and IAM (CreateRole, RoleName and Path). Patterns are ASCII: Python's
`\\w` would let through letters that AWS refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from spotlab_pipelines.errors import InvalidInput

ACCOUNT_ID = re.compile(r"[0-9]{12}", re.ASCII)
REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}", re.ASCII)
ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):iam::(?P<account>[0-9]{12}):role(?P<path>/(?:[!-.0-~]+/)*)"
    r"(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
PRINCIPAL = re.compile(
    r"[0-9]{12}|arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:(root|(role|user)/[\w+=,.@/-]{1,512})", re.ASCII
)
EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
OTHER_PARTITION = re.compile(r"[a-z]+-iso[a-z]*-", re.ASCII)
MAIN_REGION = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
ALWAYS_ENABLED = frozenset(
    {
        *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
        *("ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1"),
        *("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
    }
)
"""Regions of the partition aws that every account has; the others, all launched since 2019, have to be enabled."""

SESSION_NAME_REFUSED = re.compile(r"[^\w+=,.@-]", re.ASCII)


def check_name(name: str, what: str, *, longest: int) -> str:
    """Return a name without spaces around it: `longest` characters at most, all of which show where it is printed.

    Args:
        what: whose name it is, for the message: "An account's name".

    Raises:
        InvalidInput: it is empty or too long, or has a character that a terminal would obey or hide, or that is none.
    """
    name = name.strip()
    if not 1 <= len(name) <= longest:
        raise InvalidInput(f"{what} has 1 to {longest} characters, got {len(name)}.", remedy="Choose another.")
    if not name.isprintable():
        raise InvalidInput(
            f"{what} has printable characters only, got {name!a}.",
            remedy="Leave out control characters, marks of writing direction and what has no width.",
        )
    return name


def partition_of(region: str) -> str:
    """The partition that a region belongs to: aws, aws-cn or aws-us-gov.

    Raises:
        InvalidInput: it is of another one (the isolated regions).
    """
    if OTHER_PARTITION.match(region):
        raise InvalidInput(
            f"Expected a region of the partition aws, aws-cn or aws-us-gov, got {region!r}.",
            remedy="SpotLab does not work in isolated regions.",
        )
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def sts_region(regions: Sequence[str]) -> str:
    """Where STS is asked for an account: in the first of its regions that nobody has to enable, else its partition's.

    A region that has to be enabled may not be so in the account that STS looks at, and then answers
    RegionDisabledException. What a regional endpoint issues is good in every region that the account has enabled.
    """
    main = MAIN_REGION[partition_of(regions[0])]
    return next((region for region in regions if region in ALWAYS_ENABLED or partition_of(region) != "aws"), main)


def check_account_id(account_id: str) -> str:
    """Return a valid account id.

    Raises:
        InvalidInput: not twelve ASCII digits.
    """
    if not isinstance(account_id, str) or not ACCOUNT_ID.fullmatch(account_id):
        raise InvalidInput(
            f"An AWS account id is 12 digits, got {account_id!r}.",
            remedy="Copy it from the account menu of the AWS console, without dashes and with its leading zeros.",
        )
    return account_id


def check_region(region: str) -> str:
    """Return a valid region's name of a partition that we work in.

    Raises:
        InvalidInput: it is not one.
    """
    if not isinstance(region, str) or not REGION.fullmatch(region):
        raise InvalidInput(f"Expected an AWS region like us-east-1, got {region!r}.", remedy="Correct the region.")
    partition_of(region)
    return region


def check_regions(regions: Iterable[str]) -> list[str]:
    """Return valid regions without repeats, in the given order.

    Raises:
        InvalidInput: none, one that is not a region's name, or regions of several partitions.
    """
    unique = list(dict.fromkeys(regions))
    if not unique:
        raise InvalidInput("An account needs at least one region.", remedy="Name those its fleet runs in: us-east-1.")
    for region in unique:
        check_region(region)
    if len({partition_of(region) for region in unique}) > 1:
        raise InvalidInput(
            f"An account lives in one AWS partition, but the regions {', '.join(unique)} are of several.",
            remedy="Name regions of one partition only.",
        )
    return unique


def check_role_arn(role_arn: str, account_id: str, regions: list[str]) -> str:
    """Return a valid ARN of a role in this account and in the regions' partition.

    Raises:
        InvalidInput: another shape, another account's, or another partition's.
    """
    match = ROLE_ARN.fullmatch(role_arn)
    if match is None or len(match["path"]) > 512:
        raise InvalidInput(
            f"Expected a role ARN like arn:aws:iam::{account_id}:role/SpotLab, got {role_arn!r}.",
            remedy="Copy the role's ARN from the IAM console.",
        )
    if match["account"] != account_id:
        raise InvalidInput(
            f"The role belongs to account {match['account']}, but account {account_id} is being registered.",
            remedy="Name a role of that account, or correct the account id.",
        )
    if match["partition"] != partition_of(regions[0]):
        raise InvalidInput(
            f"The role is in partition {match['partition']}, but region {regions[0]} is in {partition_of(regions[0])}.",
            remedy="Correct the ARN or the regions.",
        )
    return role_arn


def check_external_id(external_id: str) -> str:
    """Return an external id that STS takes. No message shows it.

    Raises:
        InvalidInput: a length or a character that STS refuses.
    """
    if not isinstance(external_id, str) or not EXTERNAL_ID.fullmatch(external_id):
        raise InvalidInput(
            "An external id has 2 to 1224 characters of A-Z, a-z, 0-9 and _+=,.@:/-; the stored one has not.",
            remedy="Register the account anew: external ids are generated by SpotLab.",
        )
    return external_id


def check_principal(principal: str) -> str:
    """Return the 12-digit id or the ARN of an account, role or user.

    Raises:
        InvalidInput: it is neither; "*", which would let everybody in, least of all.
    """
    if not isinstance(principal, str) or not PRINCIPAL.fullmatch(principal):
        raise InvalidInput(
            f"Expected the principal as a 12-digit account id or an IAM ARN of a role or user, got {principal!r}.",
            remedy="Name the AWS account or role that SpotLab runs as.",
        )
    return principal


def session_name(run_id: str | None) -> str:
    """A RoleSessionName (2–64 of `[\\w+=,.@-]`) that carries the id of the run or request that opens the session."""
    return SESSION_NAME_REFUSED.sub("-", f"spotlab-{run_id or 'manual'}")[:64]
