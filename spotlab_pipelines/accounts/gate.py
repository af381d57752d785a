"""Which accounts a session may be opened into at all: checked before AWS is asked anything.

The rules of AWS come first; a disabled account is refused. Then the mark that denials or validation left: a marked
account is refused by name until its next try, which is a validation, and let in if that goes well. Before the first
session into any other account, and once a day from then on, its door is tried: a role may have been lax from the
beginning, or become so.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spotlab_pipelines.accounts.access import door_is_due, next_try
from spotlab_pipelines.accounts.registry import Account, get_account
from spotlab_pipelines.accounts.rules import check_account_id, check_region, check_role_arn
from spotlab_pipelines.errors import AccountSkipped

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.sessions import AccountSessions


class Gate:
    """Lets registered accounts through, as they are in the database now; thread-safe.

    Args:
        sessions: what an account's access is tried out with.
        retry_s: how long a marked account is left alone.
        recheck_s: how long a door that was seen shut is taken to be so.
    """

    def __init__(self, sessions: AccountSessions, *, retry_s: float, recheck_s: float) -> None:
        self._sessions, self._engine = sessions, sessions.engine
        self._retry_s, self._recheck_s = retry_s, recheck_s
        self._trials: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def admit(self, account_id: str, region: str) -> Account:
        """The account, if a session may be opened into it for this region.

        Raises:
            InvalidInput: the region is not of the role's partition, or a value breaks AWS's rules.
            NotFound: the account is not registered.
            AccountSkipped: it is disabled; or it is marked as lax or broken, and it is not yet time for the next try,
                or that failed.
            AccessDenied: its door was due, and SpotLab's own credentials are missing or refused.
            Throttled, SourceUnavailable: the next try or the door was due, and AWS does not serve us now.
        """
        check_account_id(account_id)
        check_region(region)
        account = get_account(self._engine, account_id)
        check_role_arn(account.role_arn, account_id, [region])
        if next_try(account, self._retry_s) is None and not door_is_due(account, self._recheck_s):
            return _active(account)
        with self._lock:
            trial = self._trials.setdefault(account_id, threading.Lock())
        # One thread tries; the others wait for its verdict and then read it.
        with trial:
            return self._tried(_active(get_account(self._engine, account_id)))

    def _tried(self, account: Account) -> Account:
        # Imported here: only the first session of a day and a marked account need it.
        from spotlab_pipelines.accounts.validation import check_door

        due = next_try(account, self._retry_s)
        if due is not None and due <= datetime.now(UTC):
            self._sessions.validate_account_access(account.account_id)
        elif door_is_due(account, self._recheck_s):
            check_door(self._sessions, account.account_id)
        account = get_account(self._engine, account.account_id)
        due = next_try(account, self._retry_s)
        if due is None:
            return account
        raise AccountSkipped(
            f"Account {account.account_id} is skipped until {due:%Y-%m-%d %H:%M} UTC, because its access is"
            f" {account.access_state}: {account.access_reason or 'no reason given'}",
            remedy=f"Correct the role, then `spotlab accounts validate {account.account_id}`.",
        )


def _active(account: Account) -> Account:
    if account.state == "disabled":
        raise AccountSkipped(
            f"Account {account.account_id} is disabled.",
            remedy=f"`spotlab accounts enable {account.account_id}` lets SpotLab in again.",
        )
    return account
