"""The domain tables of Postgres, the only record. Queries live in the rooms that ask them; DDL in migrations/; what
each index is for in indexes.py.

Two keys identify everything: an account is its 12-digit id, an evaluation is (account_id, window_start). Exactly-once
comes from unique keys on such logical ids, never from a run id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

ROLES = ("user", "lab", "admin")
ENVIRONMENTS = ("LAB", "PROD")
ACCOUNT_STATES = ("active", "disabled")
ACCESS_STATES = ("unknown", "ok", "lax", "access_broken")
INSTANCE_STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
LIFECYCLES = ("spot", "on-demand")
PIPELINE_MODES = ("LINEAR", "CLUSTER")
MODEL_STATUSES = ("candidate", "approved", "retired")
MODEL_ROLES = ("champion", "challenger", "none")
EVALUATION_STATES = ("running", "logged", "failed")
EVENT_SOURCES = ("spot_request", "state_reason", "eventbridge", "import")
REQUEST_SOURCES = ("api", "ui", "cli")
REQUEST_STATES = ("pending", "started", "done", "failed")
AUDIT_OUTCOMES = ("done", "refused", "failed")
AUDIT_ACTIONS = (
    "assume_role",
    "validate_access",
    "access_broken",
    "add_account",
    "change_environment",
    "assign_version",
    "set_mode",
    "set_shadow",
    "approve_model",
    "promote_model",
    "retire_model",
    "add_user",
    "disable_user",
    "set_role",
    "set_password",
    "register_model",
)
DECISIONS = ("STAY", "SWITCH", "FALLBACK_ON_DEMAND", "SKIP")


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """A check that `column` holds one of `values`."""
    return sa.CheckConstraint(f"{column} in ({', '.join(repr(value) for value in values)})", name=column)


def probability(column: str) -> sa.CheckConstraint:
    """A check that `column` is a probability or unknown."""
    return sa.CheckConstraint(f"{column} between 0 and 1", name=column)


def amount(column: str) -> sa.CheckConstraint:
    """A check that `column` is 0 or more, or unknown. Postgres holds NaN to be greater than every other number."""
    return sa.CheckConstraint(f"{column} >= 0 and {column} < 'infinity'", name=column)


class Base(DeclarativeBase):
    """Metadata with fixed constraint names, so that migrations can name what they change."""

    metadata = sa.MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: sa.TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(sa.Text),
        list[int]: ARRAY(sa.Integer),
        str: sa.Text,
    }


def _id() -> Mapped[UUID]:
    return mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=sa.func.now())


class User(Base):
    """A person who owns accounts or works in the laboratory."""

    __tablename__ = "users"
    __table_args__ = (
        one_of("role", ROLES),
        sa.CheckConstraint("email like '%_@_%'", name="email"),
        sa.CheckConstraint("password_hash like '$argon2id$%'", name="password_hash"),
    )

    id: Mapped[UUID] = _id()
    email: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str] = mapped_column(server_default="user")
    active: Mapped[bool] = mapped_column(server_default=sa.true())
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    password_hash: Mapped[str | None]


class Login(Base):
    """Proof for a while that somebody is this user: whoever has the token that this is the hash of."""

    __tablename__ = "logins"
    __table_args__ = (
        sa.CheckConstraint("token_sha256 ~ '^[0-9a-f]{64}$'", name="token_sha256"),
        sa.CheckConstraint("expires_at > created_at", name="expires_at"),
    )

    id: Mapped[UUID] = _id()
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    token_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()
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

    id: Mapped[UUID] = _id()
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
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    access_state: Mapped[str] = mapped_column(server_default="unknown")
    access_reason: Mapped[str | None]
    access_checked_at: Mapped[datetime | None]
    denials: Mapped[int] = mapped_column(server_default="0")


class ModelVersion(Base):
    """What may be served: one row per registered version, with the hash of its artifact as it was approved."""

    __tablename__ = "model_registry"
    __table_args__ = (
        one_of("status", MODEL_STATUSES),
        one_of("role", MODEL_ROLES),
        sa.CheckConstraint("version = family || '/' || number", name="version"),
        sa.CheckConstraint("number > 0", name="number"),
        sa.CheckConstraint("artifact_sha256 ~ '^[0-9a-f]{64}$'", name="artifact_sha256"),
        sa.CheckConstraint("role = 'none' or status = 'approved'", name="served_is_approved"),
        sa.UniqueConstraint("family", "number"),
        sa.Index("uq_model_registry_champion", "role", unique=True, postgresql_where=sa.text("role = 'champion'")),
    )

    id: Mapped[UUID] = _id()
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
    status: Mapped[str] = mapped_column(server_default="candidate")
    role: Mapped[str] = mapped_column(server_default="none")
    registered_by: Mapped[str]
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


class Instance(Base):
    """One EC2 instance of an account, as last seen, and how the account's owner steers it.

    One that has ended stays, with the time at which it did or was first missed: windows of the past have a fleet.
    """

    __tablename__ = "instances"
    __table_args__ = (
        one_of("lifecycle", LIFECYCLES),
        one_of("pipeline_mode", PIPELINE_MODES),
        one_of("state", INSTANCE_STATES),
        sa.UniqueConstraint("account_id", "instance_id"),
        sa.CheckConstraint("ended_at is null or state = 'terminated'", name="ended_at"),
        sa.Index(
            "ix_instances_account_id_instance_id_present",
            "account_id",
            "instance_id",
            postgresql_where=sa.text("state <> 'terminated'"),
        ),
    )

    id: Mapped[UUID] = _id()
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
    first_seen_at: Mapped[datetime] = _now()
    last_seen_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    ended_at: Mapped[datetime | None]


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


class Evaluation(Base):
    """One scoring of one account for one window. `step` numbers an account's evaluations from 1, for MLflow's axis.

    `details` says what is worth knowing of it besides counts: `drift` by version, and of one that was made of the past
    `retrospective`, with what was not known then.
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
    )

    id: Mapped[UUID] = _id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    window_start: Mapped[datetime]
    step: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="running")
    run_id: Mapped[str | None]
    snapshot_id: Mapped[str | None]
    counts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    failed_at_step: Mapped[str | None]
    error: Mapped[str | None]
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


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
    id: Mapped[UUID] = _id()
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
    created_at: Mapped[datetime] = _now()


