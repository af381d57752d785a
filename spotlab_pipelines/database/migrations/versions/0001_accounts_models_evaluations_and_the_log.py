"""Users and their accounts, instances, model versions, scrapes, evaluations, and the partitioned experiment log.

The log is partitioned by window_start from the beginning; its monthly partitions are made by
`database/partitions.py`. Every table with updated_at has a trigger that sets it when a row changes.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.func.now()
TIME = sa.TIMESTAMP(timezone=True)
WITH_UPDATED_AT = ("users", "accounts", "model_registry", "instances")


def upgrade() -> None:
    """Create every table, then the triggers."""
    _users_and_accounts()
    _models()
    _instances()
    _scrapes_and_evaluations()
    _experiment_logs()
    _tracking_runs()
    op.execute(
        """
        create function set_updated_at() returns trigger language plpgsql as $$
        begin
            new.updated_at = now();
            return new;
        end $$
        """
    )
    for table in WITH_UPDATED_AT:
        op.execute(
            f"create trigger set_updated_at before update on {table} for each row "
            "when (old.* is distinct from new.*) execute function set_updated_at()"
        )


def downgrade() -> None:
    """Remove everything, the log's partitions with it."""
    tables = ("tracking_runs", "experiment_logs", "evaluations", "scrapes", "instances", "model_registry", "accounts")
    for table in (*tables, "users"):
        op.drop_table(table)
    op.execute("drop function set_updated_at()")


def _id() -> sa.Column:
    return sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column:
    return sa.Column(name, sa.Text(), server_default=default, nullable=nullable)


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column:
    return sa.Column(name, TIME, server_default=NOW if now else None, nullable=nullable)


