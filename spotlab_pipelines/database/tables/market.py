"""What was seen of the accounts and of the market."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from spotlab_pipelines.database.tables.base import (
    ENDED_BY,
    EVENT_SOURCES,
    INSTANCE_STATES,
    LIFECYCLES,
    OUTCOME_SOURCES,
    PIPELINE_MODES,
    Base,
    new_id,
    now,
    one_of,
)


class Instance(Base):
    """One EC2 instance of an account, as last seen, and how the account's owner steers it.

    One that has ended stays, with the time at which it did or was first missed: windows of the past have a fleet. One
    that its owner stopped has an end until it runs again.
    `last_running_at` is when a sync last saw it run; `ended_by` who ended it where EC2 did not and somebody told.
    """

    __tablename__ = "instances"
    __table_args__ = (
        one_of("lifecycle", LIFECYCLES),
        one_of("pipeline_mode", PIPELINE_MODES),
        one_of("state", INSTANCE_STATES),
        sa.UniqueConstraint("account_id", "instance_id"),
        sa.CheckConstraint("ended_at is null or state in ('terminated', 'stopping', 'stopped')", name="ended_at"),
        one_of("ended_by", ENDED_BY),
        one_of("ended_source", OUTCOME_SOURCES),
        sa.CheckConstraint(
            "(ended_by is null) = (ended_source is null) and (ended_by is null or ended_at is not null)",
            name="ended_told",
        ),
        sa.Index(
            "ix_instances_account_id_instance_id_present",
            "account_id",
            "instance_id",
            postgresql_where=sa.text("state <> 'terminated'"),
        ),
    )

    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    instance_id: Mapped[str]
    region: Mapped[str]
    az_id: Mapped[str]
    instance_type: Mapped[str]
    product: Mapped[str]
    lifecycle: Mapped[str]
    state: Mapped[str]
    tags: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    launched_at: Mapped[datetime]
    spot_request_id: Mapped[str | None]
    assigned_version: Mapped[str | None] = mapped_column(sa.ForeignKey("model_registry.version", ondelete="RESTRICT"))
    pipeline_mode: Mapped[str] = mapped_column(server_default="LINEAR")
    shadow: Mapped[bool] = mapped_column(server_default=sa.false())
    first_seen_at: Mapped[datetime] = now()
    last_seen_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    ended_at: Mapped[datetime | None]
    last_running_at: Mapped[datetime | None]
    ended_by: Mapped[str | None]
    ended_source: Mapped[str | None]


class InterruptionEvent(Base):
    """One interruption of one instance, from whichever source told of it first.

    A persistent request's instance that EC2 stops and that is started again may be interrupted again: `number` counts.
    """

    __tablename__ = "interruption_events"
    __table_args__ = (
        one_of("source", EVENT_SOURCES),
        sa.CheckConstraint("number > 0", name="number"),
        sa.UniqueConstraint("account_id", "instance_id", "number"),
    )

    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    instance_id: Mapped[str]
    region: Mapped[str]
    az_id: Mapped[str]
    instance_type: Mapped[str]
    product: Mapped[str]
    source: Mapped[str]
    status_code: Mapped[str]
    spot_request_id: Mapped[str | None]
    occurred_at: Mapped[datetime]
    created_at: Mapped[datetime] = now()
    number: Mapped[int] = mapped_column(sa.SmallInteger, server_default="1")


class InterruptionOutcome(Base):
    """What became of an instance after one window in which it was logged, in the pool that it ran in.

    It depends on no version and no horizon: `v_labelled_predictions` says of each prediction whether its horizon ended
    interrupted, survived or censored. `watched_until` is how long the instance is known to have run undisturbed,
    `ended_by` who ended it where EC2 did not, `source` what told. A `settled` row will not change any more. The account
    is that of an evaluation, which refers to it.
    """

    __tablename__ = "interruption_outcomes"
    __table_args__ = (
        one_of("ended_by", ENDED_BY),
        one_of("source", OUTCOME_SOURCES),
        sa.CheckConstraint(
            "interrupted_at > window_start and watched_until <= interrupted_at",
            name="interrupted_at",
        ),
        sa.CheckConstraint("interrupted_at is null or source <> 'fleet'", name="told"),
        sa.CheckConstraint("settled or (interrupted_at is null and ended_by is null)", name="settled"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    instance_id: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str]
    instance_type: Mapped[str]
    az_id: Mapped[str]
    product: Mapped[str]
    interrupted_at: Mapped[datetime | None]
    watched_until: Mapped[datetime]
    ended_by: Mapped[str | None]
    source: Mapped[str]
    settled: Mapped[bool]
    resolved_at: Mapped[datetime] = now()


class Scrape(Base):
    """One collection of one source, whether it worked or not. `provenance` is what the source said of its answer."""

    __tablename__ = "scrapes"
    __table_args__ = (
        sa.CheckConstraint("row_count >= 0", name="row_count"),
        sa.Index("ix_scrapes_source_account_id_fetched_at", "source", "account_id", sa.text("fetched_at desc")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    source: Mapped[str]
    account_id: Mapped[str | None] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    region: Mapped[str | None]
    fetched_at: Mapped[datetime]
    row_count: Mapped[int]
    archive_path: Mapped[str | None]
    error: Mapped[str | None]
    provenance: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
