"""Sessions into customers' AWS accounts: the only module that touches boto3 and botocore.

A session is an AssumeRole with the account's external id, for 3600 s, refreshed by botocore's own refreshable
credentials while it is in use. Before the first use, GetCallerIdentity must name the registered account. What is read
with a session is fleet.py's, spot_requests.py's and market/'s business.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from spotlab_pipelines.accounts.aws_answers import DEFAULT_MAX_PAGES, aws_errors
from spotlab_pipelines.accounts.registry import Account, get_account
from spotlab_pipelines.accounts.rules import session_name
from spotlab_pipelines.errors import AccessDenied, WrongAccount

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import DeferredRefreshableCredentials
    from botocore.session import Session
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_pricing import PricingClient

SESSION_S = 3600
"""Length of an assumed session: chained roles get no longer one, and at 900 s botocore would refresh at each call."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 5, 30, 4


@dataclass
class _Entry:
    """One set of credentials, and the sessions and clients that use it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    credentials: DeferredRefreshableCredentials | None = None
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)


class AccountSessions:
    """Sessions into registered accounts; thread-safe, to be shared by everything in a process.

    Credentials are cached by (account, role, external id), so that a changed role or id never meets an old session;
    clients by (service, region) besides.

    Args:
        engine: the domain database, where the accounts are.
        run_id: run or request that opens the sessions; AWS's audit trail shows it as the role session's name.
        max_pages: pages of one listing after which it is taken for a loop.
    """

    def __init__(self, engine: sa.Engine, *, run_id: str | None = None, max_pages: int = DEFAULT_MAX_PAGES) -> None:
        self.engine = engine
        self.max_pages = max_pages
        self._session_name = session_name(run_id)
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        self._lock = threading.Lock()
        _silence_aws_debugging()

    def get_ec2_client(self, account_id: str, region: str) -> EC2Client:
        """An EC2 client in the account; see `get_cross_account_session` for the errors."""
        return self._client(account_id, "ec2", region)

    def get_pricing_client(self, account_id: str, region: str) -> PricingClient:
        """A Pricing client in the account, in a region that has the Pricing API."""
        return self._client(account_id, "pricing", region)

    def get_cross_account_session(self, account_id: str, region: str) -> boto3.Session:
        """A boto3 session in the account. It is yours alone: boto3 sessions, unlike clients, are not thread-safe.

        Raises:
            NotFound: the account is not registered.
            AccessDenied: AWS refuses the role or the external id, or SpotLab itself has no credentials.
            WrongAccount: the role leads to another account.
            Throttled, SourceUnavailable: STS does not serve us now.
        """
        import boto3

        account = get_account(self.engine, account_id)
        entry = self._entry(account)
        with entry.lock:
            return boto3.Session(botocore_session=self._session(account, entry), region_name=region)

    def _client(self, account_id: str, service: str, region: str) -> Any:
        account = get_account(self.engine, account_id)
        entry = self._entry(account)
        with entry.lock:
            if (service, region) not in entry.clients:
                session = self._session(account, entry)
                with aws_errors(f"Opening {service} in {region} for account {account_id}", account):
                    client = session.create_client(service, region_name=region, config=_client_config())
                entry.clients[service, region] = client
            return entry.clients[service, region]

    def _entry(self, account: Account) -> _Entry:
        key = (account.account_id, account.role_arn, account.external_id.get_secret_value())
        with self._lock:
            return self._entries.setdefault(key, _Entry())

    def _session(self, account: Account, entry: _Entry) -> Session:
        """A botocore session with the account's credentials, which are assumed and verified if they are new."""
        with aws_errors(f"Assuming {account.role_arn} for account {account.account_id}", account):
            session = _base_session()
            if entry.credentials is not None:
                session._credentials = entry.credentials  # type: ignore[attr-defined]
                return session
            credentials = self._assume(account)
            session._credentials = credentials  # type: ignore[attr-defined]
            sts: Any = session.create_client("sts", region_name=account.regions[0], config=_client_config())
            came = sts.get_caller_identity()["Account"]
        if came != account.account_id:
            raise WrongAccount(
                f"The role of account {account.account_id} led to account {came}; its session was dropped.",
                remedy="Correct the role's ARN; nothing was read.",
            )
        entry.credentials = credentials
        return session

    def _assume(self, account: Account) -> DeferredRefreshableCredentials:
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        own = _base_session()
        source = _own_credentials(own)

        def client_creator(service: str, **options: Any) -> Any:
            options.setdefault("region_name", account.regions[0])
            return own.create_client(service, **(options | {"config": _client_config()}))

        fetcher = AssumeRoleCredentialFetcher(
            client_creator=client_creator,
            source_credentials=source,
            role_arn=account.role_arn,
            extra_args={
                "RoleSessionName": self._session_name,
                "ExternalId": account.external_id.get_secret_value(),
                "DurationSeconds": SESSION_S,
            },
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def own_account_id(region: str = "us-east-1") -> str:
    """The AWS account of SpotLab's own credentials: the principal that customers' roles have to trust.

    Raises:
        AccessDenied: there are no credentials, or AWS refuses them.
        Throttled, SourceUnavailable: STS does not serve us now.
    """
    with aws_errors("Asking AWS who SpotLab is"):
        session = _base_session()
        _own_credentials(session)
        sts: Any = session.create_client("sts", region_name=region, config=_client_config())
        return sts.get_caller_identity()["Account"]


def _own_credentials(session: Session) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise AccessDenied(
            "SpotLab has no AWS credentials of its own to assume roles with.",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with an instance role.",
        )
    return credentials


@lru_cache(maxsize=1)
def _loader() -> Any:
    """botocore's data loader, shared: with its own, each new session would read the same models again (0.2 s)."""
    from botocore.loaders import Loader, create_loader

    loader: Loader = create_loader()
    return loader


def _base_session() -> Session:
    """A botocore session with SpotLab's own credentials; it honours AWS's environment variables as they are now."""
    import botocore.session

    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    session.set_config_variable("sts_regional_endpoints", "regional")
    return session


@lru_cache(maxsize=1)
def _client_config() -> Any:
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=16,
    )


def _silence_aws_debugging() -> None:
    """Keep botocore from writing requests, external id and tokens included, to a log whose level is DEBUG."""
    for name in ("botocore", "boto3", "urllib3"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.INFO, logger.getEffectiveLevel()))
