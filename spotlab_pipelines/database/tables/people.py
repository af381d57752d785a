"""Who owns what, who proved to be whom, and who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from spotlab_pipelines.database.tables.base import (
    ACCESS_STATES,
    ACCOUNT_STATES,
    AUDIT_ACTIONS,
    AUDIT_OUTCOMES,
    ENVIRONMENTS,
    ROLES,
    Base,
    amount,
    new_id,
    now,
    one_of,
)


class User(Base):
    """A person who owns accounts or works in the laboratory."""

    __tablename__ = "users"
    __table_args__ = (
        one_of("role", ROLES),
        sa.CheckConstraint("email like '%_@_%'", name="email"),
        sa.CheckConstraint("password_hash like '$argon2id$%'", name="password_hash"),
    )

    id: Mapped[UUID] = new_id()
    email: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str] = mapped_column(server_default="user")
    active: Mapped[bool] = mapped_column(server_default=sa.true())
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    password_hash: Mapped[str | None]


class Login(Base):
    """Proof for a while that somebody is this user: whoever has the token that this is the hash of."""

    __tablename__ = "logins"
    __table_args__ = (
        sa.CheckConstraint("token_sha256 ~ '^[0-9a-f]{64}$'", name="token_sha256"),
        sa.CheckConstraint("expires_at > created_at", name="expires_at"),
    )

    id: Mapped[UUID] = new_id()
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    token_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime]


class Account(Base):
    """One customer AWS account; `external_id` is ours and never leaves this table but to AWS and to its owner."""

    __tablename__ = "accounts"
    __table_args__ = (
        one_of("environment", ENVIRONMENTS),
        one_of("state", ACCOUNT_STATES),
        one_of("access_state", ACCESS_STATES),
        sa.CheckConstraint("denials >= 0", name="denials"),
        sa.CheckConstraint("account_id ~ '^[0-9]{12}$'", name="account_id"),
        sa.CheckConstraint("cardinality(regions) > 0", name="regions"),
        sa.CheckConstraint("evaluation_interval_s between 60 and 86400", name="evaluation_interval_s"),
        amount("interruption_cost_usd"),
        sa.CheckConstraint("role_arn ~ ('^arn:aws[a-z-]*:iam::' || account_id || '\\:role/')", name="role_arn"),
        sa.CheckConstraint("length(external_id) between 22 and 1224", name="external_id"),
        sa.Index(
            "ix_accounts_account_id_marked",
            "account_id",
            postgresql_where=sa.text("access_state in ('lax', 'access_broken')"),
        ),
    )

    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    owner_id: Mapped[UUID] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"), index=True)
    environment: Mapped[str] = mapped_column(server_default="LAB")
    role_arn: Mapped[str]
    external_id: Mapped[str] = mapped_column(unique=True)
    regions: Mapped[list[str]]
    evaluation_interval_s: Mapped[int]
    interruption_cost_usd: Mapped[float]
    state: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    access_state: Mapped[str] = mapped_column(server_default="unknown")
    access_reason: Mapped[str | None]
    access_checked_at: Mapped[datetime | None]
    denials: Mapped[int] = mapped_column(server_default="0")


class AuditEntry(Base):
    """Who did what, when, with which outcome; never changed, never deleted. `audit.py` writes it."""

    __tablename__ = "audit_log"
    __table_args__ = (
        one_of("action", AUDIT_ACTIONS),
        one_of("outcome", AUDIT_OUTCOMES),
        sa.Index("ix_audit_log_at", sa.text("at desc")),
        sa.Index("ix_audit_log_account_id_at", "account_id", sa.text("at desc")),
        sa.Index("ix_audit_log_action_at", "action", sa.text("at desc")),
        sa.Index("ix_audit_log_actor_at", "actor", sa.text("at desc")),
    )

    id: Mapped[UUID] = new_id()
    at: Mapped[datetime] = now()
    actor: Mapped[str]
    action: Mapped[str]
    account_id: Mapped[str | None] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    subject: Mapped[str | None]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    request_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
