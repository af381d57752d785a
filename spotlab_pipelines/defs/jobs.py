"""Jobs, schedules and sensors: when what runs. Every tick asks one question of Postgres and stays far below 5 s."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterRunStatus

from spotlab_pipelines.accounts.registry import list_accounts
from spotlab_pipelines.defs.evaluation import ACCOUNT_TAG, WINDOW_TAG
from spotlab_pipelines.defs.partitions import account_partitions, partition_changes
from spotlab_pipelines.experiments.queries import due_accounts

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
    "pool_features",
    "interruption_predictions",
    "placement_decisions",
    "experiment_log",
]

evaluation = dg.define_asset_job(
    "evaluation",
    selection=dg.AssetSelection.assets(*ACCOUNT_ASSETS),
    description="One evaluation of an account, from its fleet to the experiment log. Needs a fresh shared market.",
)
advisor_scrape = dg.define_asset_job(
    "advisor_scrape", selection=dg.AssetSelection.assets("spot_advisor"), description="Scrape the Spot Advisor."
)
catalogue_scrape = dg.define_asset_job(
    "catalogue_scrape",
    selection=dg.AssetSelection.assets("instance_catalogue"),
    description="Scrape instance types and on-demand prices.",
)

# Each runs at least twice within the time to live of what it fills, so that one failed scrape leaves no gap.
advisor_schedule = dg.ScheduleDefinition(
    name="spot_advisor_every_20_minutes",
    job=advisor_scrape,
    cron_schedule="*/20 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
catalogue_schedule = dg.ScheduleDefinition(
    name="instance_catalogue_every_6_hours",
    job=catalogue_scrape,
    cron_schedule="5 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def registered_accounts(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[sa.Engine]
) -> dg.SensorResult | dg.SkipReason:
    """Keep one partition per active account. A registry that cannot be read fails the tick: it is not an empty one."""
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


@dg.sensor(job=evaluation, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def due_evaluations(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[sa.Engine]
) -> dg.SensorResult | dg.SkipReason:
    """Start the evaluation of every account whose interval has come round; its window travels as a tag."""
    known = set(context.instance.get_dynamic_partitions(str(account_partitions.name)))
    due = [(account, window) for account, window in due_accounts(database, datetime.now(UTC)) if account in known]
    if not due:
        return dg.SkipReason("No account is due.")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{account}/{window.isoformat()}",
                partition_key=account,
                tags={WINDOW_TAG: window.isoformat(), ACCOUNT_TAG: account},
            )
            for account, window in due
        ]
    )


def busy_partitions(instance: dg.DagsterInstance, existing: Sequence[str]) -> set[str]:
    """The partitions that a run in flight works on; a run over a range is taken to work on all of them."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT))
    if any(RANGE_TAG in run.tags for run in runs):
        return set(existing)
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}
