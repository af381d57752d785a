"""Sessions of the local STS: AssumeRole with the target role's trust policy enforced, and what a key is worth now.

Signatures are not verified, as README.md says. Keys are worth something in their own partition only.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from spotlab_pipelines_tests.local_aws.session_policy import SessionPolicy, read_session_policy
from spotlab_pipelines_tests.local_aws.trust import Caller, PolicyError, may_assume
from spotlab_pipelines_tests.local_aws.wire import AwsError, Call, partition_of, sts_reply, xml_time

OWN_ACCOUNT = "123456789012"
"""The account of every key that no AssumeRole has issued: SpotLab's own."""
OWN_KEYS = {
    "AKIASPOTLABOWNKEY000": "aws",
    "AKIASPOTLABOWNKEYCN0": "aws-cn",
    "AKIASPOTLABOWNKEYGOV": "aws-us-gov",
}
"""SpotLab's own keys by the partition that issued each. Any other key that no AssumeRole issued is of aws."""
_ROLE_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::(\d{12}):role/([\w+=,.@/-]{1,512})", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_CHAINED_MAX_S = 3600


@dataclass(frozen=True)
class Session:
    """One assumed role: its caller, and until when its token is good."""

    caller: Caller
    role_id: str
    token: str
    expires_at: datetime
    policy: SessionPolicy | None = None
    revoked: bool = False