class TrackingRun(Base):
    """The MLflow run that collects one version's evaluations of one account."""

    __tablename__ = "tracking_runs"

    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"), primary_key=True)
    model_version: Mapped[str] = mapped_column(
        sa.ForeignKey("model_registry.version", ondelete="RESTRICT"), primary_key=True
    )
    mlflow_run_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()


class InterruptionEvent(Base):
    """One interruption of one instance, from whichever source told of it first: an instance ends once."""

    __tablename__ = "interruption_events"
    __table_args__ = (
        one_of("source", EVENT_SOURCES),
        sa.UniqueConstraint("account_id", "instance_id"),
    )

    id: Mapped[UUID] = _id()
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
    created_at: Mapped[datetime] = _now()


class EvaluationRequest(Base):
    """Somebody's wish for an evaluation now; `window_start` is the time of the request."""

    __tablename__ = "evaluation_requests"
    __table_args__ = (
        one_of("source", REQUEST_SOURCES),
        one_of("state", REQUEST_STATES),
        sa.UniqueConstraint("account_id", "window_start"),
    )

    id: Mapped[UUID] = _id()
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    window_start: Mapped[datetime]
    requested_by: Mapped[UUID | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))
    source: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    run_id: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


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

    id: Mapped[UUID] = _id()
    at: Mapped[datetime] = _now()
    actor: Mapped[str]
    action: Mapped[str]
    account_id: Mapped[str | None] = mapped_column(sa.ForeignKey("accounts.account_id", ondelete="RESTRICT"))
    subject: Mapped[str | None]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    request_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
