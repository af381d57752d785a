"""What became of each logged instance, and of each prediction: interrupted, survived, or censored.

A label depends on no version and no horizon, so it is stored once for an instance and window; the view spells it out.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = "interruption_outcomes"
TIME = sa.TIMESTAMP(timezone=True)
PIPELINE, API = "spotlab_pipeline", "spotlab_api"
CHECKS = (
    ("ended_by", "ended_by in ('owner', 'switch')"),
    ("source", "source in ('fleet', 'spot_request', 'state_reason', 'eventbridge', 'import')"),
    (
        "interrupted_at",
        "interrupted_at > window_start and watched_until <= interrupted_at",
    ),
    ("event_id", "(event_id is null) = (interrupted_at is null)"),
    ("settled", "settled or (interrupted_at is null and ended_by is null)"),
)


def upgrade() -> None:
    """Create the table, who may see it, and the views."""
    _table()
    op.execute("drop view v_model_performance")
    _labelled_predictions()
    _model_performance()
    op.execute(f"grant select on v_labelled_predictions, v_model_performance to {PIPELINE}, {API}")


def downgrade() -> None:
    """Take it back: the table goes, and the view counts predictions alone again."""
    op.execute("drop view v_model_performance")
    op.execute("drop view v_labelled_predictions")
    op.drop_table(TABLE)
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
    op.execute(f"grant select on v_model_performance to {PIPELINE}, {API}")


def _table() -> None:
    def text(name: str, *, nullable: bool = False) -> sa.Column:
        return sa.Column(name, sa.Text(), nullable=nullable)

    op.create_table(
        TABLE,
        text("account_id"),
        sa.Column("window_start", TIME, nullable=False),
        text("instance_id"),
        text("region"),
        text("instance_type"),
        text("az_id"),
        text("product"),
        sa.Column("interrupted_at", TIME, nullable=True),
        sa.Column("watched_until", TIME, nullable=False),
        text("ended_by", nullable=True),
        text("source"),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("resolved_at", TIME, server_default=sa.func.now(), nullable=False),
        *(sa.CheckConstraint(condition, name=op.f(f"ck_{TABLE}_{name}")) for name, condition in CHECKS),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name=op.f(f"fk_{TABLE}_account_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["interruption_events.id"], name=op.f(f"fk_{TABLE}_event_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("account_id", "window_start", "instance_id", name=op.f(f"pk_{TABLE}")),
    )
    op.execute(f"alter table {TABLE} enable row level security")
    op.execute(f"alter table {TABLE} force row level security")
    op.execute(f"create policy maintenance on {TABLE} to current_user using (true) with check (true)")
    op.execute(f"create policy pipeline on {TABLE} to {PIPELINE} using (true) with check (true)")
    op.execute(
        f"create policy own on {TABLE} for select to {API} using (account_id = any ((select app_accounts())::text[]))"
    )
    op.execute(f"grant select, insert, update on {TABLE} to {PIPELINE}")
    op.execute(f"grant select on {TABLE} to {API}")


def _labelled_predictions() -> None:
    """Each prediction for the pool its instance was in; one that nobody has resolved yet is censored and not final."""
    op.execute(
        """
        create view v_labelled_predictions with (security_invoker = true) as
        select l.account_id, a.environment, l.window_start, l.instance_id, l.region,
               split_part(l.from_pool, '.', 1) as family, split_part(l.from_pool, ':', 1) as instance_type,
               split_part(l.from_pool, ':', 2) as az_id, split_part(l.from_pool, ':', 3) as product,
               l.model_version, l.model_role, l.acting, l.shadow, l.pipeline_mode, l.horizon_h, l.p_current,
               l.p_target, l.decision, l.to_pool, l.from_price_usd_per_hour, l.to_price_usd_per_hour,
               l.from_cost_usd_per_hour, l.to_cost_usd_per_hour, l.gain, y.outcome,
               y.outcome <> 'censored' or coalesce(o.settled, false) as final,
               o.interrupted_at, o.watched_until, o.ended_by, o.source,
               coalesce(e.details @> '{"retrospective": true}', false) as retrospective
        from experiment_logs l
        join accounts a on a.account_id = l.account_id
        left join evaluations e on e.account_id = l.account_id and e.window_start = l.window_start
        left join interruption_outcomes o
            on o.account_id = l.account_id and o.window_start = l.window_start and o.instance_id = l.instance_id
        cross join lateral (select case
            when o.interrupted_at <= l.window_start + make_interval(hours => l.horizon_h) then 'interrupted'
            when o.watched_until > l.window_start + make_interval(hours => l.horizon_h) then 'survived'
            else 'censored' end as outcome) y
        where l.p_current is not null
        """
    )


def _model_performance() -> None:
    """What each version that predicted was worth: its own rows of the log, whatever is assigned now."""
    op.execute(
        """
        create view v_model_performance with (security_invoker = true) as
        select l.account_id, l.model_version, l.model_role, l.horizon_h,
               count(*) as predictions, count(distinct l.window_start) as windows,
               avg(l.p_current) as mean_p_current,
               count(*) filter (where l.decision = 'SWITCH') as switches,
               count(*) filter (where l.decision = 'FALLBACK_ON_DEMAND') as fallbacks,
               avg(l.gain) filter (where l.decision = 'SWITCH') as mean_gain_of_switches,
               count(y.interrupted) as resolved, coalesce(sum(y.interrupted), 0) as interrupted,
               avg((l.p_current - y.interrupted) ^ 2) as brier
        from experiment_logs l
        left join interruption_outcomes o
            on o.account_id = l.account_id and o.window_start = l.window_start and o.instance_id = l.instance_id
        cross join lateral (select case
            when l.p_current is null then null
            when o.interrupted_at <= l.window_start + make_interval(hours => l.horizon_h) then 1
            when o.watched_until > l.window_start + make_interval(hours => l.horizon_h) then 0
            end as interrupted) y
        where l.window_start > now() - interval '30 days'
        group by l.account_id, l.model_version, l.model_role, l.horizon_h
        """
    )
