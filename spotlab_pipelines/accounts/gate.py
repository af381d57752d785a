"""Which accounts a session may be opened into at all: checked before AWS is asked anything.

The rules of AWS come first, then the mark that denials or validation left: a marked account is refused by name until
its next try, which is a validation, and let in if that goes well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from spotlab_pipelines.accounts.access import next_try
from spotlab_pipelines.accounts.registry import Account, get_account
from spotlab_pipelines.accounts.rules import check_account_id, check_region, check_role_arn
from spotlab_pipelines.errors import AccountSkipped


class Gate:
    """Lets registered accounts through, as they are in the database now; thread-safe.

    Args:
        retry_s: how long a marked account is left alone.
        validate: tries out a marked account's access and keeps the verdict.
    """

    def __init__(self, engine: sa.Engine, *, retry_s: float, validate: Callable[[str], object]) -> None:
        self._engine = engine
        self._retry_s, self._validate = retry_s, validate
        self._trials: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def admit(self, account_id: str, region: str) -> Account:
        """The account, if a session may be opened into it for this region.

        Raises:
            InvalidInput: the region is not of the role's partition, or a value breaks AWS's rules.
            NotFound: the account is not registered.
            AccountSkipped: it is marked as lax or broken, and it is not yet time for the next try, or that failed.
            Throttled, SourceUnavailable: the next try was due, and AWS does not serve us now.
        """
        check_account_id(account_id)
        check_region(region)
        account = get_account(self._engine, account_id)
        check_role_arn(account.role_arn, account_id, [region])
        if next_try(account, self._retry_s) is None:
            return account
        with self._lock:
            trial = self._trials.setdefault(account_id, threading.Lock())
        # One thread tries; the others wait for its verdict and then read it.
        with trial:
            return self._tried(get_account(self._engine, account_id))

    def _tried(self, account: Account) -> Account:
        due = next_try(account, self._retry_s)
        if due is not None and due <= datetime.now(UTC):
            self._validate(account.account_id)
            account = get_account(self._engine, account.account_id)
            due = next_try(account, self._retry_s)
        if due is None:
            return account
        raise AccountSkipped(
            f"Account {account.account_id} is skipped until {due:%Y-%m-%d %H:%M} UTC, because its access is"
            f" {account.access_state}: {account.access_reason or 'no reason given'}",
            remedy=f"Correct the role, then `spotlab accounts validate {account.account_id}`.",
        )
