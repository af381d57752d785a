"""A verdict keeps of which share of the champion's predictions the challenger had one too: a version that says nothing
where it would be wrong is not better."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLE, NAME = "verdicts", "answered_share"


def upgrade() -> None:
    """Add it; it is unknown of the looks before."""
    op.add_column(TABLE, sa.Column(NAME, sa.Float(), nullable=True))
    op.create_check_constraint(op.f(f"ck_{TABLE}_{NAME}"), TABLE, f"{NAME} between 0 and 1")
    op.execute(f"grant insert ({NAME}) on {TABLE} to spotlab_pipeline")


def downgrade() -> None:
    """Drop it."""
    op.drop_column(TABLE, NAME)
