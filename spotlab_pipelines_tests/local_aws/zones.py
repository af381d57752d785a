"""Availability zones: real zone ids, and each account's own names for them.

AWS shuffles zone names per account, so `us-east-1a` of one account is another zone than that of the next; only zone
ids (`use1-az1`) join across accounts. The shuffle here is seeded by account id and region: it is stable over restarts.
"""

from __future__ import annotations

import random
from functools import lru_cache


@lru_cache(maxsize=64)
def recorder_zones(region: str) -> dict[str, str]:
    """Zone name → zone id as the (nameless) account saw it that recorded a market; empty for an unknown region."""
    from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

    return {zone.name: zone.zone_id for zone in RegionsAndZonesBackend.zones.get(region, [])}


@lru_cache(maxsize=4096)
def account_zones(account_id: str, region: str) -> dict[str, str]:
    """Zone name → zone id as this account sees it: a permutation of the region's zones."""
    zones = recorder_zones(region)
    names, ids = sorted(zones), sorted(zones.values())
    random.Random(f"{account_id}/{region}").shuffle(ids)  # noqa: S311 (a shuffle, not a secret)
    return dict(zip(names, ids, strict=True))


@lru_cache(maxsize=4096)
def zone_names(account_id: str, region: str) -> dict[str, str]:
    """Zone id → this account's name for it."""
    return {zone_id: name for name, zone_id in account_zones(account_id, region).items()}
