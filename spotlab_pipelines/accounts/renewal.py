"""Credentials that AWS no longer takes in mid-run: dropped, assumed anew once, and the call is sent once more.

botocore renews credentials before they expire by the clock, but knows nothing of keys that were revoked or that end
sooner: it passes RequestExpired and its like on. The hook is botocore's own `needs-retry` event, after which it signs
the request again, with the credentials as they are then. The new ones come from the same account's RoleAssumption,
so that they are verified and on record as the first ones were.

A denial is never sent again. But AWS revokes sessions by denying them everything ("Revoke active sessions" attaches a
policy on aws:TokenIssueTime), which looks like any other denial: keys that were good for a while are dropped with it,
so that the next call is made with new ones, or fails by the name of the role.

Reference: IAM user guide, "Revoke IAM role temporary security credentials".
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

EXPIRED = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "RequestExpired",
        "UnrecognizedClientException",
    }
)
"""How EC2, STS and Pricing each say that they do not (any longer) take these keys."""

ACTION_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})

RENEW_AGAIN_AFTER_S = 60
"""New keys that are refused as well do not become better by renewing them at once: a region that is not enabled says
AuthFailure to any. So whatever AWS answers, an account's role is assumed out of turn once a minute at most."""

REVOKED_AFTER_S = 300
"""Age of keys from which a denied action drops them: below it they are no older than the permission that is missing."""

_SIGNED_WITH, _RENEWED = "spotlab_signed_with", "spotlab_renewed"
_KEY = re.compile(r"Credential=([^/,\s]+)/", re.ASCII)


@dataclass
class Renewal:
    """Renews one set of botocore's refreshable credentials when AWS asks for it; thread-safe.

    Attributes:
        credentials: what the clients of every attached session sign with.
    """

    credentials: Any
    _renewed_at: float = field(default=float("-inf"), init=False)
    _seen: tuple[str, float] = field(default=("", float("-inf")), init=False)

    def attach(self, session: Any) -> None:
        """Let every client of a botocore session renew its credentials, once per call at most."""
        # A client's signer listens to the same event of its own service, and the more specific listener comes first.
        session.register("request-created", self._remember)
        session.register("needs-retry", self._judge)

    def _remember(self, request: Any, **_: Any) -> None:
        signed = _KEY.search(_text(request.headers.get("Authorization", "")))
        key = request.context[_SIGNED_WITH] = signed[1] if signed else None
        if key is not None and key != self._seen[0]:
            self._seen = (key, time.monotonic())

    def _judge(self, response: Any, request_dict: dict[str, Any], **_: Any) -> int | None:
        context = request_dict["context"]
        code = response[1].get("Error", {}).get("Code") if response is not None else None
        if code in ACTION_DENIED:
            self._drop(context.get(_SIGNED_WITH))
        if code not in EXPIRED or context.get(_RENEWED):
            return None
        context[_RENEWED] = True
        return 0 if self._renew(context.get(_SIGNED_WITH)) else None

    def _renew(self, refused_key: str | None) -> bool:
        """Whether there are other keys now than those that were refused."""
        # Under botocore's own lock: of sixteen threads that are refused at once, one fetches for all.
        with self.credentials._refresh_lock:
            if not self._holds(refused_key):
                return True
            if time.monotonic() - self._renewed_at < RENEW_AGAIN_AFTER_S:
                return False
            self.credentials._protected_refresh(is_mandatory=True)
            self._renewed_at = time.monotonic()
            return True

    def _drop(self, denied_key: str | None) -> None:
        key, first_used_at = self._seen
        if key != denied_key or time.monotonic() - first_used_at < REVOKED_AFTER_S:
            return
        with self.credentials._refresh_lock:
            if self._holds(denied_key):
                # botocore fetches new ones before it signs the next request.
                self.credentials._expiry_time = datetime.now(UTC)

    def _holds(self, key: str | None) -> bool:
        held = self.credentials._frozen_credentials
        return held is None or held.access_key == key


def _text(header: Any) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else str(header)
