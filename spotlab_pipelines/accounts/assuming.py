"""One AssumeRole: its arguments, the proof that it led to the right account, and its audit row.

sessions.py hands in the STS clients, so that boto3 stays there; botocore calls `fetch` whenever it needs credentials,
the first time and at each renewal, so that no credentials are ever used that were not verified and put on record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.accounts.access import note_assumed, note_denied
from spotlab_pipelines.accounts.aws_answers import answer_of, aws_errors
from spotlab_pipelines.accounts.policies import SessionPolicy
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.database.audit import record_alone
from spotlab_pipelines.errors import AccessDenied, SpotLabError, WrongAccount

SESSION_S = 3600
"""Length of an assumed session: chained roles get no longer one, and at 900 s botocore would refresh at each call."""

PROBE_S = 900
"""Length of a session that should not come about at all: the shortest there is."""

ASK_AGAIN_AFTER_S = 60
"""While old credentials are still good, botocore asks anew with each call; a refusal is not asked for again so soon."""

Keys = Mapping[str, str]


@dataclass
class RoleAssumption:
    """How one account's role is assumed under one session policy.

    Attributes:
        own_sts: an STS client with SpotLab's own credentials.
        sts_with: an STS client with the credentials that came.
        actor: who the audit log says did it.
        denials_max: refusals in a row with which the account is marked.
    """

    engine: sa.Engine
    account: Account
    policy: SessionPolicy
    session_name: str
    actor: str | None
    denials_max: int
    own_sts: Callable[[], Any]
    sts_with: Callable[[Keys], Any]
    _refused: tuple[float, AccessDenied] | None = field(default=None, init=False)

    def fetch(self) -> dict[str, str]:
        """New credentials, as botocore's refreshable credentials want them.

        Raises:
            AccessDenied: AWS refuses the role or the external id, or SpotLab itself has no credentials.
            WrongAccount: the role leads to another account; its credentials are dropped.
            Throttled, SourceUnavailable: STS does not serve us now.
        """
        if self._refused is not None and time.monotonic() - self._refused[0] < ASK_AGAIN_AFTER_S:
            raise type(self._refused[1])(str(self._refused[1]))
        self._refused = None
        with self._recording() as audit:
            answer = self._assume_role(self.account.external_id, SESSION_S, audit)
            keys = self._verified(answer["Credentials"])
        note_assumed(self.engine, self.account.account_id, **audit)
        return keys

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
                    self._assume_role(external_id, PROBE_S, audit)
                except Exception as error:
                    code, audit["request_id"] = answer_of(error)
                    raise
        except AccessDenied as error:
            outcome = "refused" if code == "AccessDenied" else "failed"
            record_alone(self.engine, "assume_role", **self._of_account(audit), outcome=outcome, reason=str(error))
            if outcome == "failed":
                raise
            return False
        except SpotLabError as error:
            record_alone(self.engine, "assume_role", **self._of_account(audit), outcome="failed", reason=str(error))
            raise
        record_alone(self.engine, "assume_role", **self._of_account(audit), outcome="done")
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
        answer = self.own_sts().assume_role(**arguments)
        audit["request_id"] = answer.get("ResponseMetadata", {}).get("RequestId")
        return answer

    @contextmanager
    def _recording(self) -> Iterator[dict[str, Any]]:
        """Put a failure inside the block on record. Only AWS's refusal of the role counts as a denial.

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
        except AccessDenied as error:
            if code == "AccessDenied" or isinstance(error, WrongAccount):
                self._refused = (time.monotonic(), error)
                note_denied(self.engine, account.account_id, str(error), denials_max=self.denials_max, **audit)
            elif code:
                self._failed(audit, error)
            raise
        except SpotLabError as error:
            self._failed(audit, error)
            raise

    def _failed(self, audit: dict[str, Any], error: SpotLabError) -> None:
        record_alone(self.engine, "assume_role", **self._of_account(audit), outcome="failed", reason=str(error))

    def _verified(self, given: Any) -> dict[str, str]:
        account = self.account
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
        came = self.sts_with(keys).get_caller_identity()["Account"]
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

    def _of_account(self, audit: dict[str, Any]) -> dict[str, Any]:
        return audit | {"account_id": self.account.account_id}
