"""Credentials that AWS no longer takes in mid-run: dropped, assumed anew once, and the call is sent once more.

botocore renews credentials before they expire by the clock, but knows nothing of keys that were revoked or that end
sooner: it passes RequestExpired and its like on. The hook is botocore's own `needs-retry` event, after which it signs
the request again, with the credentials as they are then. The new ones come from the same account's RoleAssumption,
so that they are verified and on record as the first ones were. A denial is never sent again.
"""

from __future__ import annotations

import re
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

_SIGNED_WITH, _RENEWED = "spotlab_signed_with", "spotlab_renewed"
_KEY = re.compile(r"Credential=([^/,\s]+)/", re.ASCII)


def renew_when_expired(session: Any, credentials: Any) -> None:
    """Let every client of a botocore session renew the session's credentials, once per call, when AWS asks for it.

    Args:
        session: a botocore session.
        credentials: the botocore refreshable credentials that its clients sign with.
    """

    def remember(request: Any, **_: Any) -> None:
        signed = _KEY.search(_text(request.headers.get("Authorization", "")))
        request.context[_SIGNED_WITH] = signed[1] if signed else None

    def renew(response: Any, request_dict: dict[str, Any], **_: Any) -> int | None:
        context = request_dict["context"]
        code = response[1].get("Error", {}).get("Code") if response is not None else None
        if code not in EXPIRED or context.get(_RENEWED):
            return None
        context[_RENEWED] = True
        _renew(credentials, context.get(_SIGNED_WITH))
        return 0

    # A client's signer listens to the same event of its own service, and the more specific listener comes first.
    session.register("request-created", remember)
    session.register("needs-retry", renew)


def _renew(credentials: Any, refused_key: str | None) -> None:
    # Under botocore's own lock: of sixteen threads that are refused at once, one fetches for all.
    with credentials._refresh_lock:
        held = credentials._frozen_credentials
        if held is None or held.access_key == refused_key:
            credentials._protected_refresh(is_mandatory=True)


def _text(header: Any) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else str(header)
