"""One AssumeRole: its arguments, the proof that it led to the right account, and its audit row.

sessions.py hands in the STS clients, so that boto3 stays there; botocore calls `fetch` whenever it needs credentials,
the first time and at each renewal, so that no credentials are ever used that were not verified and put on record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.accounts.access import note_assumed, note_denied
from spotlab_pipelines.accounts.aws_answers import NOT_AWS, ROLE_REFUSED, answer_of, aws_errors
from spotlab_pipelines.accounts.policies import SessionPolicy
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.database.audit import record_alone
from spotlab_pipelines.errors import AccessDenied, SourceMalformed, SpotLabError, WrongAccount

SESSION_S = 3600
"""Length of an assumed session: chained roles get no longer one, and at 900 s botocore would refresh at each call."""

PROBE_S = 900
"""Length of a session that should not come about at all: the shortest there is."""

ASK_AGAIN_AFTER_S = 60
"""While old credentials are still good, botocore asks anew with each call; what failed is not asked again so soon."""

ISSUED = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
"""What AssumeRole's answer says of the credentials that it grants."""

Keys = Mapping[str, str]


@dataclass
class RoleAssumption:
    """How one account's role is assumed under one session policy.

    Attributes:
        own_sts: a block with an STS client that has SpotLab's own credentials.
        sts_with: an STS client with the credentials that came.
        actor: who the audit log says did it.
        denials_max: refusals in a row with which the account is marked; None: they are on record and do not count.
        admit: asked before each AssumeRole, because a client may be held for longer than its account is let in; None
            for validation, which goes past every mark.
    """

    engine: sa.Engine
    account: Account
    policy: SessionPolicy
    session_name: str
    actor: str | None
    denials_max: int | None
    own_sts: Callable[[], AbstractContextManager[Any]]
    sts_with: Callable[[Keys], Any]
    admit: Callable[[], object] | None = None
    _last_failure: tuple[float, SpotLabError] | None = field(default=None, init=False)
    _refused: bool = field(default=False, init=False)
    _good_until: datetime = field(default=datetime.min.replace(tzinfo=UTC), init=False)

    @property
    def refused(self) -> bool:
        """Whether the last `fetch` failed because of the account: AWS refused the role, or it led elsewhere."""
        return self._refused

    def fetch(self) -> dict[str, str]:
        """New credentials, as botocore's refreshable credentials want them.

        Raises:
            AccessDenied: AWS refuses the role or the external id, or SpotLab itself has no credentials.
            WrongAccount: the role leads to another account; its credentials are dropped.
            AccountSkipped: the account has been marked or disabled since the client was made.
            Throttled, SourceUnavailable: STS does not serve us now.
            SourceMalformed: what answered is not STS.
        """
        self._not_again_so_soon()
        self._refused = False
        try:
            if self.admit is not None:
                self.admit()
            with self._recording() as audit:
                keys = self._verified(self._assume_role(self.account.external_id, SESSION_S, audit))
        except SpotLabError as error:
            self._last_failure = (time.monotonic(), error)
            raise
        note_assumed(self.engine, self.account.account_id, counts=self.denials_max is not None, **audit)
        self._good_until = datetime.fromisoformat(keys["expiry_time"])
        return keys

    def _not_again_so_soon(self) -> None:
        failure, self._last_failure = self._last_failure, None
        if failure is None or time.monotonic() - failure[0] >= ASK_AGAIN_AFTER_S:
            return
        # Without keys that are still good only a refusal is worth remembering: anything else may be over by now.
        if self._refused or datetime.now(UTC) < self._good_until:
            self._last_failure = failure
            raise type(failure[1])(str(failure[1]))

    def probe(self, external_id: SecretStr | None, named: str) -> bool:
        """Whether AWS grants the role with another external id, or with none; what it grants is thrown away.

        Args:
            named: what is wrong with the id, for the audit row.

        Raises:
            SpotLabError: AWS neither granted nor refused it, so that nothing is known.
        """
        account = self.account
        audit: dict[str, Any] = self._audit() | {"probe": named}
        code = ""
        try:
            with aws_errors(f"Probing {account.role_arn} of account {account.account_id} {named}", account):
                try:
                    _issued(self._assume_role(external_id, PROBE_S, audit), "AccessKeyId")
                except Exception as error:
                    code, request_id = answer_of(error)
                    audit["request_id"] = request_id or audit["request_id"]
                    raise
        except Exception as error:
            if code in ROLE_REFUSED:
                self._record(audit, error, outcome="refused")
                return False
            self._record(audit, error)
            raise
        record_alone(self.engine, "assume_role", account_id=account.account_id, outcome="done", **audit)
        return True

    def _assume_role(self, external_id: SecretStr | None, duration_s: int, audit: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {
            "RoleArn": self.account.role_arn,
            "RoleSessionName": self.session_name,
            "Policy": self.policy.document,
            "DurationSeconds": duration_s,
        }
        if external_id is not None:
            arguments["ExternalId"] = external_id.get_secret_value()
        with self.own_sts() as sts:
            answer = sts.assume_role(**arguments)
        audit["request_id"] = answer.get("ResponseMetadata", {}).get("RequestId")
        return answer

    @contextmanager
    def _recording(self) -> Iterator[dict[str, Any]]:
        """Put a failure inside the block on record, whatever it is. Only AWS's refusal of the role counts as a denial.

        Keys of our own that are missing or expired say nothing about the customer's account.
        """
        account, audit = self.account, self._audit()
        code = ""
        try:
            with aws_errors(f"Assuming {account.role_arn} for account {account.account_id}", account):
                try:
                    yield audit
                except Exception as error:
                    code, request_id = answer_of(error)
                    audit["request_id"] = request_id or audit["request_id"]
                    raise
        except Exception as error:
            self._refused = code in ROLE_REFUSED or isinstance(error, WrongAccount)
            if self._refused and self.denials_max is None:
                self._record(audit, error, outcome="refused")
            elif self._refused and self.denials_max is not None:
                note_denied(self.engine, account.account_id, str(error), denials_max=self.denials_max, **audit)
            else:
                self._record(audit, error)
            raise

    def _record(self, audit: dict[str, Any], error: Exception, *, outcome: str = "failed") -> None:
        # The text of an error that is not ours may quote what was sent.
        reason = str(error) if isinstance(error, SpotLabError) else type(error).__name__
        entry = audit | {"account_id": self.account.account_id, "outcome": outcome, "reason": reason}
        record_alone(self.engine, "assume_role", **entry)

    def _verified(self, answer: Any) -> dict[str, str]:
        account = self.account
        given = _issued(answer, *ISSUED)
        keys = {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }
        if given["Expiration"] <= datetime.now(UTC):
            raise AccessDenied(
                f"Expected credentials for account {account.account_id} that are good for {SESSION_S} s, got some that"
                " are expired already.",
                remedy="Set this machine's clock.",
            )
        came = _present(self.sts_with(keys).get_caller_identity(), "GetCallerIdentity", "Account")["Account"]
        if came != account.account_id:
            raise WrongAccount(
                f"The role of account {account.account_id} led to account {came}; its session was dropped.",
                remedy="Correct the role's ARN; nothing was read.",
            )
        return keys

    def _audit(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "request_id": None,
            "role": self.account.role_arn,
            "session_policy": self.policy.name,
            "session_name": self.session_name,
        }


def _issued(answer: Any, *names: str) -> Any:
    return _present(answer.get("Credentials") or {}, "AssumeRole", *names)


def _present(answer: Any, call: str, *names: str) -> Any:
    """The answer, if it holds everything that AWS documents."""
    missing = [name for name in names if not answer.get(name)]
    if missing:
        raise SourceMalformed(
            f"{call}: expected {', '.join(names)}, got an answer without {', '.join(missing)}.",
            remedy=NOT_AWS,
        )
    return answer
