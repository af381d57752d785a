"""What Dagster loads: one explicit `Definitions`, in-process executor (the steps of one account are serial anyway)."""

import dagster as dg

from spotlab_pipelines.defs.accounts import fleet_instances
from spotlab_pipelines.defs.checks import market_freshness
from spotlab_pipelines.defs.experiments import experiment_log, interruption_outcomes, log_partitions
from spotlab_pipelines.defs.features import pool_features
from spotlab_pipelines.defs.inference import interruption_predictions
from spotlab_pipelines.defs.jobs import (
    advisor_schedule,
    advisor_scrape,
    archive_maintenance,
    archive_schedule,
    catalogue_schedule,
    catalogue_scrape,
    checks_schedule,
    due_evaluations,
    evaluation,
    interruption_outcomes_hourly,
    log_maintenance,
    log_schedule,
    market_checks,
    outcomes,
    registered_accounts,
    scorecards,
    scorecards_schedule,
    stuck_evaluations,
)
from spotlab_pipelines.defs.market import (
    archive_compaction,
    instance_catalogue,
    pool_observations,
    spot_advisor,
    spot_prices,
)
from spotlab_pipelines.defs.placement import placement_decisions
from spotlab_pipelines.defs.registry import mlflow_agrees, mlflow_differences_reported
from spotlab_pipelines.defs.resources import default_resources
from spotlab_pipelines.defs.scorecards import model_scorecards
from spotlab_pipelines.defs.training import interruption_model, training, training_examples, training_schedule


def build_definitions(**resources: object) -> dg.Definitions:
    """The deployment's definitions; `resources` replaces any of the default ones, for tests."""
    return dg.Definitions(
        assets=[
            spot_advisor,
            instance_catalogue,
            fleet_instances,
            spot_prices,
            pool_observations,
            pool_features,
            interruption_predictions,
            placement_decisions,
            experiment_log,
            interruption_outcomes,
            model_scorecards,
            log_partitions,
            archive_compaction,
            training_examples,
            interruption_model,
        ],
        asset_checks=[market_freshness, mlflow_agrees],
        jobs=[
            evaluation,
            outcomes,
            advisor_scrape,
            catalogue_scrape,
            scorecards,
            log_maintenance,
            archive_maintenance,
            market_checks,
            training,
        ],
        schedules=[
            interruption_outcomes_hourly,
            advisor_schedule,
            catalogue_schedule,
            scorecards_schedule,
            log_schedule,
            archive_schedule,
            checks_schedule,
            training_schedule,
        ],
        sensors=[registered_accounts, due_evaluations, stuck_evaluations, mlflow_differences_reported],
        resources={**default_resources(), **resources},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
