"""Each index earns its place by a query of the code; registering a version is on record; admins see every account.

An index that no query used slowed down each write: nine go, five come. `database/indexes.py` says what each is for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNUSED = (
    ("ix_experiment_logs_account_id_window_start", "experiment_logs", "account_id, window_start desc"),
    ("ix_experiment_logs_model_version_window_start", "experiment_logs", "model_version, window_start desc"),
    ("ix_instances_account_id_active", "instances", "account_id) where (state = 'running'"),
    ("ix_instances_assigned_version", "instances", "assigned_version"),
    ("ix_scrapes_account_id", "scrapes", "account_id"),
    ("ix_scrapes_source_region_fetched_at", "scrapes", "source, region, fetched_at desc"),
    (
        "ix_interruption_events_region_instance_type_occurred_at",
        "interruption_events",
        "region, instance_type, occurred_at",
    ),
    ("ix_evaluation_requests_pending", "evaluation_requests", "created_at) where (state = 'pending'"),
    ("ix_evaluation_requests_requested_by", "evaluation_requests", "requested_by"),
)
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
)


def upgrade() -> None:
    """Drop what no query uses, add what some query lacks; then the new action, and who sees which account."""
    for name, _, _ in UNUSED:
        op.drop_index(name)
    op.create_index(
        "ix_instances_account_id_instance_id_present",
        "instances",
        ["account_id", "instance_id"],
        postgresql_where=sa.text("state <> 'terminated'"),
    )
    op.create_index(
        "ix_accounts_account_id_marked",
        "accounts",
        ["account_id"],
        postgresql_where=sa.text("access_state in ('lax', 'access_broken')"),
    )
    op.create_index("ix_experiment_logs_id", "experiment_logs", ["id"])
    op.create_index("ix_audit_log_at", "audit_log", [sa.text("at desc")])
    op.create_index("ix_audit_log_actor_at", "audit_log", ["actor", sa.text("at desc")])
    _allow_actions((*ACTIONS, "register_model"))
    # One branch or the other: with an OR, each statement of a user would read through all users and accounts. And an
    # admin sees the accounts of disabled users too: they go on being evaluated.
    _make_app_accounts(
        """
        select coalesce(case when app_is_admin() then (select array_agg(account_id) from accounts)
            else (select array_agg(account_id) from accounts where owner_id = (
                select id from users where id = app_user_id() and active)) end, '{}')
        """
    )


def downgrade() -> None:
    """Take it back; entries of the new action stay, as every entry does."""
    _make_app_accounts(
        """ select coalesce(array_agg(account_id), '{}') from accounts join users on users.id = accounts.owner_id
           where users.active and (users.id = app_user_id() or app_is_admin()) """
    )
    _allow_actions(ACTIONS, unless_there="not valid")
    for name in (
        "ix_audit_log_actor_at",
        "ix_audit_log_at",
        "ix_experiment_logs_id",
        "ix_accounts_account_id_marked",
        "ix_instances_account_id_instance_id_present",
    ):
        op.drop_index(name)
    for name, table, columns in UNUSED:
        op.execute(f"create index {name} on {table} ({columns})")


def _allow_actions(actions: tuple[str, ...], unless_there: str = "") -> None:
    op.drop_constraint(op.f("ck_audit_log_action"), "audit_log")
    listed = ", ".join(f"'{action}'" for action in actions)
    op.execute(f"alter table audit_log add constraint ck_audit_log_action check (action in ({listed})) {unless_there}")


def _make_app_accounts(body: str) -> None:
    op.execute(
        f"""
        create or replace function app_accounts() returns text[]
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $${body}$$
        """
    )
