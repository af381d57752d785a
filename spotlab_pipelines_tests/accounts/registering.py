"""Registering accounts in the registry and in the local AWS alike; no test lives here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import Account, add_account
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database import tables
from spotlab_pipelines.database.tables import AuditEntry
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance

if TYPE_CHECKING:
    from spotlab_pipelines_tests.local_aws.server import LocalAws

ANA = "ana@example.com"
FLEET = (
    FleetInstance("m5.large", "us-east-1", "use1-az1", tags={"team": "web"}),
    FleetInstance("c5.xlarge", "us-east-1", "use1-az2", lifecycle="on-demand"),
)


def register(engine: sa.Engine, account_id: str = "111122223333", **changes: Any) -> Account:
    """An account in the registry, owned by Ana; `changes` replace its values."""
    add_user(engine, ANA)
    values: dict[str, Any] = {
        "account_id": account_id,
        "name": f"Account {account_id}",
        "owner_email": ANA,
        "role_arn": f"arn:aws:iam::{account_id}:role/SpotLab",
        "regions": ["us-east-1"],
    }
    return add_account(engine, **(values | changes))


def register_in_aws(
    engine: sa.Engine,
    local_aws: LocalAws,
    account_id: str = "111122223333",
    *,
    fleet: Sequence[FleetInstance] = FLEET,
    regions: Sequence[str] = ("us-east-1",),
    door: Literal["seen shut", "never tried"] = "seen shut",
    **aws: Any,
) -> Account:
    """An account in the registry whose role in the local AWS demands the account's external id.

    Its door counts as tried a moment ago unless said otherwise, so that a test sees its own calls alone.
    """
    account = register(engine, account_id, regions=list(regions))
    if door == "seen shut":
        with engine.begin() as connection:
            this = sa.update(tables.Account).where(tables.Account.account_id == account_id)
            connection.execute(this.values(access_checked_at=sa.func.now()))
    demanded: dict[str, Any] = {"external_id": account.external_id.get_secret_value()} | aws
    local_aws.add_account(account_id, regions=regions, fleet=fleet, **demanded)
    return account


def audit_rows(engine: sa.Engine, action: str | None = None) -> list[dict[str, Any]]:
    """The audit log in the order of its making, or the rows of one action."""
    query = sa.select(AuditEntry.__table__).order_by(AuditEntry.at)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [row for row in rows if action in (None, row["action"])]


def count_calls(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, action: str) -> list[dict[str, Any]]:
    """A list that grows with each call of `action` that reaches the local AWS."""
    seen: list[dict[str, Any]] = []
    take = local_aws.app.faults.take

    def counting(name: str, **where: Any) -> Any:
        if name == action:
            seen.append(where)
        return take(name, **where)

    monkeypatch.setattr(local_aws.app.faults, "take", counting)
    return seen
