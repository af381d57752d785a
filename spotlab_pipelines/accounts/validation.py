"""What can SpotLab do in an account, and can anybody else? Tried out at AWS, kept in `accounts`, on record.

The door first: the role must stay shut without our external id and with a wrong one, else anybody who is a customer of
SpotLab could be led into this account (the confused deputy). A door that opens ends the validation: that verdict stands
whatever else AWS would answer, and no session is opened. Then the role must open with our id, then each action of the
read paths is tried, by DryRun or by a read of a few rows. Nothing here uses a cached session or keeps one.

Reference: IAM user guide, "The confused deputy problem".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from spotlab_pipelines.accounts.access import note_door_shut, store_verdict
from spotlab_pipelines.accounts.aws_answers import answer_of, aws_errors
from spotlab_pipelines.accounts.registry import EXTERNAL_ID_BYTES, Account, get_account, trust_policy
from spotlab_pipelines.accounts.report import AccessReport, Permission, RegionReach, Verdict
from spotlab_pipelines.accounts.rules import check_account_id, partition_of
from spotlab_pipelines.database.audit import record_alone
from spotlab_pipelines.errors import AccessDenied, InvalidInput, SourceMalformed, SourceUnavailable, SpotLabError

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.assuming import RoleAssumption
    from spotlab_pipelines.accounts.sessions import AccountSessions

PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "ec2:DescribeAvailabilityZones": ("describe_availability_zones", {"DryRun": True}),
    "ec2:DescribeInstanceTypes": ("describe_instance_types", {"DryRun": True, "MaxResults": 5}),
    "ec2:DescribeInstances": ("describe_instances", {"DryRun": True, "MaxResults": 5}),
    "ec2:DescribeSpotInstanceRequests": ("describe_spot_instance_requests", {"DryRun": True, "MaxResults": 5}),
    "ec2:DescribeSpotPriceHistory": ("describe_spot_price_history", {"DryRun": True, "MaxResults": 5}),
    "pricing:GetProducts": ("get_products", {"ServiceCode": "AmazonEC2", "MaxResults": 1}),
}
"""How each action of the READ policy is tried out: the client's method and its arguments, harmless in any case."""

WITHOUT_ID, WITH_WRONG_ID = "without an external id", "with a wrong external id"

REGION_REFUSED = ("AuthFailure", "OptInRequired")
"""How EC2 answers to good keys in a region that the account has not enabled."""

PRICING_REGION = "us-east-1"
"""Where the price list is asked for; accounts of the other partitions do not read it, as they have none of ours."""


def validate_account_access(sessions: AccountSessions, account_id: str) -> AccessReport:
    """Try out the account's role and keep the verdict in `accounts` and in the audit log.

    Raises:
        InvalidInput, NotFound: there is no such account.
        AccessDenied: SpotLab's own credentials are missing or refused, which says nothing about the account.
        Throttled, SourceUnavailable: AWS does not serve us now. No verdict is kept.
    """
    check_account_id(account_id)
    account = get_account(sessions.engine, account_id)
    with _recording(sessions, account_id):
        report = _examine(sessions, account)
    _store(sessions, report)
    return report


def check_door(sessions: AccountSessions, account_id: str) -> None:
    """Try only whether others are let in: two calls, which SpotLab may make every day. A lax account is marked.

    Raises:
        as `validate_account_access`.
    """
    account = get_account(sessions.engine, account_id)
    with _recording(sessions, account_id):
        report = _open_to_others(sessions, sessions.assumption(account))
    if report is None:
        note_door_shut(sessions.engine, account_id, actor=sessions.actor)
    else:
        _store(sessions, report)


@contextmanager
def _recording(sessions: AccountSessions, account_id: str) -> Iterator[None]:
    """Put a validation that came to no verdict on record."""
    try:
        yield
    except SpotLabError as error:
        entry = {"actor": sessions.actor, "account_id": account_id, "outcome": "failed", "reason": str(error)}
        record_alone(sessions.engine, "validate_access", **entry)
        raise


def _store(sessions: AccountSessions, report: AccessReport) -> None:
    store_verdict(
        sessions.engine,
        report.account_id,
        "access_broken" if report.verdict == "broken" else report.verdict,
        report.reason,
        actor=sessions.actor,
        granted_without_id=report.granted_without_id,
        granted_with_wrong_id=report.granted_with_wrong_id,
        denied=[f"{each.action} in {each.region}" for each in report.permissions if not each.allowed],
        unreachable=[each.region for each in report.regions if not each.reachable],
    )


