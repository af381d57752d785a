"""Sessions into customers' AWS accounts: the only module that touches boto3 and botocore.

A session is an AssumeRole with the account's external id and a session policy, for 3600 s, refreshed by botocore's own
refreshable credentials while it is in use. How a role is assumed and verified is assuming.py's, when keys are renewed
out of turn renewal.py's, which accounts are let in gate.py's. What is read with a session is others' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from spotlab_pipelines.accounts.assuming import RoleAssumption
from spotlab_pipelines.accounts.aws_answers import DEFAULT_MAX_PAGES, aws_errors, silence_aws_debugging
from spotlab_pipelines.accounts.entries import Entries, Entry
from spotlab_pipelines.accounts.gate import Gate
from spotlab_pipelines.accounts.own import OwnKeys
from spotlab_pipelines.accounts.policies import READ, SessionPolicy
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.renewal import Renewal
from spotlab_pipelines.accounts.rules import check_external_id, check_role_arn, session_name, sts_region
from spotlab_pipelines.errors import AccessDenied

if TYPE_CHECKING:
    import boto3
    from botocore.session import Session
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_pricing import PricingClient

    from spotlab_pipelines.accounts.report import AccessReport
    from spotlab_pipelines.settings import Settings

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 5, 30, 4


class AccountSessions:
    """Sessions into registered accounts; thread-safe, to be shared by everything in a process.

    Credentials and clients are cached (entries.py), accounts let in by gate.py. `of` makes one from settings.

    Args:
        engine: the domain database, where the accounts are.
        run_id: run or request that opens the sessions; AWS's audit trail and ours show it.
        max_pages: pages of one listing after which it is taken for a loop.
        denials_max, retry_s, recheck_s: the settings access_denials_max, access_retry_s and access_recheck_s.
        own_keys: which of SpotLab's own credentials serve which partition.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        run_id: str | None = None,
        max_pages: int = DEFAULT_MAX_PAGES,
        denials_max: int = 3,
        retry_s: float = 21600.0,
        recheck_s: float = 86400.0,
        own_keys: OwnKeys | None = None,
    ) -> None:
        self.engine = engine
        self.max_pages = max_pages
        self.actor = f"run:{run_id}" if run_id else None
        self._denials_max = denials_max
        self._own_keys = own_keys or OwnKeys()
        self._gate = Gate(self, retry_s=retry_s, recheck_s=recheck_s)
        self._session_name = session_name(run_id)
        self._entries = Entries()
        silence_aws_debugging()

    @classmethod
    def of(cls, settings: Settings, engine: sa.Engine, run_id: str | None = None) -> Self:
        """Sessions as the settings want them; the one way in which commands, assets and the doctor make them."""
        return cls(
            engine,
            run_id=run_id,
            max_pages=settings.max_pages,
            denials_max=settings.access_denials_max,
            retry_s=settings.access_retry_s,
            recheck_s=settings.access_recheck_s,
            own_keys=OwnKeys(settings.own_profiles),
        )

    def get_ec2_client(self, account_id: str, region: str, *, policy: SessionPolicy = READ) -> EC2Client:
        """An EC2 client in the account; see `get_cross_account_session` for the errors."""
        return self._client(account_id, "ec2", region, policy)

    def get_pricing_client(self, account_id: str, region: str) -> PricingClient:
        """A Pricing client in the account, in a region that has the Pricing API."""
        return self._client(account_id, "pricing", region, READ)

    def get_cross_account_session(self, account_id: str, region: str, *, policy: SessionPolicy = READ) -> boto3.Session:
        """A boto3 session in the account. It is yours alone: boto3 sessions, unlike clients, are not thread-safe.

        Args:
            policy: what the session may do at most, whatever the role allows; reading unless said otherwise.

        Raises:
            InvalidInput: the region is not of the role's partition, or a value breaks AWS's rules; AWS was not asked.
            NotFound: the account is not registered.
            AccountSkipped: it is disabled, or marked as lax or broken and not yet due for its next try.
            AccessDenied: AWS refuses the role or the external id, or SpotLab itself has no credentials.
            WrongAccount: the role leads to another account.
            Throttled, SourceUnavailable: STS does not serve us now.
        """
        import boto3

        account = self._gate.admit(account_id, region)
        entry = self._entries.of(account, policy)
        with entry.lock:
            session = self._session(entry, self.assumption(account, policy, admit=True))
        return boto3.Session(botocore_session=session, region_name=region)

    def validate_account_access(self, account_id: str) -> AccessReport:
        """Try out everything that SpotLab needs in the account, and keep the verdict: see validation.py."""
        # Imported here: that module opens sessions through this one.
        from spotlab_pipelines.accounts.validation import validate_account_access

        return validate_account_access(self, account_id)

    def assumption(
        self, account: Account, policy: SessionPolicy = READ, *, admit: bool = False, counts: bool = True
    ) -> RoleAssumption:
        """How the account's role is assumed, past every cache.

        Args:
            admit: ask the gate before each AssumeRole; validation goes past every mark.
            counts: a refusal counts towards the account's mark; not so for the doctor, which changes nothing.

        Raises:
            InvalidInput: the registration breaks one of AWS's rules.
        """
        check_role_arn(account.role_arn, account.account_id, list(account.regions))
        check_external_id(account.external_id.get_secret_value())
        home = sts_region(account.regions)
        return RoleAssumption(
            engine=self.engine,
            account=account,
            policy=policy,
            session_name=self._session_name,
            actor=self.actor,
            denials_max=self._denials_max if counts else None,
            own_sts=partial(_own_sts, home, self._own_keys),
            sts_with=partial(_sts_with, home),
            admit=partial(self._gate.admit, account.account_id, home) if admit else None,
        )

    def fresh_clients(self, assumption: RoleAssumption) -> Callable[[str, str], Any]:
        """Assume the role now; returns a maker of clients by (service, region), kept nowhere."""
        session = self._session(Entry(), assumption)
        return lambda service, region: session.create_client(service, region_name=region)

    def principal(self, account: Account) -> str:
        """The AWS account that the account's role has to trust: SpotLab's own, in the account's partition."""
        return own_account_id(sts_region(account.regions), self._own_keys)

    def _client(self, account_id: str, service: str, region: str, policy: SessionPolicy) -> Any:
        account = self._gate.admit(account_id, region)
        entry = self._entries.of(account, policy)
        with entry.lock:
            if (service, region) not in entry.clients:
                session = self._session(entry, self.assumption(account, policy, admit=True))
                with aws_errors(f"Opening {service} in {region} for account {account_id}", account):
                    client: Any = session.create_client(service, region_name=region)
                entry.clients[service, region] = client
            return entry.clients[service, region]

    def _session(self, entry: Entry, assumption: RoleAssumption) -> Session:
        """A botocore session with the account's credentials, which are assumed and verified if they are new."""
        from botocore.credentials import DeferredRefreshableCredentials

        account = assumption.account
        with aws_errors(f"Opening a session for account {account.account_id}", account):
            session = _base_session()
            if entry.renewal is None:
                credentials = DeferredRefreshableCredentials(assumption.fetch, "assume-role")
                credentials.get_frozen_credentials()
                entry.renewal = Renewal(credentials)
            session._credentials = entry.renewal.credentials  # type: ignore[attr-defined]
        entry.renewal.attach(session)
        return session


