"""The assets of the training room: what is learned from, and a candidate that was learned from it."""

from datetime import datetime

import dagster as dg
from pydantic import Field

from spotlab_pipelines.defs.evaluation import translated
from spotlab_pipelines.defs.metadata import report_metadata
from spotlab_pipelines.defs.resources import (
    ArchiveParam,
    DatabaseParam,
    RedisParam,
    RegistryParam,
    SessionsParam,
    SettingsParam,
)

OWNERS = ["team:ml-engineering"]
FINGERPRINT = "data_fingerprint"


class ExamplesConfig(dg.Config):
    """What to learn from; the defaults need no decision."""

    source: str = Field(default="accounts", description="`accounts`, their Spot requests, or an imported trace's name.")
    feature_spec: str = Field(
        default="", description="The feature spec; empty: with prices of accounts, without of a trace, which has none."
    )
    since: str = Field(default="", description="ISO time with zone; empty: 30 days of accounts, all of a trace.")
    until: str = Field(default="", description="ISO time with zone, from which on nothing is looked at; empty: now.")


class ModelConfig(dg.Config):
    """What to fit."""

    family: str = Field(default="logistic", description="base-rate, advisor-rate, time-in-state, logistic or boosting.")


@dg.asset(group_name="training", kinds={"parquet"}, owners=OWNERS)
def training_examples(
    context: dg.AssetExecutionContext,
    config: ExamplesConfig,
    settings: SettingsParam,
    account_sessions: SessionsParam,
    database: DatabaseParam,
    redis: RedisParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """Features as of an instant and what became of it, in the archive under the hash of their content."""
    from spotlab_pipelines.training.data import ACCOUNTS, collect_accounts, collect_trace
    from spotlab_pipelines.training.families import default_spec

    with translated():
        spec = config.feature_spec or default_spec(ModelConfig().family, from_trace=config.source != ACCOUNTS)
        bounds = {"since": instant(config.since), "until": instant(config.until)}
        asked = {"feature_spec": spec, "progress": context.log.info, **bounds}
        if config.source == ACCOUNTS:
            data = collect_accounts(settings, database, account_sessions, redis, archive, **asked)
        else:
            data = collect_trace(settings, archive, config.source, **asked)
        return dg.MaterializeResult(metadata={**data.params(), FINGERPRINT: data.fingerprint})


@dg.asset(deps=[training_examples], group_name="training", kinds={"mlflow", "scikitlearn"}, owners=OWNERS)
def interruption_model(
    context: dg.AssetExecutionContext,
    config: ModelConfig,
    settings: SettingsParam,
    model_registry: RegistryParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """A model of the newest training examples, registered as a candidate. Approving and promoting is for people."""
    from spotlab_pipelines.errors import NotEnoughData
    from spotlab_pipelines.training.data import read_training_data
    from spotlab_pipelines.training.interruption_model import train_model

    with translated():
        try:
            trained = train_model(
                settings,
                model_registry,
                read_training_data(archive, newest_fingerprint(context)),
                family=config.family,
                registered_by=f"run:{context.run.run_id}",
                actor=f"run:{context.run.run_id}",
                progress=context.log.info,
            )
        except NotEnoughData as error:
            # A young laboratory has nothing to learn from yet. A backfill would take an asset that is left out for one
            # that failed.
            context.log.warning(f"No model was fitted: {error}")
            return dg.MaterializeResult(metadata={"fitted": False, "why": str(error)})
    return dg.MaterializeResult(metadata={"fitted": True, **report_metadata(trained)})


def newest_fingerprint(context: dg.AssetExecutionContext) -> str:
    """The fingerprint of the newest examples that Dagster knows of."""
    from spotlab_pipelines.errors import NotFound

    event = context.instance.get_latest_materialization_event(training_examples.key)
    materialization = event.asset_materialization if event else None
    if materialization is None:
        raise NotFound("Expected training examples; there are none.", remedy="Materialise training_examples first.")
    return str(materialization.metadata[FINGERPRINT].value)


def instant(text: str) -> datetime | None:
    """The time that a config gave, None for an empty one."""
    from spotlab_pipelines.errors import InvalidInput

    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidInput(f"Expected an ISO time such as 2022-12-13T00:00:00+00:00, got {text!r}.") from error


training = dg.define_asset_job(
    "training",
    selection=dg.AssetSelection.assets(training_examples, interruption_model),
    description="Collect examples and register a candidate that was fitted on them. Nothing is approved.",
)
training_schedule = dg.ScheduleDefinition(
    name="training_weekly",
    description="Registers a candidate that was fitted on the accounts' last 30 days; nobody is served by it.",
    job=training,
    cron_schedule="45 4 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
