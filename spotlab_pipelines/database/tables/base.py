"""What all tables share: the enumerations and the words of their checks, and how constraints are named."""

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
OUTCOME_SOURCES = ("fleet", *EVENT_SOURCES)
ENDED_BY = ("owner", "switch")
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
    "disable_account",
    "enable_account",
    "import_trace",
    "remove_trace",
)
VERDICTS = ("promote", "hold", "reject", "insufficient data")
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


def new_id() -> Mapped[UUID]:
    """A primary key that the database draws."""
    return mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())


def now() -> Mapped[datetime]:
    """The moment at which the row is inserted."""
    return mapped_column(server_default=sa.func.now())
