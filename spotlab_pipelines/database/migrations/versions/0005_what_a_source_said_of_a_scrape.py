"""What a source said of its answer (ETag, since when it is unchanged), and the newest scrape of an account by an index.

The check that looks for stale accounts asks for each account's newest scrape of a source.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEX = "ix_scrapes_source_account_id_fetched_at"


def upgrade() -> None:
    """Add the column and the index."""
    op.add_column("scrapes", sa.Column("provenance", JSONB(), server_default="{}", nullable=False))
    op.create_index(INDEX, "scrapes", ["source", "account_id", sa.text("fetched_at desc")])


def downgrade() -> None:
    """Take them away."""
    op.drop_index(INDEX)
    op.drop_column("scrapes", "provenance")
