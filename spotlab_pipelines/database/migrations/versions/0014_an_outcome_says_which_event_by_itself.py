"""An outcome says by its instance and time which event ended it: an id beside them was looked up row by row, unread."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLE = "interruption_outcomes"


def upgrade() -> None:
    """Drop the column with its check and its foreign key; still, no fleet tells of an interruption."""
    op.drop_column(TABLE, "event_id")
    op.create_check_constraint(op.f(f"ck_{TABLE}_told"), TABLE, "interrupted_at is null or source <> 'fleet'")


def downgrade() -> None:
    """Put it back, filled from the events."""
    op.drop_constraint(op.f(f"ck_{TABLE}_told"), TABLE)
    op.add_column(TABLE, sa.Column("event_id", sa.Uuid(), nullable=True))
    op.execute(
        "update interruption_outcomes o set event_id = e.id from interruption_events e "
        "where e.account_id = o.account_id and e.instance_id = o.instance_id and e.occurred_at = o.interrupted_at"
    )
    op.create_check_constraint(op.f(f"ck_{TABLE}_event_id"), TABLE, "(event_id is null) = (interrupted_at is null)")
    op.create_foreign_key(
        op.f(f"fk_{TABLE}_event_id"), TABLE, "interruption_events", ["event_id"], ["id"], ondelete="RESTRICT"
    )
