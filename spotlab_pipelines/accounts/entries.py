"""The credentials that a process holds, each with the clients that sign with them. Nothing here talks to AWS."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from spotlab_pipelines.accounts.policies import SessionPolicy
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.renewal import Renewal


@dataclass
class Entry:
    """One set of credentials, what renews it, and the clients that use it, by (service, region)."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    renewal: Renewal | None = None
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)


class Entries:
    """Entries by (account, role, external id, session policy): a changed role or id never meets an old session."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], Entry] = {}
        self._lock = threading.Lock()

    def of(self, account: Account, policy: SessionPolicy) -> Entry:
        """The account's entry under this policy; a new one if there is none."""
        key = (account.account_id, account.role_arn, account.external_id.get_secret_value(), policy.name)
        with self._lock:
            return self._entries.setdefault(key, Entry())