def _examine(sessions: AccountSessions, account: Account) -> AccessReport:
    assumption = sessions.assumption(account)
    lax = _open_to_others(sessions, assumption)
    if lax is not None:
        return lax
    try:
        client, refused = sessions.fresh_clients(assumption), None
    except AccessDenied as error:
        if not assumption.refused:
            # Our own keys or our clock: that says nothing about the account.
            raise
        client, refused = None, str(error)
    regions, permissions = ((), ()) if client is None else _tried(account, client)
    verdict, reason, remedy = _judged(account, refused=refused, regions=regions, permissions=permissions)
    return AccessReport(
        account_id=account.account_id,
        verdict=verdict,
        assumable=client is not None,
        granted_without_id=False,
        granted_with_wrong_id=False,
        regions=regions,
        permissions=permissions,
        reason=reason,
        remedy=remedy,
    )


def _open_to_others(sessions: AccountSessions, assumption: RoleAssumption) -> AccessReport | None:
    """The report of a lax account, made as soon as one door opens; None if both stay shut."""
    if assumption.probe(None, WITHOUT_ID):
        return _lax(sessions, assumption.account, WITHOUT_ID, without=True, wrong=None)
    if assumption.probe(SecretStr(secrets.token_urlsafe(EXTERNAL_ID_BYTES)), WITH_WRONG_ID):
        return _lax(sessions, assumption.account, WITH_WRONG_ID, without=False, wrong=True)
    return None


def _lax(sessions: AccountSessions, account: Account, way: str, *, without: bool, wrong: bool | None) -> AccessReport:
    return AccessReport(
        account_id=account.account_id,
        verdict="lax",
        assumable=None,
        granted_without_id=without,
        granted_with_wrong_id=wrong,
        reason=f"AWS lets SpotLab assume {account.role_arn} {way}: so could anybody whom SpotLab acts for.",
        remedy="Replace the role's trust policy by the one given here, then validate again.",
        # Made when it is asked for: who SpotLab is takes a call of AWS, on which no verdict may depend.
        make_trust_policy=lambda: trust_policy(account, sessions.principal(account)),
    )


def _judged(
    account: Account,
    *,
    refused: str | None,
    regions: tuple[RegionReach, ...],
    permissions: tuple[Permission, ...],
) -> tuple[Verdict, str | None, str | None]:
    onboarding = f"`spotlab accounts onboarding {account.account_id}` prints a template of the role that has it all."
    if refused:
        return "broken", refused, "Replace the role's trust policy by ours. " + onboarding
    lost = [f"EC2 in {each.region} is not reachable ({each.reason})" for each in regions if not each.reachable]
    denied = [f"{each.action} may not be called in {each.region}" for each in permissions if not each.allowed]
    if lost or denied:
        remedy = "Enable the region, or allow the action in the role's policy, then validate again. " + onboarding
        return "broken", "; ".join(lost + denied) + ".", remedy
    return "ok", None, None


def _tried(
    account: Account, client: Callable[[str, str], Any]
) -> tuple[tuple[RegionReach, ...], tuple[Permission, ...]]:
    reached, permissions = [], []
    for region in account.regions:
        try:
            permissions += _permissions(account, client("ec2", region), region, "ec2:")
            reached.append(RegionReach(region, True))
        except SourceUnavailable as error:
            reached.append(RegionReach(region, False, str(error)))
    if partition_of(account.regions[0]) == partition_of(PRICING_REGION):
        try:
            permissions += _permissions(account, client("pricing", PRICING_REGION), PRICING_REGION, "pricing:")
        except SourceUnavailable as error:
            permissions.append(Permission("pricing:GetProducts", PRICING_REGION, False, str(error)))
    return tuple(reached), tuple(permissions)


def _permissions(account: Account, client: Any, region: str, prefix: str) -> Iterator[Permission]:
    for action, (method, arguments) in PROBES.items():
        if not action.startswith(prefix):
            continue
        code = ""
        try:
            with aws_errors(f"{action} of account {account.account_id} in {region}", account):
                try:
                    getattr(client, method)(**arguments)
                except Exception as error:
                    code, _ = answer_of(error)
                    raise
        except (AccessDenied, InvalidInput, SourceMalformed) as error:
            if code in REGION_REFUSED:
                # STS has just taken these keys, so nothing is wrong with them.
                raise SourceUnavailable(f"{code}: the account has not enabled the region.") from None
            would_do = code == "DryRunOperation"
            yield Permission(action, region, would_do, None if would_do else str(error))
        else:
            yield Permission(action, region, True)
