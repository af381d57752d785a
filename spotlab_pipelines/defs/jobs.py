"""Jobs, schedules and sensors: when what runs. Every tick asks one question of Postgres and stays far below 5 s."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus

from spotlab_pipelines.defs.checks import market_freshness
from spotlab_pipelines.defs.evaluation import ACCOUNT_TAG, WINDOW_TAG
from spotlab_pipelines.defs.partitions import account_partitions, partition_changes
from spotlab_pipelines.defs.resources import DatabaseParam, RedisParam, SettingsParam

IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
PARTITION_TAG = "dagster/partition"
RANGE_TAG = "dagster/asset_partition_range_start"

ACCOUNT_ASSETS = [
    "fleet_instances",
    "spot_prices",
    "pool_observations",
    "pool_features",
    "interruption_predictions",
    "placement_decisions",
    "experiment_log",
]

FRESHNESS = dg.AssetSelection.checks(market_freshness)
"""Apart from the scrapes: after one that failed, a check of the same run would be skipped."""

evaluation = dg.define_asset_job(
    "evaluation",
    selection=dg.AssetSelection.assets(*ACCOUNT_ASSETS) - FRESHNESS,
    description="One evaluation of an account, from its fleet to the experiment log. Needs a fresh shared market.",
)
outcomes = dg.define_asset_job(
    "outcomes",
    selection=dg.AssetSelection.assets("interruption_outcomes"),
    description="Learn what became of an account's logged instances.",
)
advisor_scrape = dg.define_asset_job(
    "advisor_scrape",
    selection=dg.AssetSelection.assets("spot_advisor") - FRESHNESS,
    description="Scrape the Spot Advisor.",
)
catalogue_scrape = dg.define_asset_job(
    "catalogue_scrape",
    selection=dg.AssetSelection.assets("instance_catalogue") - FRESHNESS,
    description="Scrape instance types and on-demand prices.",
)

scorecards = dg.define_asset_job(
    "scorecards",
    selection=dg.AssetSelection.assets("model_scorecards"),
    description="Judge each version by what happened, one look a finished day at each challenger.",
)
log_maintenance = dg.define_asset_job(
    "log_maintenance",
    selection=dg.AssetSelection.assets("log_partitions"),
    description="Make the experiment log's partitions ahead, and drop those whose retention is over.",
)

archive_maintenance = dg.define_asset_job(
    "archive_maintenance",
    selection=dg.AssetSelection.assets("archive_compaction"),
    description="Merge the archive's small files.",
)
market_checks = dg.define_asset_job(
    "market_checks",
    selection=FRESHNESS,
    description="Warn of what has not been scraped for longer than its time to live, by account.",
)

SHARED_SCRAPES = {"spot_advisor": advisor_scrape, "instance_catalogue": catalogue_scrape}
RESCRAPE_AFTER_S = 600
"""A shared source that the cache lacks is asked for at most this often."""

# Each runs at least twice within the time to live of what it fills, so that one failed scrape leaves no gap.
advisor_schedule = dg.ScheduleDefinition(
    name="spot_advisor_every_20_minutes",
    description="Scrapes the Spot Advisor, at least twice within its time to live in the cache.",
    job=advisor_scrape,
    cron_schedule="*/20 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
catalogue_schedule = dg.ScheduleDefinition(
    name="instance_catalogue_every_6_hours",
    description="Scrapes instance types and on-demand prices, at least twice within their time to live.",
    job=catalogue_scrape,
    cron_schedule="5 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
checks_schedule = dg.ScheduleDefinition(
    name="market_checks_every_15_minutes",
    description="Looks for sources and accounts whose newest scrape is too old or failed since.",
    job=market_checks,
    cron_schedule="8-59/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
scorecards_schedule = dg.ScheduleDefinition(
    name="scorecards_every_6_hours",
    description="Judges every version by the outcomes that are known by then, and brings its figures to MLflow.",
    job=scorecards,
    cron_schedule="50 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
log_schedule = dg.ScheduleDefinition(
    name="log_partitions_daily",
    description="Makes room in the experiment log for the months ahead, and drops months past their retention.",
    job=log_maintenance,
    cron_schedule="35 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
archive_schedule = dg.ScheduleDefinition(
    name="archive_compaction_daily",
    description="Merges the small files that a day of scrapes left in the archive.",
    job=archive_maintenance,
    cron_schedule="15 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps one partition per active account; one that a run works on is not taken away.",
)
def registered_accounts(
    context: dg.SensorEvaluationContext, database: DatabaseParam
) -> dg.SensorResult | dg.SkipReason:
    """Keep one partition per active account. A registry that cannot be read fails the tick: it is not an empty one."""
    from spotlab_pipelines.accounts.registry import list_accounts

    registered = [account.account_id for account in list_accounts(database)]
    existing = context.instance.get_dynamic_partitions(str(account_partitions.name))
    changes = partition_changes(
        registered=registered, existing=existing, busy=busy_partitions(context.instance, existing)
    )
    if not changes.add and not changes.delete:
        return dg.SkipReason(f"{len(registered)} accounts, all have their partition.")
    adds = [account_partitions.build_add_request(changes.add)] if changes.add else []
    deletes = [account_partitions.build_delete_request(changes.delete)] if changes.delete else []
    return dg.SensorResult(dynamic_partitions_requests=[*adds, *deletes])


@dg.sensor(
    jobs=[evaluation, advisor_scrape, catalogue_scrape],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the evaluation of each account whose interval has come round, once the shared market is there.",
)
def due_evaluations(
    context: dg.SensorEvaluationContext,
    database: DatabaseParam,
    redis: RedisParam,
    settings: SettingsParam,
) -> dg.SensorResult | dg.SkipReason:
    """Start the evaluation of every account whose interval has come round; its window travels as a tag.

    Without the shared market none can succeed: after a start on an empty cache, or when Redis lost it, the scrapes that
    fill it come first, and the evaluations at a later tick. Accounts whose access is lax or broken are left alone.
    """
    from spotlab_pipelines.experiments.queries import due_accounts
    from spotlab_pipelines.market.cache import lacking_sources

    now = datetime.now(UTC)
    known = set(context.instance.get_dynamic_partitions(str(account_partitions.name)))
    due = [
        account
        for account in due_accounts(database, now, retry_s=settings.access_retry_s)
        if account.account_id in known
    ]
    if not due:
        return dg.SkipReason("No account is due.")
    lacking = lacking_sources(redis, settings, {region for account in due for region in account.regions}, now=now)
    if lacking:
        context.log.info(f"{len(due)} accounts are due and wait for {', '.join(lacking)}, which the cache lacks.")
        asked_at = int(now.timestamp()) // RESCRAPE_AFTER_S * RESCRAPE_AFTER_S
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{asset}/{asked_at}", job_name=SHARED_SCRAPES[asset].name) for asset in lacking
            ]
        )
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{account.account_id}/{account.window_start.isoformat()}",
                job_name=evaluation.name,
                partition_key=account.account_id,
                tags={WINDOW_TAG: account.window_start.isoformat(), ACCOUNT_TAG: account.account_id},
            )
            for account in due
        ]
    )


@dg.schedule(
    job=outcomes,
    cron_schedule="20 * * * *",
    description="Learns what became of the instances of each account that has windows with open outcomes.",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def interruption_outcomes_hourly(
    context: dg.ScheduleEvaluationContext, database: DatabaseParam, settings: SettingsParam
) -> list[dg.RunRequest] | dg.SkipReason:
    """Learn of every account that has windows whose outcomes are not settled; one query a tick."""
    from spotlab_pipelines.experiments.learning import accounts_to_learn_of

    at = context.scheduled_execution_time
    known = set(context.instance.get_dynamic_partitions(str(account_partitions.name)))
    wanted = accounts_to_learn_of(database, datetime.now(UTC), retry_s=settings.access_retry_s)
    requests = [
        dg.RunRequest(run_key=f"outcomes/{account}/{at.isoformat()}", partition_key=account)
        for account in wanted
        if account in known
    ]
    return requests or dg.SkipReason("No account has an outcome to learn.")


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs and evaluations that a process left behind when it died, so that their accounts go on.",
)
def stuck_evaluations(context: dg.SensorEvaluationContext, database: DatabaseParam) -> dg.SkipReason:
    """End what a process left behind when it died: its run, which keeps its account's place, and its evaluation."""
    from spotlab_pipelines.defs.stuck import end_stuck

    ended = end_stuck(context.instance, database, datetime.now(UTC))
    return dg.SkipReason(f"Ended: {', '.join(str(each.key) for each in ended) or 'nothing is stuck'}.")


def busy_partitions(instance: dg.DagsterInstance, existing: Sequence[str]) -> set[str]:
    """The partitions that a run in flight works on; a run over a range is taken to work on all of them."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT))
    if any(RANGE_TAG in run.tags for run in runs):
        return set(existing)
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}
