"""The asset of the inference room: who predicts what, and whether what they see is still what they were fitted on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, RegistryParam, SettingsParam

if TYPE_CHECKING:
    from spotlab_pipelines.inference.scoring import ScoringReport

DRIFT = "feature_drift"
SCORED = "versions_scored"
TOLD = 3
"""Drifted features that the check's line names; its metadata has them all."""


@account_asset(
    deps=["pool_features"],
    group_name="inference",
    kinds={"mlflow", "scikitlearn"},
    owners=["team:ml-engineering"],
    check_specs=[
        dg.AssetCheckSpec(
            DRIFT,
            asset="interruption_predictions",
            description="Features against those that each version was fitted on. It warns and never blocks.",
        ),
        dg.AssetCheckSpec(
            SCORED,
            asset="interruption_predictions",
            description="Every version that should have predicted did. A failed challenger harms nothing else.",
        ),
    ],
)
def interruption_predictions(
    context: dg.AssetExecutionContext,
    settings: SettingsParam,
    database: DatabaseParam,
    model_registry: RegistryParam,
    archive: ArchiveParam,
) -> dg.MaterializeResult:
    """Interruption probabilities of every pool at every horizon: champion, assigned versions and challengers."""
    from spotlab_pipelines.inference.scoring import score_evaluation

    return for_each_account(
        context,
        database,
        lambda key: score_evaluation(model_registry, archive, key),
        checks=lambda reports: [drift_check(reports, psi_warn=settings.drift_psi_warn), scored_check(reports)],
    )


def scored_check(reports: Mapping[str, "ScoringReport"]) -> dg.AssetCheckResult:
    """Whether any version failed for any account; that of a champion fails its evaluation, and is not here."""
    failed = [
        f"{account}, {version}: {why}" for account, report in reports.items() for version, why in report.failed.items()
    ]
    asked = sum(len(report.versions) for report in reports.values())
    return dg.AssetCheckResult(
        check_name=SCORED,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(failed)} of {asked} times that a version was asked it failed.",
        metadata={"failed": dg.MetadataValue.json(failed)},
    )


def drift_check(reports: Mapping[str, "ScoringReport"], *, psi_warn: float) -> dg.AssetCheckResult:
    """Whether any feature of any account has drifted from a version's training by more than chance and `psi_warn`."""
    drifted, without = [], set()
    for account, report in reports.items():
        for version, drift in report.drift.items():
            if drift is None:
                without.add(version)
            drifted += [
                f"{account}, {version}: {name} has PSI {found['psi']:.3f} ({found['psi_by_chance']:.3f} by chance)"
                for name, found in (drift or {}).items()
                if found["psi"] - found["psi_by_chance"] > psi_warn
            ]
    compared = sum(bool(drift) for report in reports.values() for drift in report.drift.values())
    return dg.AssetCheckResult(
        check_name=DRIFT,
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(drifted)} drifted in {compared} comparisons of a version with its training: "
        f"{'; '.join(drifted[:TOLD]) or 'none'}{'; ...' if len(drifted) > TOLD else ''}.",
        metadata={
            "drifted": dg.MetadataValue.json(drifted),
            "no reference": dg.MetadataValue.json(sorted(without)),
            "drift": dg.MetadataValue.json({account: report.drift for account, report in reports.items()}),
        },
    )
