"""An account's names of availability zones, which are aliases of its own, and the zone ids behind them.

They hardly ever change and every scrape needs them, so each answer is kept for a while, with the sessions that asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from weakref import WeakKeyDictionary

from spotlab_pipelines.accounts.aws_answers import aws_errors
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.errors import SourceMalformed

KEPT_FOR_S = 6 * 3600.0
"""How long an answer is good: zones are added to a region or opened to an account a few times a year."""

_lock = threading.Lock()
_answers: WeakKeyDictionary[AccountSessions, dict[tuple[str, str], tuple[float, dict[str, str]]]] = WeakKeyDictionary()


def availability_zones(
    sessions: AccountSessions, account_id: str, region: str, *, naming: Collection[str] = ()
) -> dict[str, str]:
    """Zone name -> zone id in one region, as this account sees it.

    Args:
        naming: names that are to be told. If an earlier answer lacks one, AWS is asked once more.

    Raises:
        AccessDenied, Throttled, SourceUnavailable: the account does not let us ask.
        SourceMalformed: AWS names no zone, or one without an id.
    """
    # Also when the answer is known: an account whose access is marked is left alone.
    client = sessions.get_ec2_client(account_id, region)
    with _lock:
        answers = _answers.setdefault(sessions, {})
        asked_at, known = answers.get((account_id, region), (float("-inf"), {}))
    if time.monotonic() - asked_at < KEPT_FOR_S and all(name in known for name in naming if name):
        return known
    account = get_account(sessions.engine, account_id)
    doing = f"DescribeAvailabilityZones of account {account_id} in {region}"
    with aws_errors(doing, account):
        zones = client.describe_availability_zones().get("AvailabilityZones", [])
    mapping = {zone.get("ZoneName", ""): zone.get("ZoneId", "") for zone in zones}
    if not mapping or not all(mapping) or not all(mapping.values()):
        raise SourceMalformed(
            f"{doing}: expected zones with a name and an id, got {mapping}.", remedy="Try again later."
        )
    with _lock:
        answers[account_id, region] = time.monotonic(), mapping
    return mapping


def zone_id(zones: Mapping[str, str], name: str, what: str) -> str:
    """The id of a zone by its name in the account.

    Raises:
        SourceMalformed: the account has no such zone.
    """
    if name not in zones:
        raise SourceMalformed(
            f"{what}: expected one of the account's zones {sorted(zones)}, got {name!r}.", remedy="Try again later."
        )
    return zones[name]
