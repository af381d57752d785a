"""A window that was scored late is a past one, and performance counts no interruption sooner than its survivals."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

PIPELINE, API = "spotlab_pipeline", "spotlab_api"


def upgrade() -> None:
    """Add the one rule of what a past window is, and put it and the deadline's into the views."""
    _rules()
    op.execute("drop view v_model_performance")
    _labelled_predictions("is_past_window(e.details, l.window_start, l.scored_at)")
    _model_performance()
    op.execute(f"grant select on v_model_performance to {PIPELINE}, {API}")


def downgrade() -> None:
    """Put the views back as they were."""
    op.execute("drop view v_model_performance")
    _labelled_predictions("""coalesce(e.details @> '{"retrospective": true}', false)""")
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
    op.execute(f"grant select on v_model_performance to {PIPELINE}, {API}")
    op.execute("drop function is_past_window(jsonb, timestamptz, timestamptz)")
    op.execute("drop function late_after()")


def _rules() -> None:
    """How late is late, and which windows are past ones; Postgres puts both into the query that asks."""
    op.execute(
        """
        create function late_after() returns interval language sql immutable parallel safe as
        $$ select interval '30 minutes' $$
        """
    )
    op.execute(
        """
        create function is_past_window(details jsonb, window_start timestamptz, scored_at timestamptz) returns boolean
        language sql stable parallel safe as
        $$ select coalesce(details @> '{"retrospective": true}', false) or scored_at > window_start + late_after() $$
        """
    )


def _labelled_predictions(retrospective: str) -> None:
    op.execute(
        """
        create or replace view v_labelled_predictions with (security_invoker = true) as
        select l.account_id, a.environment, l.window_start, l.instance_id, l.region,
               split_part(l.from_pool, '.', 1) as family, split_part(l.from_pool, ':', 1) as instance_type,
               split_part(l.from_pool, ':', 2) as az_id, split_part(l.from_pool, ':', 3) as product,
               l.model_version, l.model_role, l.acting, l.shadow, l.pipeline_mode, l.horizon_h, l.p_current,
               l.p_target, l.decision, l.to_pool, l.from_price_usd_per_hour, l.to_price_usd_per_hour,
               l.from_cost_usd_per_hour, l.to_cost_usd_per_hour, l.gain, y.outcome,
               y.outcome <> 'censored' or coalesce(o.settled, false) as final,
               o.interrupted_at, o.watched_until, o.ended_by, o.source, {retrospective} as retrospective
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
        """.replace("{retrospective}", retrospective)
    )


def _model_performance() -> None:
    """Of its own rows of the log, past windows left out, whatever is assigned now.

    A prediction is resolved no sooner than its account was looked at after its deadline, as in experiments/labels.py:
    of the latest windows interruptions are known first, and would count alone.
    """
    op.execute(
        """
        create view v_model_performance with (security_invoker = true) as
        with looked as (
            select a.account_id, greatest((
                select max(s.fetched_at) from scrapes s
                where s.account_id = a.account_id and s.source in ('pool_observations', 'interruption_events')
                  and s.error is null
            ), (
                select max(o.watched_until) from interruption_outcomes o
                where o.account_id = a.account_id and o.window_start > now() - interval '30 days'
            )) as until
            from accounts a
        )
        select l.account_id, l.model_version, l.model_role, l.horizon_h,
               count(*) as predictions, count(distinct l.window_start) as windows,
               avg(l.p_current) as mean_p_current,
               count(*) filter (where l.decision = 'SWITCH') as switches,
               count(*) filter (where l.decision = 'FALLBACK_ON_DEMAND') as fallbacks,
               avg(l.gain) filter (where l.decision = 'SWITCH') as mean_gain_of_switches,
               count(y.interrupted) as resolved, coalesce(sum(y.interrupted), 0) as interrupted,
               avg((l.p_current - y.interrupted) ^ 2) as brier
        from experiment_logs l
        join looked k on k.account_id = l.account_id
        left join evaluations e on e.account_id = l.account_id and e.window_start = l.window_start
        left join interruption_outcomes o
            on o.account_id = l.account_id and o.window_start = l.window_start and o.instance_id = l.instance_id
        cross join lateral (select l.window_start + make_interval(hours => l.horizon_h) as deadline) d
        cross join lateral (select case
            when l.p_current is null or k.until is null or k.until < d.deadline then null
            when o.interrupted_at <= d.deadline then 1
            when o.watched_until > d.deadline then 0
            end as interrupted) y
        where l.window_start > now() - interval '30 days'
          and not is_past_window(e.details, l.window_start, l.scored_at)
        group by l.account_id, l.model_version, l.model_role, l.horizon_h
        """
    )
