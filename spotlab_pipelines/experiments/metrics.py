"""What one evaluation amounts to in numbers, per version, computed from the committed rows of the log alone.

The same rows give the same bits: aggregates of floats are ordered, since their sum depends on the order. Sending the
numbers to MLflow is `tracking.py`'s; judging them against outcomes is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.tables import Account, Evaluation, ModelVersion
from spotlab_pipelines.errors import NotFound

PER_VERSION = sa.text(
    """
    select model_version, min(model_role) as model_role,
           count(*) as "instances/decided",
           avg((decision = 'STAY')::int) as "decisions/share_stay",
           avg((decision = 'SWITCH')::int) as "decisions/share_switch",
           avg((decision = 'FALLBACK_ON_DEMAND')::int) as "decisions/share_fallback",
           avg((decision = 'SKIP')::int) as "decisions/share_skip",
           avg(from_cost_usd_per_hour order by instance_id) as "cost/now_usd_per_hour_mean",
           avg(coalesce(to_cost_usd_per_hour, from_cost_usd_per_hour) order by instance_id)
             as "cost/then_usd_per_hour_mean",
           avg(gain order by instance_id) as "cost/gain_mean",
           avg(candidates_considered) as "pools/candidates_mean"
    from experiment_logs
    where account_id = :account_id and window_start = :window_start and horizon_h = 6
    group by model_version
    """
)
IS_PAST = sa.text(
    """
    select bool_or(is_past_window(e.details, e.window_start, l.scored_at))
    from evaluations e join experiment_logs l on l.account_id = e.account_id and l.window_start = e.window_start
    where e.account_id = :account_id and e.window_start = :window_start
    """
)
PER_HORIZON = sa.text(
    """
    select model_version, horizon_h,
           avg(p_current order by instance_id) as current_mean, max(p_current) as current_max,
           avg(p_target order by instance_id) as target_mean, max(p_target) as target_max
    from experiment_logs
    where account_id = :account_id and window_start = :window_start
    group by model_version, horizon_h
    """
)
TIMINGS = sa.text(
    """
    select t.key as step, t.value::float as ms
    from (select timings_ms from experiment_logs
          where account_id = :account_id and window_start = :window_start limit 1) as one,
         jsonb_each_text(one.timings_ms) as t
    """
)


@dataclass(frozen=True)
class VersionMetrics:
    """One version's part of an evaluation, and how its run in MLflow is tagged."""

    version: str
    family: str
    role: str
    environment: str
    model_id: str | None
    metrics: dict[str, float]
    tags: dict[str, str]


def evaluation_metrics(connection: sa.Connection, key: EvaluationKey) -> tuple[int, list[VersionMetrics]]:
    """The step of a logged evaluation and each version's metrics: probabilities as fractions, costs in USD per hour.

    A mean over nothing (a version that knew no probability of any target, say) is left out.

    Raises:
        NotFound: the evaluation is not logged.
    """
    evaluation = connection.execute(
        sa.select(Evaluation.step, Evaluation.counts, Evaluation.details, Account.environment)
        .join(Account, Account.account_id == Evaluation.account_id)
        .where(
            Evaluation.account_id == key.account_id,
            Evaluation.window_start == key.window_start,
            Evaluation.state == "logged",
        )
    ).one_or_none()
    if evaluation is None:
        raise NotFound(f"Evaluation {key} is not in the log.", remedy="Log it first; metrics are read from the log.")
    named = {"account_id": key.account_id, "window_start": key.window_start}
    rows: dict[str, dict[str, Any]] = {
        row["model_version"]: dict(row) for row in connection.execute(PER_VERSION, named).mappings()
    }
    for row in connection.execute(PER_HORIZON, named):
        rows[row.model_version] |= {
            f"probability/{name}_{row.horizon_h}h": getattr(row, name)
            for name in ("current_mean", "current_max", "target_mean", "target_max")
        }
    shared: dict[str, float] = {
        # Past ones, late ones included: what they say promotes nobody.
        **({"window/retrospective": 1.0} if connection.scalar(IS_PAST, named) else {}),
        "pools/considered": evaluation.counts["pools"],
        "pools/excluded": sum(evaluation.counts["excluded"].values()),
        **{f"duration_ms/{row.step}": row.ms for row in connection.execute(TIMINGS, named)},
    }
    registered = connection.execute(
        sa.select(ModelVersion.version, ModelVersion.family, ModelVersion.mlflow_model_id)
        .where(ModelVersion.version.in_(rows))
        .order_by(ModelVersion.version)
    )
    return evaluation.step, [
        VersionMetrics(
            version=each.version,
            family=each.family,
            role=rows[each.version]["model_role"],
            environment=evaluation.environment,
            model_id=each.mlflow_model_id,
            metrics=_numbers(rows[each.version])
            | _numbers(shared)
            | _drift(evaluation.details, each.version)
            | {"scoring/failed": float(each.version in evaluation.details.get("failed_versions", {}))},
            tags=_tags(evaluation.details, each.version),
        )
        for each in registered
    ]


def _tags(details: dict[str, Any], version: str) -> dict[str, str]:
    compared = (details.get("drift") or {}).get(version) is not None
    tags = {"spotlab.drift": "compared" if compared else "no reference"}
    failed = details.get("failed_versions", {}).get(version)
    if failed is not None:
        # It stays on the run: in which windows it failed, the metric scoring/failed says.
        tags["spotlab.failed"] = failed
    # It stays on the run: among its windows are some for which a later scrape stood in.
    return tags | ({"spotlab.first_known": ", ".join(details["first_known"])} if details.get("first_known") else {})


def _drift(details: dict[str, Any], version: str) -> dict[str, float]:
    """PSI and KS by feature; nothing for a version that has no reference: that is not "no drift"."""
    found = (details.get("drift") or {}).get(version) or {}
    by_feature = {f"drift/{name}_{kind}": each[kind] for name, each in found.items() for kind in ("psi", "ks")}
    return by_feature | ({"drift/psi_max": max(each["psi"] for each in found.values())} if found else {})


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if "/" in name and value is not None}
