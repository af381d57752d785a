"""Whether MLflow shows what is served: a check of the scorecards, which people read there, and a sensor in between.

The check runs with each scorecard. The sensor looks much more often, as that takes a few queries, where a run would
take a second and a page of events; it puts the check's result on record only when something has changed.
"""

import hashlib
from typing import Any

import dagster as dg

from spotlab_pipelines.defs.resources import RegistryParam, SettingsParam

AGREES = "mlflow_agrees"
ASSET = "model_scorecards"


@dg.asset_check(
    asset=ASSET,
    name=AGREES,
    description="MLflow's versions, roles and champion alias are those of model_registry, which alone is served.",
)
def mlflow_agrees(settings: SettingsParam, model_registry: RegistryParam) -> dg.AssetCheckResult:
    """Warn of every alias, tag or version in MLflow that differs from `model_registry`."""
    from spotlab_pipelines.inference.mlflow_differences import mlflow_differences

    return dg.AssetCheckResult(**_result(mlflow_differences(settings, model_registry)))


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Report an alias, tag or version in MLflow that differs from model_registry; serving ignores it.",
)
def mlflow_differences_reported(
    context: dg.SensorEvaluationContext, settings: SettingsParam, model_registry: RegistryParam
) -> dg.SensorResult | dg.SkipReason:
    """Put the check's result on record when it has changed since the last look."""
    from spotlab_pipelines.inference.mlflow_differences import mlflow_differences

    found = mlflow_differences(settings, model_registry)
    # The differences themselves may be longer than a cursor should be.
    seen = hashlib.sha256("\n".join(found).encode()).hexdigest()
    said = " ".join(found) or "MLflow shows what is served."
    if seen == context.cursor:
        return dg.SkipReason(said)
    evaluation = dg.AssetCheckEvaluation(asset_key=dg.AssetKey(ASSET), check_name=AGREES, **_result(found))
    return dg.SensorResult(asset_events=[evaluation], cursor=seen, skip_reason=said)


def _result(found: list[str]) -> dict[str, Any]:
    from spotlab_pipelines.inference.mlflow_differences import REMEDY

    return {
        "passed": not found,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"{len(found)} differences. {REMEDY}" if found else "MLflow shows what is served.",
        "metadata": {"differences": dg.MetadataValue.json(found)},
    }
