"""Verdicts, look by look: append-only, for the boundaries of later looks follow from the earlier ones.

They are about versions and all accounts together, and hold no account's rows: every user may read them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLE = "verdicts"
PIPELINE, API = "spotlab_pipeline", "spotlab_api"
CHECKS = (
    ("verdict", "verdict in ('promote', 'hold', 'reject', 'insufficient data')"),
    ("ece", "ece between 0 and 1"),
    ("challenger", "champion <> challenger"),
    ("look", "look >= 0"),
    ("information", "information > 0 and information < 'infinity'"),
    ("predictions", "predictions >= events and events >= 0 and blocks >= 0"),
)
INTERVALS = tuple(f"{loss}_gain{end}" for loss in ("brier", "log_loss") for end in ("", "_low", "_high"))
COLUMNS = "champion, challenger, day, look, information, predictions, events, blocks, verdict, why, ece"


def upgrade() -> None:
    """Create the table, and let nobody change a row of it, the owner included."""
    _create()
    op.execute(f"grant select, insert ({COLUMNS}, {', '.join(INTERVALS)}) on {TABLE} to {PIPELINE}")
    op.execute(f"grant select on {TABLE} to {API}")
    _refuse("'% is append-only', tg_table_name")
    op.execute(
        f"create trigger append_only before update or delete or truncate on {TABLE} "
        "for each statement execute function refuse_change()"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table(TABLE)
    _refuse("'audit_log is append-only'")


def _create() -> None:
    def column(name: str, kind: sa.types.TypeEngine, *, nullable: bool = False) -> sa.Column:
        return sa.Column(name, kind, nullable=nullable)

    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False),
        column("champion", sa.Text()),
        column("challenger", sa.Text()),
        column("day", sa.Date()),
        column("look", sa.Integer()),
        column("information", sa.Float(), nullable=True),
        column("predictions", sa.Integer()),
        column("events", sa.Integer()),
        column("blocks", sa.Integer()),
        column("verdict", sa.Text()),
        column("why", sa.Text()),
        *(column(name, sa.Float(), nullable=True) for name in INTERVALS),
        column("ece", sa.Float(), nullable=True),
        sa.Column("judged_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        *(sa.CheckConstraint(condition, name=op.f(f"ck_{TABLE}_{name}")) for name, condition in CHECKS),
        *(
            sa.ForeignKeyConstraint(
                [name], ["model_registry.version"], name=op.f(f"fk_{TABLE}_{name}"), ondelete="RESTRICT"
            )
            for name in ("champion", "challenger")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("champion", "challenger", "day", name=op.f(f"uq_{TABLE}_champion_challenger_day")),
    )


def _refuse(message: str) -> None:
    op.execute(
        f"""
        create or replace function refuse_change() returns trigger language plpgsql as $$
        begin
            raise exception {message} using errcode = 'insufficient_privilege';
        end $$
        """
    )