@dataclass
class Credentials:
    """The sessions issued so far.

    Attributes:
        lifetime_s: if set, every new session lives this long, whatever was asked for (to test renewal).
    """

    sessions: dict[str, Session] = field(default_factory=dict)
    lifetime_s: float | None = None

    def caller(self, call: Call) -> Caller:
        """Who signed a call.

        Raises:
            AwsError: the key is a temporary one that is unknown, has another token, or has expired.
        """
        session = self.sessions.get(call.access_key)
        if session is None and not call.access_key.startswith("ASIA"):
            if OWN_KEYS.get(call.access_key, "aws") != partition_of(call.region):
                raise _bad_key(call.service)
            return Caller(OWN_ACCOUNT, f"arn:{partition_of(call.region)}:iam::{OWN_ACCOUNT}:user/spotlab")
        if session is None or session.token != call.token or not _is_of(session.caller.arn, call.region):
            raise _bad_key(call.service)
        if session.expires_at <= datetime.now(UTC):
            raise _expired(call.service)
        return session.caller

    def expire(self, account_id: str) -> int:
        """End every session of an account now; returns how many there were."""
        of_account = {key: held for key, held in self.sessions.items() if held.caller.account_id == account_id}
        past = datetime.now(UTC) - timedelta(seconds=1)
        self.sessions |= {key: replace(held, expires_at=past) for key, held in of_account.items()}
        return len(of_account)

    def revoke(self, account_id: str) -> int:
        """Deny every session of an account everything, as IAM's "Revoke active sessions" does; returns how many.

        Such a session still tells who it is: GetCallerIdentity needs no permission.
        """
        of_account = {key: held for key, held in self.sessions.items() if held.caller.account_id == account_id}
        self.sessions |= {key: replace(held, revoked=True) for key, held in of_account.items()}
        return len(of_account)

    def is_revoked(self, call: Call) -> bool:
        """Whether the call's session was revoked."""
        session = self.sessions.get(call.access_key)
        return session is not None and session.revoked

    def assume_role(self, call: Call, caller: Caller) -> Response:
        """AssumeRole, decided by the trust policy of the role of the *target* account.

        Raises:
            AwsError: ValidationError for a malformed parameter, AccessDenied for everything else, as AWS.
        """
        role_arn, session_name = call.params.get("RoleArn", ""), call.params.get("RoleSessionName", "")
        external_id, duration_s = call.params.get("ExternalId"), int(call.params.get("DurationSeconds", 3600))
        arn = _ROLE_ARN.fullmatch(role_arn)
        if arn is None:
            raise AwsError("ValidationError", f"{role_arn} is invalid")
        _check("roleSessionName", session_name, _SESSION_NAME)
        if external_id is not None:
            _check("externalId", external_id, _EXTERNAL_ID)
        policy = read_session_policy(call.params["Policy"]) if "Policy" in call.params else None
        _check_duration(duration_s, chained=call.access_key in self.sessions)
        role = _role(arn[1], arn[2], role_arn) if _is_of(role_arn, call.region) else None
        if role is None or not _trusts(role, caller, external_id, session_name):
            raise AwsError(
                "AccessDenied",
                f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                403,
            )
        if duration_s > int(role.max_session_duration or 3600):
            raise AwsError(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            )
        arn_of_session = f"arn:{arn[1]}:sts::{arn[2]}:assumed-role/{arn[3].rpartition('/')[2]}/{session_name}"
        return self._issue(Caller(arn[2], arn_of_session), f"{role.id}:{session_name}", duration_s, policy)

    def allows(self, call: Call, action: str) -> bool:
        """Whether the session policy of a call's session, if there is one, allows `service:Action` on what it names."""
        session = self.sessions.get(call.access_key)
        if session is None or session.policy is None:
            return True
        account, policy = f"{partition_of(call.region)}:ec2:{call.region}:{session.caller.account_id}", session.policy
        if action == "ec2:TerminateInstances":
            return all(
                policy.allows(action, f"arn:{account}:instance/{instance_id}")
                for instance_id in call.params.get("InstanceIds", [])
            )
        if action == "ec2:RunInstances" and "IamInstanceProfile" in call.params:
            # The profile's role is taken to have its name, as where the console made both.
            profile = call.params["IamInstanceProfile"]
            name = (profile.get("Name") or profile.get("Arn", "")).rpartition("/")[2]
            role = f"arn:{partition_of(call.region)}:iam::{session.caller.account_id}:role/{name}"
            if not policy.allows("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}):
                return False
        return policy.allows(action)

    def _issue(self, caller: Caller, role_id: str, duration_s: float, policy: SessionPolicy | None) -> Response:
        key, secret = f"ASIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        expires_at = datetime.now(UTC) + timedelta(seconds=self.lifetime_s or duration_s)
        self.sessions[key] = Session(caller, role_id, secrets.token_urlsafe(120), expires_at, policy)
        return sts_reply(
            "AssumeRole",
            f"<AssumedRoleUser><AssumedRoleId>{role_id}</AssumedRoleId><Arn>{escape(caller.arn)}</Arn>"
            f"</AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId>"
            f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{self.sessions[key].token}</SessionToken>"
            f"<Expiration>{xml_time(expires_at)}</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize>",
        )

    def identity(self, call: Call, caller: Caller) -> Response:
        """GetCallerIdentity."""
        session = self.sessions.get(call.access_key)
        user_id = session.role_id if session else "AIDASPOTLABEXAMPLE"
        return sts_reply(
            "GetCallerIdentity",
            f"<Arn>{escape(caller.arn)}</Arn><UserId>{user_id}</UserId><Account>{caller.account_id}</Account>",
        )


def _is_of(arn: str, region: str) -> bool:
    return arn.split(":")[1] == partition_of(region)


def _role(partition: str, account_id: str, role_arn: str):
    from moto.iam.models import iam_backends

    roles = iam_backends[account_id][partition].roles.values()
    return next((role for role in roles if role.arn == role_arn), None)


def _trusts(role, caller: Caller, external_id: str | None, session_name: str) -> bool:
    try:
        return may_assume(role.assume_role_policy_document, caller, external_id=external_id, session_name=session_name)
    except PolicyError:
        return False


def _check(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {pattern.pattern}",
        )


def _check_duration(duration_s: int, *, chained: bool) -> None:
    if not 900 <= duration_s <= 43200:
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{duration_s}' at 'durationSeconds' failed to satisfy constraint: "
            "Member must have value between 900 and 43200",
        )
    if chained and duration_s > _CHAINED_MAX_S:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        )


def _bad_key(service: str) -> AwsError:
    if service == "ec2":
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if service in ("sts", "iam"):
        return AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    return AwsError("UnrecognizedClientException", "The security token included in the request is invalid.")


def _expired(service: str) -> AwsError:
    if service == "ec2":
        return AwsError("RequestExpired", "Request has expired.")
    if service in ("sts", "iam"):
        return AwsError("ExpiredToken", "The security token included in the request is expired", 403)
    return AwsError("ExpiredTokenException", "The security token included in the request is expired")
