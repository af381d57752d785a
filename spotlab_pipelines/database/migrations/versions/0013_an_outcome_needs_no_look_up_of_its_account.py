"""An outcome's account is that of its evaluation: looking it up for each row took as long as finding the label."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NAME = "fk_interruption_outcomes_account_id"


def upgrade() -> None:
    """Drop the foreign key; evaluations and instances, which outcomes are made of, keep theirs."""
    op.drop_constraint(op.f(NAME), "interruption_outcomes")


def downgrade() -> None:
    """Put it back."""
    op.create_foreign_key(
        op.f(NAME), "interruption_outcomes", "accounts", ["account_id"], ["account_id"], ondelete="RESTRICT"
    )