def own_account_id(region: str = "us-east-1", own_keys: OwnKeys | None = None) -> str:
    """The AWS account of SpotLab's own credentials: the principal that customers' roles have to trust.

    Args:
        region: any of the partition in question; STS is asked there.

    Raises:
        SettingsError, AccessDenied: the credentials are of another partition; there are none, or AWS refuses them.
        Throttled, SourceUnavailable: STS does not serve us now.
    """
    with aws_errors("Asking AWS who SpotLab is"), _own_sts(region, own_keys or OwnKeys()) as sts:
        return sts.get_caller_identity()["Account"]


@contextmanager
def _own_sts(region: str, own_keys: OwnKeys) -> Iterator[Any]:
    """An STS client at the region's own endpoint, with SpotLab's credentials of that partition."""
    session = _base_session(own_keys.profile(region))
    if session.get_credentials() is None:
        raise AccessDenied(
            "SpotLab has no AWS credentials of its own to assume roles with.",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with an instance role.",
        )
    with own_keys.used_in(region):
        yield session.create_client("sts", region_name=region)


def _sts_with(region: str, keys: Any) -> Any:
    return _base_session().create_client(
        "sts",
        region_name=region,
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
        aws_session_token=keys["token"],
    )


def _base_session(profile: str | None = None) -> Session:
    """A botocore session with SpotLab's own credentials; it honours AWS's environment variables as they are now."""
    import botocore.session

    session = botocore.session.Session(profile=profile)
    loader, config = _shared()
    session.register_component("data_loader", loader)
    session.set_config_variable("sts_regional_endpoints", "regional")
    # For boto3 sessions that we hand out too: their clients are made by others, and retry as ours do.
    session.set_default_client_config(config)
    return session


@lru_cache(maxsize=1)
def _shared() -> tuple[Any, Any]:
    """The data loader and configuration of all: with its own, each session would read the same models (0.2 s)."""
    from botocore.config import Config
    from botocore.loaders import create_loader

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=16,
    )
    return create_loader(), config
