"""Who asks is proven by a login's token, not claimed; each role writes what its work needs; numbers are numbers.

A third role, `spotlab_login`, checks passwords and opens logins, so that neither the pipeline nor the API can read a
password's hash or become somebody. What steers an instance is put on record by the database itself.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)
PIPELINE, API, LOGIN = "spotlab_pipeline", "spotlab_api", "spotlab_login"
ABOUT_A_USER = "id, email, role, active, created_at, updated_at"
CHANGING = (
    "name, environment, regions, evaluation_interval_s, interruption_cost_usd, state, access_state, access_reason, "
    "access_checked_at, denials"
)
ABOUT_AN_ACCOUNT = f"id, account_id, owner_id, role_arn, created_at, updated_at, {CHANGING}"
AN_ENTRY = "actor, action, account_id, subject, outcome, reason, details"
CONTEXT = ("app_user_id()", "app_is_admin()", "app_accounts()")
STEERED = (
    "app_is_admin() or exists (select from accounts a where a.account_id = {table}.account_id "
    "and a.environment = 'LAB' and a.owner_id = app_user_id())"
)
# NaN is greater than every other number in Postgres: a lower limit alone lets it in.
CHECKS = (
    ("instances", "state", "state in ('pending', 'running', 'shutting-down', 'terminated', 'stopping', 'stopped')"),
    ("accounts", "role_arn", "role_arn ~ ('^arn:aws[a-z-]*:iam::' || account_id || '\\:role/')"),
    ("evaluations", "step", "step > 0"),
    *(
        ("experiment_logs", column, f"{column} >= 0 and {column} < 'infinity'")
        for column in (
            "from_price_usd_per_hour",
            "to_price_usd_per_hour",
            "from_cost_usd_per_hour",
            "to_cost_usd_per_hour",
        )
    ),
    ("experiment_logs", "gain", "gain > '-infinity' and gain < 'infinity'"),
)
COST = "ck_accounts_interruption_cost_usd"


def upgrade() -> None:
    """Create the logins, then who may see and write what, then the checks."""
    _logins()
    _context()
    _policies()
    _privileges()
    _steering()
    for table, name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    _check_cost("interruption_cost_usd >= 0 and interruption_cost_usd < 'infinity'")
    # Those made before there was row-level security stayed without it.
    op.execute(
        """
        do $$ declare part regclass; begin
            for part in select inhrelid from pg_inherits where inhparent = 'experiment_logs'::regclass loop
                execute format('alter table %s enable row level security', part);
                execute format('alter table %s force row level security', part);
            end loop;
        end $$
        """
    )


def downgrade() -> None:
    """Take it all back; the role stays, because other databases of the server may use it."""
    for table, name, _ in CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    _check_cost("interruption_cost_usd >= 0")
    op.execute("drop trigger steered on instances")
    op.execute("drop function put_steering_on_record()")
    op.execute("drop function account_external_id(text)")
    for table in ("users", "accounts", "audit_log"):
        op.execute(f"revoke all on {table} from {PIPELINE}, {API}, {LOGIN}")
    op.execute(f"revoke insert on evaluation_requests from {API}")
    op.execute(f"grant select, insert, update on users, accounts to {PIPELINE}")
    op.execute(f"grant select, insert on audit_log to {PIPELINE}")
    op.execute(f"grant select ({ABOUT_A_USER}) on users to {API}")
    op.execute(f"grant select on accounts, audit_log to {API}")
    op.execute(f"grant insert on evaluation_requests, audit_log to {API}")
    for function in CONTEXT:
        op.execute(f"grant execute on function {function} to public")
        op.execute(f"revoke execute on function {function} from {API}")
    for name, table in (
        ("login_reads", "users"),
        ("login_renews", "users"),
        ("admins_see_all", "audit_log"),
        ("admins_see_all", "scrapes"),
        ("told", "audit_log"),
        ("steered", "evaluation_requests"),
    ):
        op.execute(f"drop policy {name} on {table}")
    op.execute(
        f"create policy told on audit_log for insert to {API} with check ("
        "actor = 'user:' || app_user_id() "
        "and (account_id is null or account_id = any ((select app_accounts())::text[])))"
    )
    op.execute(
        f"create policy steered on evaluation_requests for insert to {API} "
        f"with check ({STEERED.format(table='evaluation_requests')})"
    )
    op.execute(
        """
        create or replace function app_user_id() returns uuid language sql stable parallel safe as
        $$ select nullif(current_setting('app.user_id', true), '')::uuid $$
        """
    )
    op.execute(
        """
        create or replace function app_accounts() returns text[]
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $$ select coalesce(array_agg(account_id), '{}') from accounts join users on users.id = accounts.owner_id
           where users.active and (users.id = app_user_id() or app_is_admin()) $$
        """
    )
    op.drop_table("logins")
    op.execute(f"revoke all on alembic_version from {LOGIN}")
    op.execute(f"revoke all on schema public from {LOGIN}")


def _check_cost(condition: str) -> None:
    op.drop_constraint(op.f(COST), "accounts")
    op.create_check_constraint(op.f(COST), "accounts", condition)


def _logins() -> None:
    op.execute(
        f"""
        do $$ begin
            if not exists (select from pg_roles where rolname = '{LOGIN}') then
                create role {LOGIN} nologin noinherit nosuperuser nobypassrls;
            end if;
            if not pg_has_role(current_user, '{LOGIN}', 'member') then
                execute format('grant {LOGIN} to %I', current_user);
            end if;
        exception when duplicate_object or unique_violation then null;  -- another database's migration was first
        end $$
        """
    )
    op.create_table(
        "logins",
        sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.CheckConstraint("token_sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_logins_token_sha256")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_logins_expires_at")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_logins_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logins")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_logins_token_sha256")),
    )
    op.execute("alter table logins enable row level security")
    op.execute("alter table logins force row level security")
    op.execute("create policy maintenance on logins to current_user using (true) with check (true)")
    op.execute(f"create policy login on logins to {LOGIN} using (true) with check (true)")


def _context() -> None:
    """Who asks: the active user of the login whose token the transaction carries. Without one, nobody."""
    op.execute(
        """
        create or replace function app_user_id() returns uuid
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $$ select users.id from logins join users on users.id = logins.user_id
           where users.active and expires_at > now() and token_sha256 = encode(sha256(convert_to(
               nullif(current_setting('app.login', true), ''), 'UTF8')), 'hex') $$
        """
    )
    # An admin sees the accounts of disabled users too: they go on being evaluated. One branch or the other: with an OR,
    # each statement of a user would read through all users and accounts.
    op.execute(
        """
        create or replace function app_accounts() returns text[]
        language sql stable parallel safe security definer set search_path = public, pg_temp as
        $$ select coalesce(case when app_is_admin() then (select array_agg(account_id) from accounts)
            else (select array_agg(account_id) from accounts where owner_id = (
                select id from users where id = app_user_id() and active)) end, '{}') $$
        """
    )
    for function in CONTEXT:
        op.execute(f"revoke execute on function {function} from public")
        op.execute(f"grant execute on function {function} to {API}")
    op.execute(
        """
        create function account_external_id(account text) returns text
        language sql stable security definer set search_path = public, pg_temp as
        $$ select external_id from accounts where account_id = account and owner_id = app_user_id() $$
        """
    )
    op.execute("revoke execute on function account_external_id(text) from public")
    op.execute(f"grant execute on function account_external_id(text) to {API}")


def _policies() -> None:
    op.execute(f"create policy login_reads on users for select to {LOGIN} using (true)")
    op.execute(f"create policy login_renews on users for update to {LOGIN} using (active)")
    # Rows of no account, which the policy by account hides.
    for table in ("audit_log", "scrapes"):
        op.execute(f"create policy admins_see_all on {table} for select to {API} using ((select app_is_admin()))")
    # That something is done is told by what does it; the API may tell what it refused, in its user's name.
    op.execute("drop policy told on audit_log")
    op.execute(
        f"create policy told on audit_log for insert to {API} with check ("
        "outcome <> 'done' and actor = 'user:' || (select app_user_id()) "
        "and (account_id is null or account_id = any ((select app_accounts())::text[])))"
    )
    op.execute("drop policy steered on evaluation_requests")
    op.execute(
        f"create policy steered on evaluation_requests for insert to {API} with check ("
        "source <> 'cli' and requested_by = (select app_user_id()) "
        f"and ({STEERED.format(table='evaluation_requests')}))"
    )


def _privileges() -> None:
    op.execute(f"revoke select, insert, update on users from {PIPELINE}")
    op.execute(f"grant select ({ABOUT_A_USER}), insert (email, role) on users to {PIPELINE}")
    op.execute(f"revoke update on accounts from {PIPELINE}")
    op.execute(f"grant update ({CHANGING}) on accounts to {PIPELINE}")
    op.execute(f"revoke insert on audit_log from {PIPELINE}, {API}")
    op.execute(f"grant insert ({AN_ENTRY}, request_id) on audit_log to {PIPELINE}")
    op.execute(f"grant insert ({AN_ENTRY}) on audit_log to {API}")
    op.execute(f"revoke select on accounts from {API}")  # noqa: S608
    op.execute(f"grant select ({ABOUT_AN_ACCOUNT}) on accounts to {API}")
    op.execute(f"revoke insert on evaluation_requests from {API}")
    op.execute(f"grant insert (account_id, window_start, requested_by, source) on evaluation_requests to {API}")
    op.execute(f"grant usage on schema public to {LOGIN}")
    op.execute(f"grant select on alembic_version to {LOGIN}")
    op.execute(f"grant select ({ABOUT_A_USER}, password_hash), update (password_hash) on users to {LOGIN}")
    op.execute(f"grant select, insert, delete on logins to {LOGIN}")


def _steering() -> None:
    """Whoever changes how an instance is steered, and by whatever statement: it is on record, in the proven name."""
    op.execute(
        """
        create function put_steering_on_record() returns trigger
        language plpgsql security definer set search_path = public, pg_temp as $$
        declare
            who text := coalesce('user:' || app_user_id(), nullif(current_setting('app.actor', true), ''),
                                 'database:' || session_user);
        begin
            if new.assigned_version is distinct from old.assigned_version and new.assigned_version is not null
               and not exists (select from model_registry where version = new.assigned_version and status = 'approved')
            then
                raise exception 'version % is not approved', new.assigned_version using errcode = 'check_violation';
            end if;
            insert into audit_log (actor, action, account_id, subject, outcome, details)
            select who, change.action, new.account_id, new.instance_id, 'done', jsonb_build_object('to', change.after)
            from (values
                ('assign_version', to_jsonb(old.assigned_version), to_jsonb(new.assigned_version)),
                ('set_mode', to_jsonb(old.pipeline_mode), to_jsonb(new.pipeline_mode)),
                ('set_shadow', to_jsonb(old.shadow), to_jsonb(new.shadow))
            ) as change (action, before, after)
            where change.before is distinct from change.after;
            return null;
        end $$
        """
    )
    op.execute(
        """
        create trigger steered after update of assigned_version, pipeline_mode, shadow on instances for each row
        when ((old.assigned_version, old.pipeline_mode, old.shadow)
              is distinct from (new.assigned_version, new.pipeline_mode, new.shadow))
        execute function put_steering_on_record()
        """
    )
