-- The schema of the domain database. `make docs` writes this file from the migrations; do not edit it.

CREATE FUNCTION public.account_external_id(account text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$ select external_id from accounts where account_id = account and owner_id = app_user_id() $$;

CREATE FUNCTION public.app_accounts() RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$ select coalesce(case when app_is_admin() then (select array_agg(account_id) from accounts)
            else (select array_agg(account_id) from accounts where owner_id = (
                select id from users where id = app_user_id() and active)) end, '{}') $$;

CREATE FUNCTION public.app_is_admin() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$ select exists (select from users where id = app_user_id() and active and role = 'admin') $$;

CREATE FUNCTION public.app_user_id() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$ select users.id from logins join users on users.id = logins.user_id
           where users.active and expires_at > now() and token_sha256 = encode(sha256(convert_to(
               nullif(current_setting('app.login', true), ''), 'UTF8')), 'hex') $$;

CREATE FUNCTION public.is_past_window(details jsonb, window_start timestamp with time zone, scored_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ select coalesce(details @> '{"retrospective": true}', false) or scored_at > window_start + late_after() $$;

CREATE FUNCTION public.late_after() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select interval '30 minutes' $$;

CREATE FUNCTION public.make_log_partition(month timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
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
        end $$;

CREATE FUNCTION public.put_steering_on_record() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
        end $$;

CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        begin
            raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
        end $$;

CREATE FUNCTION public.set_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        begin
            new.updated_at = now();
            return new;
        end $$;

CREATE TABLE public.accounts (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    name text NOT NULL,
    owner_id uuid NOT NULL,
    environment text DEFAULT 'LAB'::text NOT NULL,
    role_arn text NOT NULL,
    external_id text NOT NULL,
    regions text[] NOT NULL,
    evaluation_interval_s integer NOT NULL,
    interruption_cost_usd double precision NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    access_state text DEFAULT 'unknown'::text NOT NULL,
    access_reason text,
    access_checked_at timestamp with time zone,
    denials integer DEFAULT 0 NOT NULL,
    CONSTRAINT ck_accounts_access_state CHECK ((access_state = ANY (ARRAY['unknown'::text, 'ok'::text, 'lax'::text, 'access_broken'::text]))),
    CONSTRAINT ck_accounts_account_id CHECK ((account_id ~ '^[0-9]{12}$'::text)),
    CONSTRAINT ck_accounts_denials CHECK ((denials >= 0)),
    CONSTRAINT ck_accounts_environment CHECK ((environment = ANY (ARRAY['LAB'::text, 'PROD'::text]))),
    CONSTRAINT ck_accounts_evaluation_interval_s CHECK (((evaluation_interval_s >= 60) AND (evaluation_interval_s <= 86400))),
    CONSTRAINT ck_accounts_external_id CHECK (((length(external_id) >= 22) AND (length(external_id) <= 1224))),
    CONSTRAINT ck_accounts_interruption_cost_usd CHECK (((interruption_cost_usd >= (0)::double precision) AND (interruption_cost_usd < 'Infinity'::double precision))),
    CONSTRAINT ck_accounts_regions CHECK ((cardinality(regions) > 0)),
    CONSTRAINT ck_accounts_role_arn CHECK ((role_arn ~ (('^arn:aws[a-z-]*:iam::'::text || account_id) || ':role/'::text))),
    CONSTRAINT ck_accounts_state CHECK ((state = ANY (ARRAY['active'::text, 'disabled'::text])))
);

ALTER TABLE ONLY public.accounts FORCE ROW LEVEL SECURITY;

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.audit_log (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    account_id text,
    subject text,
    outcome text NOT NULL,
    reason text,
    request_id text,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT ck_audit_log_action CHECK ((action = ANY (ARRAY['assume_role'::text, 'validate_access'::text, 'access_broken'::text, 'add_account'::text, 'change_environment'::text, 'assign_version'::text, 'set_mode'::text, 'set_shadow'::text, 'approve_model'::text, 'promote_model'::text, 'retire_model'::text, 'add_user'::text, 'disable_user'::text, 'set_role'::text, 'set_password'::text, 'register_model'::text, 'disable_account'::text, 'enable_account'::text, 'import_trace'::text, 'remove_trace'::text]))),
    CONSTRAINT ck_audit_log_outcome CHECK ((outcome = ANY (ARRAY['done'::text, 'refused'::text, 'failed'::text])))
);

ALTER TABLE ONLY public.audit_log FORCE ROW LEVEL SECURITY;

CREATE TABLE public.evaluation_requests (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    window_start timestamp with time zone NOT NULL,
    requested_by uuid,
    source text NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    run_id text,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_evaluation_requests_source CHECK ((source = ANY (ARRAY['api'::text, 'ui'::text, 'cli'::text]))),
    CONSTRAINT ck_evaluation_requests_state CHECK ((state = ANY (ARRAY['pending'::text, 'started'::text, 'done'::text, 'failed'::text])))
);

ALTER TABLE ONLY public.evaluation_requests FORCE ROW LEVEL SECURITY;

CREATE TABLE public.evaluations (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    window_start timestamp with time zone NOT NULL,
    step integer NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    run_id text,
    snapshot_id text,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    failed_at_step text,
    error text,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    outcomes_settled boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_evaluations_error CHECK (((state = 'failed'::text) = (error IS NOT NULL))),
    CONSTRAINT ck_evaluations_snapshot_id CHECK (((state <> 'logged'::text) OR (snapshot_id IS NOT NULL))),
    CONSTRAINT ck_evaluations_state CHECK ((state = ANY (ARRAY['running'::text, 'logged'::text, 'failed'::text]))),
    CONSTRAINT ck_evaluations_step CHECK ((step > 0))
);

ALTER TABLE ONLY public.evaluations FORCE ROW LEVEL SECURITY;

CREATE TABLE public.experiment_logs (
    window_start timestamp with time zone NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    instance_id text NOT NULL,
    model_version text NOT NULL,
    horizon_h smallint NOT NULL,
    model_role text NOT NULL,
    acting boolean NOT NULL,
    shadow boolean NOT NULL,
    pipeline_mode text NOT NULL,
    features jsonb,
    p_current double precision,
    p_target double precision,
    decision text NOT NULL,
    reason text NOT NULL,
    region text NOT NULL,
    from_pool text NOT NULL,
    to_pool text,
    from_price_usd_per_hour double precision,
    to_price_usd_per_hour double precision,
    from_cost_usd_per_hour double precision,
    to_cost_usd_per_hour double precision,
    gain double precision,
    candidates_considered integer NOT NULL,
    snapshot_id text NOT NULL,
    scored_at timestamp with time zone NOT NULL,
    timings_ms jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_experiment_logs_candidates_considered CHECK ((candidates_considered >= 0)),
    CONSTRAINT ck_experiment_logs_decision CHECK ((decision = ANY (ARRAY['STAY'::text, 'SWITCH'::text, 'FALLBACK_ON_DEMAND'::text, 'SKIP'::text]))),
    CONSTRAINT ck_experiment_logs_from_cost_usd_per_hour CHECK (((from_cost_usd_per_hour >= (0)::double precision) AND (from_cost_usd_per_hour < 'Infinity'::double precision))),
    CONSTRAINT ck_experiment_logs_from_price_usd_per_hour CHECK (((from_price_usd_per_hour >= (0)::double precision) AND (from_price_usd_per_hour < 'Infinity'::double precision))),
    CONSTRAINT ck_experiment_logs_gain CHECK (((gain > '-Infinity'::double precision) AND (gain < 'Infinity'::double precision))),
    CONSTRAINT ck_experiment_logs_horizon_h CHECK ((horizon_h = ANY (ARRAY[1, 6, 12]))),
    CONSTRAINT ck_experiment_logs_model_role CHECK ((model_role = ANY (ARRAY['champion'::text, 'challenger'::text, 'none'::text]))),
    CONSTRAINT ck_experiment_logs_p_current CHECK (((p_current >= (0)::double precision) AND (p_current <= (1)::double precision))),
    CONSTRAINT ck_experiment_logs_p_target CHECK (((p_target >= (0)::double precision) AND (p_target <= (1)::double precision))),
    CONSTRAINT ck_experiment_logs_pipeline_mode CHECK ((pipeline_mode = ANY (ARRAY['LINEAR'::text, 'CLUSTER'::text]))),
    CONSTRAINT ck_experiment_logs_snapshot_id CHECK ((length(snapshot_id) = 64)),
    CONSTRAINT ck_experiment_logs_to_cost_usd_per_hour CHECK (((to_cost_usd_per_hour >= (0)::double precision) AND (to_cost_usd_per_hour < 'Infinity'::double precision))),
    CONSTRAINT ck_experiment_logs_to_price_usd_per_hour CHECK (((to_price_usd_per_hour >= (0)::double precision) AND (to_price_usd_per_hour < 'Infinity'::double precision)))
)
PARTITION BY RANGE (window_start);

ALTER TABLE ONLY public.experiment_logs FORCE ROW LEVEL SECURITY;

CREATE TABLE public.instances (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    instance_id text NOT NULL,
    region text NOT NULL,
    az_id text NOT NULL,
    instance_type text NOT NULL,
    product text NOT NULL,
    lifecycle text NOT NULL,
    state text NOT NULL,
    tags jsonb DEFAULT '{}'::jsonb NOT NULL,
    launched_at timestamp with time zone NOT NULL,
    spot_request_id text,
    assigned_version text,
    pipeline_mode text DEFAULT 'LINEAR'::text NOT NULL,
    shadow boolean DEFAULT false NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    last_running_at timestamp with time zone,
    ended_by text,
    ended_source text,
    CONSTRAINT ck_instances_ended_at CHECK (((ended_at IS NULL) OR (state = ANY (ARRAY['terminated'::text, 'stopping'::text, 'stopped'::text])))),
    CONSTRAINT ck_instances_ended_by CHECK ((ended_by = ANY (ARRAY['owner'::text, 'switch'::text]))),
    CONSTRAINT ck_instances_ended_source CHECK ((ended_source = ANY (ARRAY['fleet'::text, 'spot_request'::text, 'state_reason'::text, 'eventbridge'::text, 'import'::text]))),
    CONSTRAINT ck_instances_ended_told CHECK ((((ended_by IS NULL) = (ended_source IS NULL)) AND ((ended_by IS NULL) OR (ended_at IS NOT NULL)))),
    CONSTRAINT ck_instances_lifecycle CHECK ((lifecycle = ANY (ARRAY['spot'::text, 'on-demand'::text]))),
    CONSTRAINT ck_instances_pipeline_mode CHECK ((pipeline_mode = ANY (ARRAY['LINEAR'::text, 'CLUSTER'::text]))),
    CONSTRAINT ck_instances_state CHECK ((state = ANY (ARRAY['pending'::text, 'running'::text, 'shutting-down'::text, 'terminated'::text, 'stopping'::text, 'stopped'::text])))
);

ALTER TABLE ONLY public.instances FORCE ROW LEVEL SECURITY;

CREATE TABLE public.interruption_events (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    account_id text NOT NULL,
    instance_id text NOT NULL,
    region text NOT NULL,
    az_id text NOT NULL,
    instance_type text NOT NULL,
    product text NOT NULL,
    source text NOT NULL,
    status_code text NOT NULL,
    spot_request_id text,
    occurred_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    number smallint DEFAULT '1'::smallint NOT NULL,
    CONSTRAINT ck_interruption_events_number CHECK ((number > 0)),
    CONSTRAINT ck_interruption_events_source CHECK ((source = ANY (ARRAY['spot_request'::text, 'state_reason'::text, 'eventbridge'::text, 'import'::text])))
);

ALTER TABLE ONLY public.interruption_events FORCE ROW LEVEL SECURITY;

CREATE TABLE public.interruption_outcomes (
    account_id text NOT NULL,
    window_start timestamp with time zone NOT NULL,
    instance_id text NOT NULL,
    region text NOT NULL,
    instance_type text NOT NULL,
    az_id text NOT NULL,
    product text NOT NULL,
    interrupted_at timestamp with time zone,
    watched_until timestamp with time zone NOT NULL,
    ended_by text,
    source text NOT NULL,
    settled boolean NOT NULL,
    resolved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_interruption_outcomes_ended_by CHECK ((ended_by = ANY (ARRAY['owner'::text, 'switch'::text]))),
    CONSTRAINT ck_interruption_outcomes_interrupted_at CHECK (((interrupted_at > window_start) AND (watched_until <= interrupted_at))),
    CONSTRAINT ck_interruption_outcomes_settled CHECK ((settled OR ((interrupted_at IS NULL) AND (ended_by IS NULL)))),
    CONSTRAINT ck_interruption_outcomes_source CHECK ((source = ANY (ARRAY['fleet'::text, 'spot_request'::text, 'state_reason'::text, 'eventbridge'::text, 'import'::text]))),
    CONSTRAINT ck_interruption_outcomes_told CHECK (((interrupted_at IS NULL) OR (source <> 'fleet'::text)))
);

ALTER TABLE ONLY public.interruption_outcomes FORCE ROW LEVEL SECURITY;

CREATE TABLE public.logins (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id uuid NOT NULL,
    token_sha256 text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_logins_expires_at CHECK ((expires_at > created_at)),
    CONSTRAINT ck_logins_token_sha256 CHECK ((token_sha256 ~ '^[0-9a-f]{64}$'::text))
);

ALTER TABLE ONLY public.logins FORCE ROW LEVEL SECURITY;

CREATE TABLE public.model_registry (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version text NOT NULL,
    family text NOT NULL,
    number integer NOT NULL,
    feature_spec text NOT NULL,
    horizons_h integer[] NOT NULL,
    artifact_uri text NOT NULL,
    artifact_sha256 text NOT NULL,
    mlflow_run_id text NOT NULL,
    mlflow_model_id text,
    metrics jsonb DEFAULT '{}'::jsonb NOT NULL,
    status text DEFAULT 'candidate'::text NOT NULL,
    role text DEFAULT 'none'::text NOT NULL,
    registered_by text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    reference jsonb,
    training_sha256 text,
    CONSTRAINT ck_model_registry_artifact_sha256 CHECK ((artifact_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT ck_model_registry_number CHECK ((number > 0)),
    CONSTRAINT ck_model_registry_role CHECK ((role = ANY (ARRAY['champion'::text, 'challenger'::text, 'none'::text]))),
    CONSTRAINT ck_model_registry_served_is_approved CHECK (((role = 'none'::text) OR (status = 'approved'::text))),
    CONSTRAINT ck_model_registry_status CHECK ((status = ANY (ARRAY['candidate'::text, 'approved'::text, 'retired'::text]))),
    CONSTRAINT ck_model_registry_training_sha256 CHECK ((training_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT ck_model_registry_version CHECK ((version = ((family || '/'::text) || number)))
);

CREATE TABLE public.scrapes (
    id uuid NOT NULL,
    source text NOT NULL,
    account_id text,
    region text,
    fetched_at timestamp with time zone NOT NULL,
    row_count integer NOT NULL,
    archive_path text,
    error text,
    provenance jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT ck_scrapes_row_count CHECK ((row_count >= 0))
);

ALTER TABLE ONLY public.scrapes FORCE ROW LEVEL SECURITY;

CREATE TABLE public.tracking_runs (
    account_id text NOT NULL,
    model_version text NOT NULL,
    mlflow_run_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.tracking_runs FORCE ROW LEVEL SECURITY;

CREATE TABLE public.users (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    email text NOT NULL,
    role text DEFAULT 'user'::text NOT NULL,
    active boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    password_hash text,
    CONSTRAINT ck_users_email CHECK ((email ~~ '%_@_%'::text)),
    CONSTRAINT ck_users_password_hash CHECK ((password_hash ~~ '$argon2id$%'::text)),
    CONSTRAINT ck_users_role CHECK ((role = ANY (ARRAY['user'::text, 'lab'::text, 'admin'::text])))
);

ALTER TABLE ONLY public.users FORCE ROW LEVEL SECURITY;

CREATE VIEW public.v_active_instances WITH (security_invoker='true') AS
 SELECT i.account_id,
    a.name AS account_name,
    a.environment,
    i.instance_id,
    i.region,
    i.az_id,
    i.instance_type,
    i.product,
    i.lifecycle,
    i.assigned_version,
    i.pipeline_mode,
    i.shadow,
    i.launched_at,
    i.last_seen_at
   FROM (public.instances i
     JOIN public.accounts a USING (account_id))
  WHERE ((i.state = 'running'::text) AND (a.state = 'active'::text));

CREATE VIEW public.v_labelled_predictions WITH (security_invoker='true') AS
 SELECT l.account_id,
    a.environment,
    l.window_start,
    l.instance_id,
    l.region,
    split_part(l.from_pool, '.'::text, 1) AS family,
    split_part(l.from_pool, ':'::text, 1) AS instance_type,
    split_part(l.from_pool, ':'::text, 2) AS az_id,
    split_part(l.from_pool, ':'::text, 3) AS product,
    l.model_version,
    l.model_role,
    l.acting,
    l.shadow,
    l.pipeline_mode,
    l.horizon_h,
    l.p_current,
    l.p_target,
    l.decision,
    l.to_pool,
    l.from_price_usd_per_hour,
    l.to_price_usd_per_hour,
    l.from_cost_usd_per_hour,
    l.to_cost_usd_per_hour,
    l.gain,
    y.outcome,
    ((y.outcome <> 'censored'::text) OR COALESCE(o.settled, false)) AS final,
    o.interrupted_at,
    o.watched_until,
    o.ended_by,
    o.source,
    public.is_past_window(e.details, l.window_start, l.scored_at) AS retrospective
   FROM ((((public.experiment_logs l
     JOIN public.accounts a ON ((a.account_id = l.account_id)))
     LEFT JOIN public.evaluations e ON (((e.account_id = l.account_id) AND (e.window_start = l.window_start))))
     LEFT JOIN public.interruption_outcomes o ON (((o.account_id = l.account_id) AND (o.window_start = l.window_start) AND (o.instance_id = l.instance_id))))
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (o.interrupted_at <= (l.window_start + make_interval(hours => (l.horizon_h)::integer))) THEN 'interrupted'::text
                    WHEN (o.watched_until > (l.window_start + make_interval(hours => (l.horizon_h)::integer))) THEN 'survived'::text
                    ELSE 'censored'::text
                END AS outcome) y)
  WHERE (l.p_current IS NOT NULL);

CREATE VIEW public.v_model_performance WITH (security_invoker='true') AS
 WITH looked AS (
         SELECT a.account_id,
            GREATEST(( SELECT max(s.fetched_at) AS max
                   FROM public.scrapes s
                  WHERE ((s.account_id = a.account_id) AND (s.source = ANY (ARRAY['pool_observations'::text, 'interruption_events'::text])) AND (s.error IS NULL))), ( SELECT max(o_1.watched_until) AS max
                   FROM public.interruption_outcomes o_1
                  WHERE ((o_1.account_id = a.account_id) AND (o_1.window_start > (now() - '30 days'::interval))))) AS until
           FROM public.accounts a
        )
 SELECT l.account_id,
    l.model_version,
    l.model_role,
    l.horizon_h,
    count(*) AS predictions,
    count(DISTINCT l.window_start) AS windows,
    avg(l.p_current) AS mean_p_current,
    count(*) FILTER (WHERE (l.decision = 'SWITCH'::text)) AS switches,
    count(*) FILTER (WHERE (l.decision = 'FALLBACK_ON_DEMAND'::text)) AS fallbacks,
    avg(l.gain) FILTER (WHERE (l.decision = 'SWITCH'::text)) AS mean_gain_of_switches,
    count(y.interrupted) AS resolved,
    COALESCE(sum(y.interrupted), (0)::bigint) AS interrupted,
    avg(((l.p_current - (y.interrupted)::double precision) ^ (2)::double precision)) AS brier
   FROM (((((public.experiment_logs l
     JOIN looked k ON ((k.account_id = l.account_id)))
     LEFT JOIN public.evaluations e ON (((e.account_id = l.account_id) AND (e.window_start = l.window_start))))
     LEFT JOIN public.interruption_outcomes o ON (((o.account_id = l.account_id) AND (o.window_start = l.window_start) AND (o.instance_id = l.instance_id))))
     CROSS JOIN LATERAL ( SELECT (l.window_start + make_interval(hours => (l.horizon_h)::integer)) AS deadline) d)
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN ((l.p_current IS NULL) OR (k.until IS NULL) OR (k.until < d.deadline)) THEN NULL::integer
                    WHEN (o.interrupted_at <= d.deadline) THEN 1
                    WHEN (o.watched_until > d.deadline) THEN 0
                    ELSE NULL::integer
                END AS interrupted) y)
  WHERE ((l.window_start > (now() - '30 days'::interval)) AND (NOT public.is_past_window(e.details, l.window_start, l.scored_at)))
  GROUP BY l.account_id, l.model_version, l.model_role, l.horizon_h;

CREATE VIEW public.v_recent_experiments WITH (security_invoker='true') AS
 SELECT e.account_id,
    e.window_start,
    e.step,
    l.instance_id,
    l.model_version,
    l.model_role,
    l.acting,
    l.shadow,
    l.horizon_h,
    l.p_current,
    l.p_target,
    l.decision,
    l.reason,
    l.from_pool,
    l.to_pool,
    l.from_cost_usd_per_hour,
    l.to_cost_usd_per_hour,
    l.gain
   FROM (public.evaluations e
     JOIN public.experiment_logs l ON (((l.account_id = e.account_id) AND (l.window_start = e.window_start))))
  WHERE ((e.state = 'logged'::text) AND (e.window_start > (now() - '7 days'::interval)) AND (l.window_start > (now() - '7 days'::interval)));

CREATE TABLE public.verdicts (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    champion text NOT NULL,
    challenger text NOT NULL,
    day date NOT NULL,
    look integer NOT NULL,
    information double precision,
    predictions integer NOT NULL,
    events integer NOT NULL,
    blocks integer NOT NULL,
    verdict text NOT NULL,
    why text NOT NULL,
    brier_gain double precision,
    brier_gain_low double precision,
    brier_gain_high double precision,
    log_loss_gain double precision,
    log_loss_gain_low double precision,
    log_loss_gain_high double precision,
    ece double precision,
    judged_at timestamp with time zone DEFAULT now() NOT NULL,
    predicted_share double precision,
    interrupted_share double precision,
    answered_share double precision,
    CONSTRAINT ck_verdicts_answered_share CHECK (((answered_share >= (0)::double precision) AND (answered_share <= (1)::double precision))),
    CONSTRAINT ck_verdicts_challenger CHECK ((champion <> challenger)),
    CONSTRAINT ck_verdicts_ece CHECK (((ece >= (0)::double precision) AND (ece <= (1)::double precision))),
    CONSTRAINT ck_verdicts_information CHECK (((information > (0)::double precision) AND (information < 'Infinity'::double precision))),
    CONSTRAINT ck_verdicts_interrupted_share CHECK (((interrupted_share >= (0)::double precision) AND (interrupted_share <= (1)::double precision))),
    CONSTRAINT ck_verdicts_look CHECK ((look >= 0)),
    CONSTRAINT ck_verdicts_predicted_share CHECK (((predicted_share >= (0)::double precision) AND (predicted_share <= (1)::double precision))),
    CONSTRAINT ck_verdicts_predictions CHECK (((predictions >= events) AND (events >= 0) AND (blocks >= 0))),
    CONSTRAINT ck_verdicts_verdict CHECK ((verdict = ANY (ARRAY['promote'::text, 'hold'::text, 'reject'::text, 'insufficient data'::text])))
);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT pk_accounts PRIMARY KEY (id);

ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT pk_audit_log PRIMARY KEY (id);

ALTER TABLE ONLY public.evaluation_requests
    ADD CONSTRAINT pk_evaluation_requests PRIMARY KEY (id);

ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT pk_evaluations PRIMARY KEY (id);

ALTER TABLE ONLY public.experiment_logs
    ADD CONSTRAINT pk_experiment_logs PRIMARY KEY (window_start, id);

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT pk_instances PRIMARY KEY (id);

ALTER TABLE ONLY public.interruption_events
    ADD CONSTRAINT pk_interruption_events PRIMARY KEY (id);

ALTER TABLE ONLY public.interruption_outcomes
    ADD CONSTRAINT pk_interruption_outcomes PRIMARY KEY (account_id, window_start, instance_id);

ALTER TABLE ONLY public.logins
    ADD CONSTRAINT pk_logins PRIMARY KEY (id);

ALTER TABLE ONLY public.model_registry
    ADD CONSTRAINT pk_model_registry PRIMARY KEY (id);

ALTER TABLE ONLY public.scrapes
    ADD CONSTRAINT pk_scrapes PRIMARY KEY (id);

ALTER TABLE ONLY public.tracking_runs
    ADD CONSTRAINT pk_tracking_runs PRIMARY KEY (account_id, model_version);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT pk_users PRIMARY KEY (id);

ALTER TABLE ONLY public.verdicts
    ADD CONSTRAINT pk_verdicts PRIMARY KEY (id);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT uq_accounts_account_id UNIQUE (account_id);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT uq_accounts_external_id UNIQUE (external_id);

ALTER TABLE ONLY public.evaluation_requests
    ADD CONSTRAINT uq_evaluation_requests_account_id_window_start UNIQUE (account_id, window_start);

ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT uq_evaluations_account_id_step UNIQUE (account_id, step);

ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT uq_evaluations_account_id_window_start UNIQUE (account_id, window_start);

ALTER TABLE ONLY public.experiment_logs
    ADD CONSTRAINT uq_experiment_logs_grain UNIQUE (account_id, window_start, instance_id, model_version, horizon_h);

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT uq_instances_account_id_instance_id UNIQUE (account_id, instance_id);

ALTER TABLE ONLY public.interruption_events
    ADD CONSTRAINT uq_interruption_events_account_id_instance_id_number UNIQUE (account_id, instance_id, number);

ALTER TABLE ONLY public.logins
    ADD CONSTRAINT uq_logins_token_sha256 UNIQUE (token_sha256);

ALTER TABLE ONLY public.model_registry
    ADD CONSTRAINT uq_model_registry_family_number UNIQUE (family, number);

ALTER TABLE ONLY public.model_registry
    ADD CONSTRAINT uq_model_registry_version UNIQUE (version);

ALTER TABLE ONLY public.tracking_runs
    ADD CONSTRAINT uq_tracking_runs_mlflow_run_id UNIQUE (mlflow_run_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT uq_users_email UNIQUE (email);

ALTER TABLE ONLY public.verdicts
    ADD CONSTRAINT uq_verdicts_champion_challenger_day UNIQUE (champion, challenger, day);

CREATE INDEX ix_accounts_account_id_marked ON public.accounts USING btree (account_id) WHERE (access_state = ANY (ARRAY['lax'::text, 'access_broken'::text]));

CREATE INDEX ix_accounts_owner_id ON public.accounts USING btree (owner_id);

CREATE INDEX ix_audit_log_account_id_at ON public.audit_log USING btree (account_id, at DESC);

CREATE INDEX ix_audit_log_action_at ON public.audit_log USING btree (action, at DESC);

CREATE INDEX ix_audit_log_actor_at ON public.audit_log USING btree (actor, at DESC);

CREATE INDEX ix_audit_log_at ON public.audit_log USING btree (at DESC);

CREATE INDEX ix_evaluations_account_id_window_start_unsettled ON public.evaluations USING btree (account_id, window_start) WHERE ((state = 'logged'::text) AND (NOT outcomes_settled));

CREATE INDEX ix_evaluations_window_start_account_id ON public.evaluations USING btree (window_start DESC, account_id);

CREATE INDEX ix_experiment_logs_id ON ONLY public.experiment_logs USING btree (id);

CREATE INDEX ix_instances_account_id_instance_id_present ON public.instances USING btree (account_id, instance_id) WHERE (state <> 'terminated'::text);

CREATE INDEX ix_scrapes_source_account_id_fetched_at ON public.scrapes USING btree (source, account_id, fetched_at DESC);

CREATE UNIQUE INDEX uq_model_registry_champion ON public.model_registry USING btree (role) WHERE (role = 'champion'::text);

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.verdicts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.accounts FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.set_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.evaluation_requests FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.set_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.instances FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.set_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.model_registry FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.set_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.users FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.set_updated_at();

CREATE TRIGGER steered AFTER UPDATE OF assigned_version, pipeline_mode, shadow ON public.instances FOR EACH ROW WHEN ((((old.assigned_version IS DISTINCT FROM new.assigned_version) OR (old.pipeline_mode IS DISTINCT FROM new.pipeline_mode)) OR (old.shadow IS DISTINCT FROM new.shadow))) EXECUTE FUNCTION public.put_steering_on_record();

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT fk_accounts_owner_id FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT fk_audit_log_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.evaluation_requests
    ADD CONSTRAINT fk_evaluation_requests_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.evaluation_requests
    ADD CONSTRAINT fk_evaluation_requests_requested_by FOREIGN KEY (requested_by) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT fk_evaluations_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE public.experiment_logs
    ADD CONSTRAINT fk_experiment_logs_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE public.experiment_logs
    ADD CONSTRAINT fk_experiment_logs_model_version FOREIGN KEY (model_version) REFERENCES public.model_registry(version) ON DELETE RESTRICT;

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_assigned_version FOREIGN KEY (assigned_version) REFERENCES public.model_registry(version) ON DELETE RESTRICT;

ALTER TABLE ONLY public.interruption_events
    ADD CONSTRAINT fk_interruption_events_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.logins
    ADD CONSTRAINT fk_logins_user_id FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.scrapes
    ADD CONSTRAINT fk_scrapes_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.tracking_runs
    ADD CONSTRAINT fk_tracking_runs_account_id FOREIGN KEY (account_id) REFERENCES public.accounts(account_id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.tracking_runs
    ADD CONSTRAINT fk_tracking_runs_model_version FOREIGN KEY (model_version) REFERENCES public.model_registry(version) ON DELETE RESTRICT;

ALTER TABLE ONLY public.verdicts
    ADD CONSTRAINT fk_verdicts_challenger FOREIGN KEY (challenger) REFERENCES public.model_registry(version) ON DELETE RESTRICT;

ALTER TABLE ONLY public.verdicts
    ADD CONSTRAINT fk_verdicts_champion FOREIGN KEY (champion) REFERENCES public.model_registry(version) ON DELETE RESTRICT;

ALTER TABLE public.accounts ENABLE ROW LEVEL SECURITY;

CREATE POLICY admins_see_all ON public.audit_log FOR SELECT TO spotlab_api USING (( SELECT public.app_is_admin() AS app_is_admin));

CREATE POLICY admins_see_all ON public.scrapes FOR SELECT TO spotlab_api USING (( SELECT public.app_is_admin() AS app_is_admin));

ALTER TABLE public.audit_log ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.evaluation_requests ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.evaluations ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.experiment_logs ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.instances ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.interruption_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.interruption_outcomes ENABLE ROW LEVEL SECURITY;

CREATE POLICY login ON public.logins TO spotlab_login USING (true) WITH CHECK (true);

CREATE POLICY login_reads ON public.users FOR SELECT TO spotlab_login USING (true);

CREATE POLICY login_renews ON public.users FOR UPDATE TO spotlab_login USING (active);

ALTER TABLE public.logins ENABLE ROW LEVEL SECURITY;

CREATE POLICY maintenance ON public.accounts TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.audit_log TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.evaluation_requests TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.evaluations TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.experiment_logs TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.instances TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.interruption_events TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.interruption_outcomes TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.logins TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.scrapes TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.tracking_runs TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY maintenance ON public.users TO spotlab USING (true) WITH CHECK (true);

CREATE POLICY own ON public.accounts TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[]))) WITH CHECK ((public.app_is_admin() OR ((environment = 'LAB'::text) AND (owner_id = public.app_user_id()))));

CREATE POLICY own ON public.audit_log FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.evaluation_requests FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.evaluations FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.experiment_logs FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.instances FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.interruption_events FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.interruption_outcomes FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.scrapes FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.tracking_runs FOR SELECT TO spotlab_api USING ((account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])));

CREATE POLICY own ON public.users FOR SELECT TO spotlab_api USING (((id = public.app_user_id()) OR public.app_is_admin()));

CREATE POLICY pipeline ON public.accounts TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.audit_log TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.evaluation_requests TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.evaluations TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.experiment_logs TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.instances TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.interruption_events TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.interruption_outcomes TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.scrapes TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.tracking_runs TO spotlab_pipeline USING (true) WITH CHECK (true);

CREATE POLICY pipeline ON public.users TO spotlab_pipeline USING (true) WITH CHECK (true);

ALTER TABLE public.scrapes ENABLE ROW LEVEL SECURITY;

CREATE POLICY serving_is_the_owners ON public.audit_log AS RESTRICTIVE FOR INSERT TO spotlab_pipeline WITH CHECK (((outcome <> 'done'::text) OR (action <> ALL (ARRAY['approve_model'::text, 'promote_model'::text, 'retire_model'::text]))));

CREATE POLICY steered ON public.evaluation_requests FOR INSERT TO spotlab_api WITH CHECK (((source <> 'cli'::text) AND (requested_by = ( SELECT public.app_user_id() AS app_user_id)) AND (public.app_is_admin() OR (EXISTS ( SELECT
   FROM public.accounts a
  WHERE ((a.account_id = evaluation_requests.account_id) AND (a.environment = 'LAB'::text) AND (a.owner_id = public.app_user_id())))))));

CREATE POLICY steered ON public.instances FOR UPDATE TO spotlab_api USING ((public.app_is_admin() OR (EXISTS ( SELECT
   FROM public.accounts a
  WHERE ((a.account_id = instances.account_id) AND (a.environment = 'LAB'::text) AND (a.owner_id = public.app_user_id()))))));

CREATE POLICY told ON public.audit_log FOR INSERT TO spotlab_api WITH CHECK (((outcome <> 'done'::text) AND (actor = ('user:'::text || ( SELECT public.app_user_id() AS app_user_id))) AND ((account_id IS NULL) OR (account_id = ANY (( SELECT public.app_accounts() AS app_accounts)::text[])))));

ALTER TABLE public.tracking_runs ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA public TO spotlab_pipeline;
GRANT USAGE ON SCHEMA public TO spotlab_api;
GRANT USAGE ON SCHEMA public TO spotlab_login;

REVOKE ALL ON FUNCTION public.account_external_id(account text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.account_external_id(account text) TO spotlab_api;

REVOKE ALL ON FUNCTION public.app_accounts() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_accounts() TO spotlab_api;

REVOKE ALL ON FUNCTION public.app_is_admin() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_is_admin() TO spotlab_api;

REVOKE ALL ON FUNCTION public.app_user_id() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_user_id() TO spotlab_api;

REVOKE ALL ON FUNCTION public.make_log_partition(month timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.make_log_partition(month timestamp with time zone) TO spotlab_pipeline;

GRANT SELECT,INSERT ON TABLE public.accounts TO spotlab_pipeline;

GRANT SELECT(id) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT(account_id) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(name) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(name) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT(owner_id) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(environment) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(environment) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT(role_arn) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(regions) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(regions) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(evaluation_interval_s) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(evaluation_interval_s) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(interruption_cost_usd) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(interruption_cost_usd) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(state) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(state) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT(created_at) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT(updated_at) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(access_state) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(access_state) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(access_reason) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(access_reason) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(access_checked_at) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(access_checked_at) ON TABLE public.accounts TO spotlab_api;

GRANT UPDATE(denials) ON TABLE public.accounts TO spotlab_pipeline;
GRANT SELECT(denials) ON TABLE public.accounts TO spotlab_api;

GRANT SELECT ON TABLE public.alembic_version TO spotlab_pipeline;
GRANT SELECT ON TABLE public.alembic_version TO spotlab_api;
GRANT SELECT ON TABLE public.alembic_version TO spotlab_login;

GRANT SELECT ON TABLE public.audit_log TO spotlab_pipeline;
GRANT SELECT ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(actor) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(actor) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(action) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(action) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(account_id) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(account_id) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(subject) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(subject) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(outcome) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(outcome) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(reason) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(reason) ON TABLE public.audit_log TO spotlab_api;

GRANT INSERT(request_id) ON TABLE public.audit_log TO spotlab_pipeline;

GRANT INSERT(details) ON TABLE public.audit_log TO spotlab_pipeline;
GRANT INSERT(details) ON TABLE public.audit_log TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.evaluation_requests TO spotlab_pipeline;
GRANT SELECT ON TABLE public.evaluation_requests TO spotlab_api;

GRANT INSERT(account_id) ON TABLE public.evaluation_requests TO spotlab_api;

GRANT INSERT(window_start) ON TABLE public.evaluation_requests TO spotlab_api;

GRANT INSERT(requested_by) ON TABLE public.evaluation_requests TO spotlab_api;

GRANT INSERT(source) ON TABLE public.evaluation_requests TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.evaluations TO spotlab_pipeline;
GRANT SELECT ON TABLE public.evaluations TO spotlab_api;

GRANT SELECT,INSERT ON TABLE public.experiment_logs TO spotlab_pipeline;
GRANT SELECT ON TABLE public.experiment_logs TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.instances TO spotlab_pipeline;
GRANT SELECT ON TABLE public.instances TO spotlab_api;

GRANT UPDATE(assigned_version) ON TABLE public.instances TO spotlab_api;

GRANT UPDATE(pipeline_mode) ON TABLE public.instances TO spotlab_api;

GRANT UPDATE(shadow) ON TABLE public.instances TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.interruption_events TO spotlab_pipeline;
GRANT SELECT ON TABLE public.interruption_events TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.interruption_outcomes TO spotlab_pipeline;
GRANT SELECT ON TABLE public.interruption_outcomes TO spotlab_api;

GRANT SELECT,INSERT,DELETE ON TABLE public.logins TO spotlab_login;

GRANT SELECT ON TABLE public.model_registry TO spotlab_pipeline;
GRANT SELECT ON TABLE public.model_registry TO spotlab_api;

GRANT INSERT(version) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(family) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(number) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(feature_spec) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(horizons_h) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(artifact_uri) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(artifact_sha256) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(mlflow_run_id) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(mlflow_model_id) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(metrics) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(registered_by) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(reference) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT INSERT(training_sha256) ON TABLE public.model_registry TO spotlab_pipeline;

GRANT SELECT,INSERT,UPDATE ON TABLE public.scrapes TO spotlab_pipeline;
GRANT SELECT ON TABLE public.scrapes TO spotlab_api;

GRANT SELECT,INSERT,UPDATE ON TABLE public.tracking_runs TO spotlab_pipeline;
GRANT SELECT ON TABLE public.tracking_runs TO spotlab_api;

GRANT SELECT(id) ON TABLE public.users TO spotlab_api;
GRANT SELECT(id) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(id) ON TABLE public.users TO spotlab_login;

GRANT SELECT(email) ON TABLE public.users TO spotlab_api;
GRANT SELECT(email),INSERT(email) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(email) ON TABLE public.users TO spotlab_login;

GRANT SELECT(role) ON TABLE public.users TO spotlab_api;
GRANT SELECT(role),INSERT(role) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(role) ON TABLE public.users TO spotlab_login;

GRANT SELECT(active) ON TABLE public.users TO spotlab_api;
GRANT SELECT(active) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(active) ON TABLE public.users TO spotlab_login;

GRANT SELECT(created_at) ON TABLE public.users TO spotlab_api;
GRANT SELECT(created_at) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(created_at) ON TABLE public.users TO spotlab_login;

GRANT SELECT(updated_at) ON TABLE public.users TO spotlab_api;
GRANT SELECT(updated_at) ON TABLE public.users TO spotlab_pipeline;
GRANT SELECT(updated_at) ON TABLE public.users TO spotlab_login;

GRANT SELECT(password_hash),UPDATE(password_hash) ON TABLE public.users TO spotlab_login;

GRANT SELECT ON TABLE public.v_active_instances TO spotlab_pipeline;
GRANT SELECT ON TABLE public.v_active_instances TO spotlab_api;

GRANT SELECT ON TABLE public.v_labelled_predictions TO spotlab_pipeline;
GRANT SELECT ON TABLE public.v_labelled_predictions TO spotlab_api;

GRANT SELECT ON TABLE public.v_model_performance TO spotlab_pipeline;
GRANT SELECT ON TABLE public.v_model_performance TO spotlab_api;

GRANT SELECT ON TABLE public.v_recent_experiments TO spotlab_pipeline;
GRANT SELECT ON TABLE public.v_recent_experiments TO spotlab_api;

GRANT SELECT ON TABLE public.verdicts TO spotlab_pipeline;
GRANT SELECT ON TABLE public.verdicts TO spotlab_api;

GRANT INSERT(champion) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(challenger) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(day) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(look) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(information) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(predictions) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(events) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(blocks) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(verdict) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(why) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(brier_gain) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(brier_gain_low) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(brier_gain_high) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(log_loss_gain) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(log_loss_gain_low) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(log_loss_gain_high) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(ece) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(predicted_share) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(interrupted_share) ON TABLE public.verdicts TO spotlab_pipeline;

GRANT INSERT(answered_share) ON TABLE public.verdicts TO spotlab_pipeline;
