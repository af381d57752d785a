"""Removing a trace is on record: one more action of the audit log."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

ACTIONS = (
    "assume_role",
    "validate_access",
    "access_broken",
    "add_account",
    "change_environment",
    "assign_version",
    "set_mode",
    "set_shadow",
    "approve_model",
    "promote_model",
    "retire_model",
    "add_user",
    "disable_user",
    "set_role",
    "set_password",
    "register_model",
    "disable_account",
    "enable_account",
    "import_trace",
)


def upgrade() -> None:
    """Allow the new action."""
    _allow((*ACTIONS, "remove_trace"))


def downgrade() -> None:
    """Take it back; entries of the new action stay, as every entry does."""
    _allow(ACTIONS, unless_there="not valid")


def _allow(actions: tuple[str, ...], unless_there: str = "") -> None:
    op.drop_constraint(op.f("ck_audit_log_action"), "audit_log")
    listed = ", ".join(f"'{action}'" for action in actions)
    op.execute(f"alter table audit_log add constraint ck_audit_log_action check (action in ({listed})) {unless_there}")
