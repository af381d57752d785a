"""What validation says of an account: the verdict, and everything that was tried. How is validation.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import SecretStr

Verdict = Literal["ok", "lax", "broken"]


@dataclass(frozen=True)
class Permission:
    """Whether one action may be called in one region."""

    action: str
    region: str
    allowed: bool
    reason: str | None = None


@dataclass(frozen=True)
class RegionReach:
    """Whether EC2 answers in one of the account's regions."""

    region: str
    reachable: bool
    reason: str | None = None


@dataclass(frozen=True)
class AccessReport:
    """What validation found.

    Attributes:
        verdict: ok; lax (the role opens without our external id); broken (it does not open, or lacks something).
        assumable: the role opens with our external id and leads to the account; None: not tried, as the role is lax.
        granted_without_id, granted_with_wrong_id: AWS let us in although it should not have; None: not tried, as the
            role was found lax before.
    """

    account_id: str
    verdict: Verdict
    assumable: bool | None
    granted_without_id: bool
    granted_with_wrong_id: bool | None
    regions: tuple[RegionReach, ...] = ()
    permissions: tuple[Permission, ...] = ()
    reason: str | None = None
    remedy: str | None = None
    make_trust_policy: Callable[[], str] | None = field(default=None, repr=False)

    @property
    def trust_policy(self) -> SecretStr | None:
        """For a lax role, what to paste. It holds the external id: show it to the owner only.

        Raises:
            AccessDenied, Throttled, SourceUnavailable: AWS does not tell who SpotLab is.
        """
        return None if self.make_trust_policy is None else SecretStr(self.make_trust_policy())
