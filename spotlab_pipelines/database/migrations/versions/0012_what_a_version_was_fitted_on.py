"""The fingerprint of the data that a version was fitted on."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; versions of before, and those fitted on nothing, have none."""
    op.add_column("model_registry", sa.Column("training_sha256", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_model_registry_training_sha256"), "model_registry", "training_sha256 ~ '^[0-9a-f]{64}$'"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_constraint(op.f("ck_model_registry_training_sha256"), "model_registry")
    op.drop_column("model_registry", "training_sha256")
