"""When an instance ended, what a version's training features looked like, and what else is known of an evaluation."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; an instance that is known to be gone ended, as far as we know, when that was noticed."""
    op.add_column("instances", sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.execute("update instances set ended_at = updated_at where state = 'terminated'")
    op.create_check_constraint(op.f("ck_instances_ended_at"), "instances", "ended_at is null or state = 'terminated'")
    op.add_column("model_registry", sa.Column("reference", JSONB(), nullable=True))
    op.add_column("evaluations", sa.Column("details", JSONB(), server_default="{}", nullable=False))


def downgrade() -> None:
    """Drop them; the instances that only past requests told of go too."""
    op.drop_column("evaluations", "details")
    op.drop_column("model_registry", "reference")
    op.drop_constraint(op.f("ck_instances_ended_at"), "instances")
    op.drop_column("instances", "ended_at")
