"""Which AWS accounts there are, whose they are, and how SpotLab may enter them. Nothing here talks to AWS.

An account's external id is generated here, never accepted from outside, and leaves only to AWS and to its owner.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.accounts.acting import acting, actor_of
from spotlab_pipelines.accounts.rights import ActedUpon
from spotlab_pipelines.accounts.rules import check_account_id, check_name, check_regions, check_role_arn
from spotlab_pipelines.accounts.users import get_user
from spotlab_pipelines.database import tables
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import ENVIRONMENTS, User
from spotlab_pipelines.errors import InvalidInput, NotFound
from spotlab_pipelines.settings import INTERRUPTION_COST_USD_MAX

NAME_MAX = 100
EXTERNAL_ID_BYTES = 32
"""Random bytes of an external id: 256 bits, in 43 characters of the alphabet that STS takes."""


@dataclass(frozen=True)
class Account:
    """A registered account. `external_id` shows itself only to `get_secret_value()`, and to a login's user who does not
    own the account it is empty."""

    account_id: str
    name: str
    owner_email: str
    environment: str
    role_arn: str
    external_id: SecretStr
    regions: tuple[str, ...]
    evaluation_interval_s: int
    interruption_cost_usd: float
    state: str
    access_state: str = "unknown"
    access_reason: str | None = None
    access_checked_at: datetime | None = None


def add_account(
    engine: sa.Engine,
    *,
    account_id: str,
    name: str,
    owner_email: str,
    role_arn: str,
    regions: Iterable[str],
    environment: str = "LAB",
    evaluation_interval_s: int = 1800,
    interruption_cost_usd: float = 1.0,
    actor: str | None = None,
) -> Account:
    """Register an account and generate its external id.

    Args:
        interruption_cost_usd: what one interruption costs, in USD.
        actor: who registers it, for the audit log: `user:<id>`; by default the person at the command line.

    Raises:
        InvalidInput: a value breaks one of AWS's or our rules, or the account is registered already (the first
            registration stays as it is).
        NotFound: there is no such owner.
        NotAllowed: the actor is a user who may not register this: PROD, or for somebody else.
    """
    check_account_id(account_id)
    regions = check_regions(regions)
    check_role_arn(role_arn, account_id, regions)
    _check_terms(name, environment, evaluation_interval_s, interruption_cost_usd)
    if _select(engine, tables.Account.account_id == account_id):
        # Before the owner is looked for: whoever is asked to add a missing one then adds it for nothing.
        raise _registered_already(account_id)
    owner = get_user(engine, owner_email)
    statement = insert(tables.Account).values(
        account_id=account_id,
        name=name.strip(),
        owner_id=owner.id,
        environment=environment,
        role_arn=role_arn,
        external_id=secrets.token_urlsafe(EXTERNAL_ID_BYTES),
        regions=regions,
        evaluation_interval_s=evaluation_interval_s,
        interruption_cost_usd=interruption_cost_usd,
    )
    upon = ActedUpon(environment, own=actor == actor_of(owner.id))
    with acting(engine, "add_account", actor=actor, upon=upon, subject=account_id) as connection:
        added = connection.execute(
            statement.on_conflict_do_nothing(index_elements=["account_id"]).returning(tables.Account.id)
        ).one_or_none()
        if added is not None:
            record(
                connection,
                "add_account",
                actor=actor,
                account_id=account_id,
                environment=environment,
                role=role_arn,
                regions=list(regions),
                owner=str(owner.id),
            )
    if added is None:
        raise _registered_already(account_id)
    return get_account(engine, account_id)


def get_account(engine: sa.Engine, account_id: str) -> Account:
    """Return one account, whatever its state.

    Raises:
        NotFound: it is not registered.
    """
    found = _select(engine, tables.Account.account_id == account_id)
    if not found:
        raise not_registered(account_id)
    return found[0]


def list_accounts(engine: sa.Engine, state: str | None = "active") -> list[Account]:
    """Accounts by account id, those in `state` or, with None, all."""
    return _select(engine, sa.true() if state is None else tables.Account.state == state)


def trust_policy(account: Account, principal: str) -> str:
    """The trust policy to paste into the account's role: only `principal`, and only with the account's external id.

    Args:
        principal: ARN or 12-digit id of the AWS account or role that SpotLab runs as.

    Returns:
        JSON text. It holds the external id: show it to the account's owner only.
    """
    return json.dumps(trust_document(account, principal), indent=2)


def trust_document(account: Account, principal: Any) -> dict[str, Any]:
    """The trust policy as a document; `principal` may be what CloudFormation makes an ARN of.

    Raises:
        InvalidInput: whoever asked for the account is not its owner, and was not given its external id.
    """
    if not account.external_id.get_secret_value():
        raise InvalidInput(
            f"The trust policy of {account.account_id} holds its external id, which is its owner's alone.",
            remedy=f"Let {account.owner_email} ask for it.",
        )
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": account.external_id.get_secret_value()}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def check_environment(environment: str) -> None:
    """Refuse what is no environment.

    Raises:
        InvalidInput: it is neither LAB nor PROD.
    """
    if environment not in ENVIRONMENTS:
        raise InvalidInput(
            f"Expected the environment {' or '.join(ENVIRONMENTS)}, got {environment!r}.", remedy="Choose one of them."
        )


def _check_terms(name: str, environment: str, evaluation_interval_s: int, interruption_cost_usd: float) -> None:
    check_name(name, "An account's name", longest=NAME_MAX)
    check_environment(environment)
    if not 60 <= evaluation_interval_s <= 86400:
        raise InvalidInput(
            f"An evaluation interval is 60 to 86400 s, got {evaluation_interval_s}.", remedy="Choose one in between."
        )
    if not 0 <= interruption_cost_usd <= INTERRUPTION_COST_USD_MAX:
        raise InvalidInput(
            f"An interruption costs 0 to {INTERRUPTION_COST_USD_MAX:,.0f} USD, got {interruption_cost_usd}.",
            remedy="Correct the cost.",
        )


def _registered_already(account_id: str) -> InvalidInput:
    return InvalidInput(
        f"Account {account_id} is registered already; nothing was changed.", remedy="`spotlab accounts list` shows it."
    )


def not_registered(account_id: str) -> NotFound:
    """The error of an account that there is not."""
    return NotFound(f"Account {account_id} is not registered.", remedy="`spotlab accounts list` shows those that are.")


def _select(engine: sa.Engine, condition: sa.ColumnElement[bool]) -> list[Account]:
    account = tables.Account
    # Row-level security shows rows, not who may have a secret in them: behind it a function answers owners alone.
    secret = account.external_id
    if "login" in engine.get_execution_options():
        secret = sa.func.account_external_id(account.account_id).label("external_id")
    shown = [column for column in account.__table__.columns if column.name != "external_id"]
    query = (
        sa.select(*shown, secret, User.email)
        .join(User, User.id == account.owner_id)
        .where(condition)
        .order_by(account.account_id)
    )
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        Account(
            account_id=row["account_id"],
            name=row["name"],
            owner_email=row["email"],
            environment=row["environment"],
            role_arn=row["role_arn"],
            external_id=SecretStr(row["external_id"] or ""),
            regions=tuple(row["regions"]),
            evaluation_interval_s=row["evaluation_interval_s"],
            interruption_cost_usd=float(row["interruption_cost_usd"]),
            state=row["state"],
            access_state=row["access_state"],
            access_reason=row["access_reason"],
            access_checked_at=row["access_checked_at"],
        )
        for row in rows
    ]