def _json(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column:
    return sa.Column(name, JSONB(), server_default=default, nullable=nullable)


def _float(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.Float(), nullable=nullable)


def _whole(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _yes_or_no(name: str, default: sa.ColumnElement[bool] | None = None) -> sa.Column:
    return sa.Column(name, sa.Boolean(), server_default=default, nullable=False)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _foreign(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_{table}_{column}"), ondelete="RESTRICT")


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _unique(table: str, *columns: str, name: str | None = None) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(name or f"uq_{table}_{'_'.join(columns)}"))


def _users_and_accounts() -> None:
    op.create_table(
        "users",
        _id(),
        _text("email"),
        _text("role", default="user"),
        _yes_or_no("active", sa.true()),
        _time("created_at", now=True),
        _time("updated_at", now=True),
        _check("users", "role", "role in ('user', 'lab', 'admin')"),
        _check("users", "email", "email like '%_@_%'"),
        _key("users", "id"),
        _unique("users", "email"),
    )
    op.create_table(
        "accounts",
        _id(),
        _text("account_id"),
        _text("name"),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        _text("environment", default="LAB"),
        _text("role_arn"),
        _text("external_id"),
        sa.Column("regions", ARRAY(sa.Text()), nullable=False),
        _whole("evaluation_interval_s"),
        _float("interruption_cost_usd", nullable=False),
        _text("state", default="active"),
        _time("created_at", now=True),
        _time("updated_at", now=True),
        _check("accounts", "environment", "environment in ('LAB', 'PROD')"),
        _check("accounts", "state", "state in ('active', 'disabled')"),
        _check("accounts", "account_id", "account_id ~ '^[0-9]{12}$'"),
        _check("accounts", "regions", "cardinality(regions) > 0"),
        _check("accounts", "evaluation_interval_s", "evaluation_interval_s between 60 and 86400"),
        _check("accounts", "interruption_cost_usd", "interruption_cost_usd >= 0"),
        _check("accounts", "external_id", "length(external_id) between 22 and 1224"),
        _foreign("accounts", "owner_id", "users.id"),
        _key("accounts", "id"),
        _unique("accounts", "account_id"),
        _unique("accounts", "external_id"),
    )
    op.create_index("ix_accounts_owner_id", "accounts", ["owner_id"])


def _models() -> None:
    table = "model_registry"
    op.create_table(
        table,
        _id(),
        _text("version"),
        _text("family"),
        _whole("number"),
        _text("feature_spec"),
        sa.Column("horizons_h", ARRAY(sa.Integer()), nullable=False),
        _text("artifact_uri"),
        _text("artifact_sha256"),
        _text("mlflow_run_id"),
        _text("mlflow_model_id", nullable=True),
        _json("metrics", default="{}"),
        _text("status", default="candidate"),
        _text("role", default="none"),
        _text("registered_by"),
        _time("created_at", now=True),
        _time("updated_at", now=True),
        _check(table, "status", "status in ('candidate', 'approved', 'retired')"),
        _check(table, "role", "role in ('champion', 'challenger', 'none')"),
        _check(table, "version", "version = family || '/' || number"),
        _check(table, "number", "number > 0"),
        _check(table, "artifact_sha256", "artifact_sha256 ~ '^[0-9a-f]{64}$'"),
        _check(table, "served_is_approved", "role = 'none' or status = 'approved'"),
        _key(table, "id"),
        _unique(table, "version"),
        _unique(table, "family", "number"),
    )
    op.create_index(
        "uq_model_registry_champion", table, ["role"], unique=True, postgresql_where=sa.text("role = 'champion'")
    )


def _instances() -> None:
    op.create_table(
        "instances",
        _id(),
        _text("account_id"),
        _text("instance_id"),
        _text("region"),
        _text("az_id"),
        _text("instance_type"),
        _text("product"),
        _text("lifecycle"),
        _text("state"),
        _json("tags", default="{}"),
        _time("launched_at"),
        _text("spot_request_id", nullable=True),
        _text("assigned_version", nullable=True),
        _text("pipeline_mode", default="LINEAR"),
        _yes_or_no("shadow", sa.false()),
        _time("first_seen_at", now=True),
        _time("last_seen_at", now=True),
        _time("updated_at", now=True),
        _check("instances", "lifecycle", "lifecycle in ('spot', 'on-demand')"),
        _check("instances", "pipeline_mode", "pipeline_mode in ('LINEAR', 'CLUSTER')"),
        _foreign("instances", "account_id", "accounts.account_id"),
        _foreign("instances", "assigned_version", "model_registry.version"),
        _key("instances", "id"),
        _unique("instances", "account_id", "instance_id"),
    )
    op.create_index("ix_instances_assigned_version", "instances", ["assigned_version"])
    op.create_index(
        "ix_instances_account_id_active", "instances", ["account_id"], postgresql_where=sa.text("state = 'running'")
    )


def _scrapes_and_evaluations() -> None:
    op.create_table(
        "scrapes",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("source"),
        _text("account_id", nullable=True),
        _text("region", nullable=True),
        _time("fetched_at"),
        _whole("row_count"),
        _text("archive_path", nullable=True),
        _text("error", nullable=True),
        _check("scrapes", "row_count", "row_count >= 0"),
        _foreign("scrapes", "account_id", "accounts.account_id"),
        _key("scrapes", "id"),
    )
    op.create_index("ix_scrapes_account_id", "scrapes", ["account_id"])
    op.create_index("ix_scrapes_source_region_fetched_at", "scrapes", ["source", "region", sa.text("fetched_at desc")])
    op.create_table(
        "evaluations",
        _id(),
        _text("account_id"),
        _time("window_start"),
        _whole("step"),
        _text("state", default="running"),
        _text("run_id", nullable=True),
        _text("snapshot_id", nullable=True),
        _json("counts", default="{}"),
        _text("failed_at_step", nullable=True),
        _text("error", nullable=True),
        _time("started_at", now=True),
        _time("finished_at", nullable=True),
        _check("evaluations", "state", "state in ('running', 'logged', 'failed')"),
        _check("evaluations", "error", "(state = 'failed') = (error is not null)"),
        _check("evaluations", "snapshot_id", "state <> 'logged' or snapshot_id is not null"),
        _foreign("evaluations", "account_id", "accounts.account_id"),
        _key("evaluations", "id"),
        _unique("evaluations", "account_id", "window_start"),
        _unique("evaluations", "account_id", "step"),
    )


def _experiment_logs() -> None:
    table = "experiment_logs"
    op.create_table(
        table,
        _time("window_start"),
        _id(),
        _text("account_id"),
        _text("instance_id"),
        _text("model_version"),
        sa.Column("horizon_h", sa.SmallInteger(), nullable=False),
        _text("model_role"),
        _yes_or_no("acting"),
        _yes_or_no("shadow"),
        _text("pipeline_mode"),
        _json("features", nullable=True),
        _float("p_current"),
        _float("p_target"),
        _text("decision"),
        _text("reason"),
        _text("region"),
        _text("from_pool"),
        _text("to_pool", nullable=True),
        _float("from_price_usd_per_hour"),
        _float("to_price_usd_per_hour"),
        _float("from_cost_usd_per_hour"),
        _float("to_cost_usd_per_hour"),
        _float("gain"),
        _whole("candidates_considered"),
        _text("snapshot_id"),
        _time("scored_at"),
        _json("timings_ms"),
        _time("created_at", now=True),
        _check(table, "decision", "decision in ('STAY', 'SWITCH', 'FALLBACK_ON_DEMAND', 'SKIP')"),
        _check(table, "model_role", "model_role in ('champion', 'challenger', 'none')"),
        _check(table, "pipeline_mode", "pipeline_mode in ('LINEAR', 'CLUSTER')"),
        _check(table, "p_current", "p_current between 0 and 1"),
        _check(table, "p_target", "p_target between 0 and 1"),
        _check(table, "horizon_h", "horizon_h in (1, 6, 12)"),
        _check(table, "candidates_considered", "candidates_considered >= 0"),
        _check(table, "snapshot_id", "length(snapshot_id) = 64"),
        _foreign(table, "account_id", "accounts.account_id"),
        _foreign(table, "model_version", "model_registry.version"),
        _key(table, "window_start", "id"),
        _unique(
            table,
            "account_id",
            "window_start",
            "instance_id",
            "model_version",
            "horizon_h",
            name="uq_experiment_logs_grain",
        ),
        postgresql_partition_by="RANGE (window_start)",
    )
    for column in ("account_id", "model_version"):
        op.create_index(f"ix_{table}_{column}_window_start", table, [column, sa.text("window_start desc")])


def _tracking_runs() -> None:
    op.create_table(
        "tracking_runs",
        _text("account_id"),
        _text("model_version"),
        _text("mlflow_run_id"),
        _time("created_at", now=True),
        _foreign("tracking_runs", "account_id", "accounts.account_id"),
        _foreign("tracking_runs", "model_version", "model_registry.version"),
        _key("tracking_runs", "account_id", "model_version"),
        _unique("tracking_runs", "mlflow_run_id"),
    )
