"""Row-level security for two roles, the audit log, access verdicts, interruption events, evaluation requests, views.

Postgres' roles belong to the server, not to a database: `spotlab_pipeline` and `spotlab_api` are made if they are not
there, and stay when a database is taken down again. Neither can log in; the users that do are made members of them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)
PIPELINE, API = "spotlab_pipeline", "spotlab_api"
OF_AN_ACCOUNT = (
    "instances",
    "evaluations",
    "experiment_logs",
    "tracking_runs",
    "scrapes",
    "interruption_events",
    "evaluation_requests",
    "audit_log",
)
PROTECTED = ("users", "accounts", *OF_AN_ACCOUNT)
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
    """Create the tables and columns, then who may see what."""
    op.add_column("users", sa.Column("password_hash", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_users_password_hash"), "users", "password_hash like '$argon2id$%'")
    _access_columns()
    op.create_index(
        "ix_evaluations_window_start_account_id", "evaluations", [sa.text("window_start desc"), "account_id"]
    )
    _interruption_events()
    _evaluation_requests()
    _audit_log()
    _roles()
    _partitions()
    _context()
    _policies()
    _privileges()
    _views()


def downgrade() -> None:
    """Take it all back; the two roles stay, because other databases of the server may use them."""
    for view in ("v_model_performance", "v_recent_experiments", "v_active_instances"):
        op.execute(f"drop view {view}")
    op.execute(f"revoke all on all tables in schema public from {PIPELINE}, {API}")
    op.execute(f"revoke all on schema public from {PIPELINE}, {API}")
    for table in PROTECTED:
        op.execute(f"alter table {table} no force row level security")
        op.execute(f"alter table {table} disable row level security")
    op.execute(
        """
        do $$ declare rule record; begin
            for rule in select policyname, tablename from pg_policies where schemaname = current_schema() loop
                execute format('drop policy %I on %I', rule.policyname, rule.tablename);
            end loop;
        end $$
        """
    )
    for table in ("audit_log", "evaluation_requests", "interruption_events"):
        op.drop_table(table)
    op.drop_index("ix_evaluations_window_start_account_id", "evaluations")
    op.execute("drop function make_log_partition(timestamptz)")
    for function in ("refuse_change", "app_accounts", "app_is_admin", "app_user_id"):
        op.execute(f"drop function {function}()")
    op.drop_constraint(op.f("ck_accounts_access_state"), "accounts")
    op.drop_constraint(op.f("ck_accounts_denials"), "accounts")
    for column in ("access_state", "access_reason", "access_checked_at", "denials"):
        op.drop_column("accounts", column)
    op.drop_constraint(op.f("ck_users_password_hash"), "users")
    op.drop_column("users", "password_hash")


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _foreign(table: str, column: str, target: str, ondelete: str = "RESTRICT") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_{table}_{column}"), ondelete=ondelete)


def _id() -> sa.Column:
    return sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column:
    return sa.Column(name, sa.Text(), server_default=default, nullable=nullable)


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column:
    return sa.Column(name, TIME, server_default=sa.func.now() if now else None, nullable=nullable)


def _access_columns() -> None:
    op.add_column("accounts", _text("access_state", default="unknown"))
    op.add_column("accounts", _text("access_reason", nullable=True))
    op.add_column("accounts", _time("access_checked_at", nullable=True))
    op.add_column("accounts", sa.Column("denials", sa.Integer(), server_default="0", nullable=False))
    states = "'unknown', 'ok', 'lax', 'access_broken'"
    op.create_check_constraint(op.f("ck_accounts_access_state"), "accounts", f"access_state in ({states})")
    op.create_check_constraint(op.f("ck_accounts_denials"), "accounts", "denials >= 0")


def _interruption_events() -> None:
    table = "interruption_events"
    op.create_table(
        table,
        _id(),
        _text("account_id"),
        _text("instance_id"),
        _text("region"),
        _text("az_id"),
        _text("instance_type"),
        _text("product"),
        _text("source"),
        _text("status_code"),
        _text("spot_request_id", nullable=True),
        _time("occurred_at"),
        _time("created_at", now=True),
        _check(table, "source", "source in ('spot_request', 'state_reason', 'eventbridge', 'import')"),
        _foreign(table, "account_id", "accounts.account_id"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("account_id", "instance_id", name=op.f(f"uq_{table}_account_id_instance_id")),
    )
    op.create_index(f"ix_{table}_region_instance_type_occurred_at", table, ["region", "instance_type", "occurred_at"])


def _evaluation_requests() -> None:
    table = "evaluation_requests"
    op.create_table(
        table,
        _id(),
        _text("account_id"),
        _time("window_start"),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        _text("source"),
        _text("state", default="pending"),
        _text("run_id", nullable=True),
        _text("error", nullable=True),
        _time("created_at", now=True),
        _time("updated_at", now=True),
        _check(table, "source", "source in ('api', 'ui', 'cli')"),
        _check(table, "state", "state in ('pending', 'started', 'done', 'failed')"),
        _foreign(table, "account_id", "accounts.account_id"),
        _foreign(table, "requested_by", "users.id", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("account_id", "window_start", name=op.f(f"uq_{table}_account_id_window_start")),
    )
    op.create_index(f"ix_{table}_pending", table, ["created_at"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index(f"ix_{table}_requested_by", table, ["requested_by"])
    op.execute(
        f"create trigger set_updated_at before update on {table} for each row "
        "when (old.* is distinct from new.*) execute function set_updated_at()"
    )


def _audit_log() -> None:
    table = "audit_log"
    actions = ", ".join(f"'{action}'" for action in ACTIONS)
    op.create_table(
        table,
        _id(),
        _time("at", now=True),
        _text("actor"),
        _text("action"),
        _text("account_id", nullable=True),
        _text("subject", nullable=True),
        _text("outcome"),
        _text("reason", nullable=True),
        _text("request_id", nullable=True),
        sa.Column("details", JSONB(), server_default="{}", nullable=False),
        _check(table, "action", f"action in ({actions})"),
        _check(table, "outcome", "outcome in ('done', 'refused', 'failed')"),
        _foreign(table, "account_id", "accounts.account_id"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    op.create_index(f"ix_{table}_account_id_at", table, ["account_id", sa.text("at desc")])
    op.create_index(f"ix_{table}_action_at", table, ["action", sa.text("at desc")])
    # Privileges keep the two roles from changing it; the trigger keeps the owner from doing so by mistake.
    op.execute(
        """
        create function refuse_change() returns trigger language plpgsql as $$
        begin
            raise exception 'audit_log is append-only' using errcode = 'insufficient_privilege';
        end $$
        """
    )
    op.execute(
        f"create trigger append_only before update or delete or truncate on {table} "
        "for each statement execute function refuse_change()"
    )


def _roles() -> None:
    for role in (PIPELINE, API):
        op.execute(
            f"""
            do $$ begin
                if not exists (select from pg_roles where rolname = '{role}') then
                    create role {role} nologin noinherit nosuperuser nobypassrls;
                end if;
                if not pg_has_role(current_user, '{role}', 'member') then
                    execute format('grant {role} to %I', current_user);
                end if;
            exception when duplicate_object or unique_violation then null;  -- another database's migration was first
            end $$
            """
        )


def _partitions() -> None:
    """The pipeline owns no table, and yet must be able to write into a month that nobody prepared."""
    op.execute(
        """
        create function make_log_partition(month timestamptz) returns boolean
        language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' as $$
        declare
            name text := 'experiment_logs_' || to_char(month, 'YYYY_MM');
            first timestamptz := date_trunc('month', month);
        begin
            perform pg_advisory_xact_lock(hashtextextended('spotlab/partitions', 0));
            if to_regclass('public.' || name) is not null then
                return false;
            end if;
            -- ATTACH, not PARTITION OF: it lets reads and writes of the other months go on.
            execute format('create table %I (like experiment_logs including defaults including constraints)', name);
            execute format('alter table %I enable row level security', name);
            execute format('alter table %I force row level security', name);
            execute format('alter table experiment_logs attach partition %I for values from (%L) to (%L)',
                           name, first, first + interval '1 month');
            return true;
        end $$
        """
    )
    op.execute("revoke execute on function make_log_partition(timestamptz) from public")
    op.execute(f"grant execute on function make_log_partition(timestamptz) to {PIPELINE}")


def _context() -> None:
    """Who asks: `app.user_id`, set per transaction. Without it there is nobody, who owns nothing."""
    op.execute(
        """
        create function app_user_id() returns uuid language sql stable parallel safe as
        $$ select nullif(current_setting('app.user_id', true), '')::uuid $$
        """
    )
    # These two look past row-level security on purpose, each at one fact about the asking user.
    op.execute(
        """
        create function app_is_admin() returns boolean
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $$ select exists (select from users where id = app_user_id() and active and role = 'admin') $$
        """
    )
    op.execute(
        """
        create function app_accounts() returns text[]
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $$ select coalesce(array_agg(account_id), '{}') from accounts join users on users.id = accounts.owner_id
           where users.active and (users.id = app_user_id() or app_is_admin()) $$
        """
    )


def _policies() -> None:
    for table in PROTECTED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        # The owner migrates and maintains; the pipeline works for all accounts. Both still need a policy to see a row.
        op.execute(f"create policy maintenance on {table} to current_user using (true) with check (true)")
        op.execute(f"create policy pipeline on {table} to {PIPELINE} using (true) with check (true)")
    op.execute(f"create policy own on users for select to {API} using (id = app_user_id() or app_is_admin())")
    op.execute(
        f"create policy own on accounts to {API} using (account_id = any ((select app_accounts())::text[])) "
        "with check (app_is_admin() or (environment = 'LAB' and owner_id = app_user_id()))"
    )
    for table in OF_AN_ACCOUNT:
        op.execute(
            f"create policy own on {table} for select to {API} "
            "using (account_id = any ((select app_accounts())::text[]))"
        )
    steered = (
        "app_is_admin() or exists (select from accounts a where a.account_id = {table}.account_id "
        "and a.environment = 'LAB' and a.owner_id = app_user_id())"
    )
    for table, verb, clause in (
        ("instances", "update", "using"),
        ("evaluation_requests", "insert", "with check"),
    ):
        op.execute(f"create policy steered on {table} for {verb} to {API} {clause} ({steered.format(table=table)})")
    op.execute(
        f"create policy told on audit_log for insert to {API} with check ("
        "actor = 'user:' || app_user_id() "
        "and (account_id is null or account_id = any ((select app_accounts())::text[])))"
    )


def _privileges() -> None:
    op.execute(f"grant usage on schema public to {PIPELINE}, {API}")
    op.execute(f"grant select on alembic_version, model_registry to {PIPELINE}, {API}")
    for table in ("users", "accounts", "instances", "model_registry", "evaluations", "tracking_runs", "scrapes"):
        op.execute(f"grant select, insert, update on {table} to {PIPELINE}")
    op.execute(f"grant select, insert, update on interruption_events, evaluation_requests to {PIPELINE}")
    op.execute(f"grant select, insert on experiment_logs, audit_log to {PIPELINE}")
    # What the API may not read is not granted by column: password hashes belong to logging in, not to listing.
    op.execute(f"grant select (id, email, role, active, created_at, updated_at) on users to {API}")
    op.execute(f"grant select on accounts, {', '.join(OF_AN_ACCOUNT)} to {API}")
    op.execute(f"grant update (assigned_version, pipeline_mode, shadow) on instances to {API}")
    op.execute(f"grant insert on evaluation_requests, audit_log to {API}")


def _views() -> None:
    op.execute(
        """
        create view v_active_instances with (security_invoker = true) as
        select i.account_id, a.name as account_name, a.environment, i.instance_id, i.region, i.az_id, i.instance_type,
               i.product, i.lifecycle, i.assigned_version, i.pipeline_mode, i.shadow, i.launched_at, i.last_seen_at
        from instances i join accounts a using (account_id)
        where i.state = 'running' and a.state = 'active'
        """
    )
    op.execute(
        """
        create view v_recent_experiments with (security_invoker = true) as
        select e.account_id, e.window_start, e.step, l.instance_id, l.model_version, l.model_role, l.acting, l.shadow,
               l.horizon_h, l.p_current, l.p_target, l.decision, l.reason, l.from_pool, l.to_pool,
               l.from_cost_usd_per_hour, l.to_cost_usd_per_hour, l.gain
        from evaluations e
        join experiment_logs l on l.account_id = e.account_id and l.window_start = e.window_start
        where e.state = 'logged' and e.window_start > now() - interval '7 days'
          and l.window_start > now() - interval '7 days'
        """
    )
    op.execute(
        """
        create view v_model_performance with (security_invoker = true) as
        select l.account_id, l.model_version, l.model_role, l.horizon_h,
               count(*) as predictions, count(distinct l.window_start) as windows,
               avg(l.p_current) as mean_p_current,
               count(*) filter (where l.decision = 'SWITCH') as switches,
               count(*) filter (where l.decision = 'FALLBACK_ON_DEMAND') as fallbacks,
               avg(l.gain) filter (where l.decision = 'SWITCH') as mean_gain_of_switches
        from experiment_logs l
        where l.window_start > now() - interval '30 days'
        group by l.account_id, l.model_version, l.model_role, l.horizon_h
        """
    )
    op.execute(f"grant select on v_active_instances, v_recent_experiments, v_model_performance to {PIPELINE}, {API}")
