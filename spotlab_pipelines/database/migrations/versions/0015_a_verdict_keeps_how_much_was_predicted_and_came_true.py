"""A verdict keeps what the challenger predicted on average and what came true: where interruptions are rare, a
calibration error that is small by itself may be many times the rate."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLE = "verdicts"
SHARES = ("predicted_share", "interrupted_share")


def upgrade() -> None:
    """Add both; they are unknown of the looks before."""
    for name in SHARES:
        op.add_column(TABLE, sa.Column(name, sa.Float(), nullable=True))
        op.create_check_constraint(op.f(f"ck_{TABLE}_{name}"), TABLE, f"{name} between 0 and 1")
    op.execute(f"grant insert ({', '.join(SHARES)}) on {TABLE} to spotlab_pipeline")


def downgrade() -> None:
    """Drop them."""
    for name in SHARES:
        op.drop_column(TABLE, name)
