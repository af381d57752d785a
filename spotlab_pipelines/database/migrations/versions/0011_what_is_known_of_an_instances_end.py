"""Until when an instance is known to have run, who ended it, its second interruption, and which windows are settled."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OLD_KEY = "uq_interruption_events_account_id_instance_id"
NEW_KEY = "uq_interruption_events_account_id_instance_id_number"
UNSETTLED = "ix_evaluations_account_id_window_start_unsettled"
CHECKS = (
    ("instances", "ended_by", "ended_by in ('owner', 'switch')"),
    ("instances", "ended_source", "ended_source in ('fleet', 'spot_request', 'state_reason', 'eventbridge', 'import')"),
    (
        "instances",
        "ended_told",
        "(ended_by is null) = (ended_source is null) and (ended_by is null or ended_at is not null)",
    ),
    ("interruption_events", "number", "number > 0"),
)


def upgrade() -> None:
    """Add the columns; of what runs, the last look at it is known, of what is gone, when it was last seen."""
    op.add_column("instances", sa.Column("last_running_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("ended_by", sa.Text(), nullable=True))
    op.add_column("instances", sa.Column("ended_source", sa.Text(), nullable=True))
    op.execute("update instances set last_running_at = last_seen_at where state in ('running', 'terminated')")
    op.add_column("interruption_events", sa.Column("number", sa.SmallInteger(), server_default="1", nullable=False))
    op.drop_constraint(op.f(OLD_KEY), "interruption_events")
    op.create_unique_constraint(op.f(NEW_KEY), "interruption_events", ["account_id", "instance_id", "number"])
    op.add_column("evaluations", sa.Column("outcomes_settled", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        UNSETTLED,
        "evaluations",
        ["account_id", "window_start"],
        postgresql_where=sa.text("state = 'logged' and not outcomes_settled"),
    )
    for table, name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)


def downgrade() -> None:
    """Take it back; an instance's second interruption has no place any more, nor what was made of it."""
    for table, name, _ in CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.drop_index(UNSETTLED, "evaluations")
    op.drop_column("evaluations", "outcomes_settled")
    op.execute(
        "delete from interruption_outcomes o using interruption_events e where o.event_id = e.id and e.number > 1"
    )
    op.execute("delete from interruption_events where number > 1")
    op.drop_constraint(op.f(NEW_KEY), "interruption_events")
    op.create_unique_constraint(op.f(OLD_KEY), "interruption_events", ["account_id", "instance_id"])
    op.drop_column("interruption_events", "number")
    for column in ("ended_source", "ended_by", "last_running_at"):
        op.drop_column("instances", column)
