"""An instance that its owner stopped has an end until it runs again."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

ENDED = "ck_instances_ended_at"


def upgrade() -> None:
    """Let it have one."""
    op.drop_constraint(op.f(ENDED), "instances")
    op.create_check_constraint(
        op.f(ENDED), "instances", "ended_at is null or state in ('terminated', 'stopping', 'stopped')"
    )


def downgrade() -> None:
    """Take it back; of what is stopped, no end is known any more."""
    op.execute("update instances set ended_at = null, ended_by = null, ended_source = null where state <> 'terminated'")
    op.drop_constraint(op.f(ENDED), "instances")
    op.create_check_constraint(op.f(ENDED), "instances", "ended_at is null or state = 'terminated'")
