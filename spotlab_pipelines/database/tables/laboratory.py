"""Versions, what they said of which instance, and what was decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from spotlab_pipelines.database.tables.base import (
    DECISIONS,
    EVALUATION_STATES,
    MODEL_ROLES,
    MODEL_STATUSES,
    PIPELINE_MODES,
    REQUEST_SOURCES,
    REQUEST_STATES,
    Base,
    amount,
    new_id,
    now,
    one_of,
    probability,
)


class ModelVersion(Base):
    """What may be served: one row per registered version, with the hash of its artifact as it was approved."""

    __tablename__ = "model_registry"
    __table_args__ = (
        one_of("status", MODEL_STATUSES),
        one_of("role", MODEL_ROLES),
        sa.CheckConstraint("version = family || '/' || number", name="version"),
        sa.CheckConstraint("number > 0", name="number"),
        sa.CheckConstraint("artifact_sha256 ~ '^[0-9a-f]{64}$'", name="artifact_sha256"),
        sa.CheckConstraint("training_sha256 ~ '^[0-9a-f]{64}$'", name="training_sha256"),
        sa.CheckConstraint("role = 'none' or status = 'approved'", name="served_is_approved"),
        sa.UniqueConstraint("family", "number"),
        sa.Index("uq_model_registry_champion", "role", unique=True, postgresql_where=sa.text("role = 'champion'")),
    )

    id: Mapped[UUID] = new_id()
    version: Mapped[str] = mapped_column(unique=True)
    family: Mapped[str]
    number: Mapped[int]
    feature_spec: Mapped[str]
    horizons_h: Mapped[list[int]]
    artifact_uri: Mapped[str]
    artifact_sha256: Mapped[str]
    mlflow_run_id: Mapped[str]
    mlflow_model_id: Mapped[str | None]
    metrics: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    reference: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    training_sha256: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="candidate")
    role: Mapped[str] = mapped_column(server_default="none")
    registered_by: Mapped[str]
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()


class Evaluation(Base):
    """One scoring of one account for one window. `step` numbers an account's evaluations from 1, for MLflow's axis.

    `details` says what is worth knowing of it besides counts: `drift` by version, `on_demand_usd_per_hour` by pool of
    its instances, and of one that was made of the past `retrospective`, with what was not known then.
    `outcomes_settled`: no label of what it logged will change any more.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        one_of("state", EVALUATION_STATES),
        sa.CheckConstraint("step > 0", name="step"),
        sa.CheckConstraint("(state = 'failed') = (error is not null)", name="error"),
        sa.CheckConstraint("state <> 'logged' or snapshot_id is not null", name="snapshot_id"),
        sa.UniqueConstraint("account_id", "window_start"),
        sa.UniqueConstraint("account_id", "step"),
        sa.Index("ix_evaluations_window_start_account_id", sa.text("window_start desc"), "account_id"),
        sa.Index(
            "ix_evaluations_account_id_window_start_unsettled",
            "account_id",
            "window_start",
            postgresql_where=sa.text("state = 'logged' and not outcomes_settled"),
        ),
    )

    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    window_start: Mapped[datetime]
    step: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="running")
    run_id: Mapped[str | None]
    snapshot_id: Mapped[str | None]
    counts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    failed_at_step: Mapped[str | None]
    error: Mapped[str | None]
    started_at: Mapped[datetime] = now()
    finished_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    outcomes_settled: Mapped[bool] = mapped_column(server_default=sa.false())


class ExperimentLog(Base):
    """What one version said about one instance at one horizon, and what was decided; partitioned by window_start.

    `p_current` is the interruption probability of the pool the instance is in, `p_target` that of the pool the
    decision moves it to; an on-demand instance has no pool that EC2 could reclaim, so its `p_current` is null.
    A SKIP row is an instance that could not be scored; its reason says why.
    """

    __tablename__ = "experiment_logs"
    __table_args__ = (
        one_of("decision", DECISIONS),
        one_of("model_role", MODEL_ROLES),
        one_of("pipeline_mode", PIPELINE_MODES),
        probability("p_current"),
        probability("p_target"),
        amount("from_price_usd_per_hour"),
        amount("to_price_usd_per_hour"),
        amount("from_cost_usd_per_hour"),
        amount("to_cost_usd_per_hour"),
        sa.CheckConstraint("gain > '-infinity' and gain < 'infinity'", name="gain"),
        sa.CheckConstraint("horizon_h in (1, 6, 12)", name="horizon_h"),
        sa.CheckConstraint("candidates_considered >= 0", name="candidates_considered"),
        sa.CheckConstraint("length(snapshot_id) = 64", name="snapshot_id"),
        # Named, because the name made of its columns is longer than the 63 bytes that Postgres keeps.
        sa.UniqueConstraint(
            "account_id", "window_start", "instance_id", "model_version", "horizon_h", name="uq_experiment_logs_grain"
        ),
        sa.Index("ix_experiment_logs_id", "id"),
        {"postgresql_partition_by": "RANGE (window_start)"},
    )

    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    instance_id: Mapped[str]
    model_version: Mapped[str] = mapped_column(sa.ForeignKey("model_registry.version", ondelete="RESTRICT"))
    horizon_h: Mapped[int] = mapped_column(sa.SmallInteger)
    model_role: Mapped[str]
    acting: Mapped[bool]
    shadow: Mapped[bool]
    pipeline_mode: Mapped[str]
    features: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    p_current: Mapped[float | None]
    p_target: Mapped[float | None]
    decision: Mapped[str]
    reason: Mapped[str]
    region: Mapped[str]
    from_pool: Mapped[str]
    to_pool: Mapped[str | None]
    from_price_usd_per_hour: Mapped[float | None]
    to_price_usd_per_hour: Mapped[float | None]
    from_cost_usd_per_hour: Mapped[float | None]
    to_cost_usd_per_hour: Mapped[float | None]
    gain: Mapped[float | None]
    candidates_considered: Mapped[int]
    snapshot_id: Mapped[str]
    scored_at: Mapped[datetime]
    timings_ms: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = now()


class TrackingRun(Base):
    """The MLflow run that collects one version's evaluations of one account."""

    __tablename__ = "tracking_runs"

    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"), primary_key=True)
    model_version: Mapped[str] = mapped_column(
        sa.ForeignKey("model_registry.version", ondelete="RESTRICT"), primary_key=True
    )
    mlflow_run_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = now()


class EvaluationRequest(Base):
    """Somebody's wish for an evaluation now; `window_start` is the time of the request."""

    __tablename__ = "evaluation_requests"
    __table_args__ = (
        one_of("source", REQUEST_SOURCES),
        one_of("state", REQUEST_STATES),
        sa.UniqueConstraint("account_id", "window_start"),
    )

    id: Mapped[UUID] = new_id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    window_start: Mapped[datetime]
    requested_by: Mapped[UUID | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))
    source: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    run_id: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
