"""The asset of the inference room: who predicts what, and whether what they see is still what they were fitted on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from spotlab_pipelines.defs.evaluation import for_each_account, translated
from spotlab_pipelines.defs.metadata import markdown_table
from spotlab_pipelines.defs.partitions import account_asset
from spotlab_pipelines.defs.resources import ArchiveParam, DatabaseParam, RegistryParam, SettingsParam

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.features.drift import Drift

DRIFT = "feature_drift"
SCORED = "versions_scored"
TOLD, SHOWN = 3, 100
"""Drifted features and failures that a check's line names, and that its metadata has."""


@account_asset(
    deps=["pool_features"],
    group_name="inference",
    kinds={"mlflow", "scikitlearn"},
    owners=["team:ml-engineering"],
    check_specs=[
        dg.AssetCheckSpec(
            DRIFT,
            asset="interruption_predictions",
            description="Every account's latest features against those that each version was fitted on. It warns, and"
            " never blocks.",
        ),
        dg.AssetCheckSpec(
            SCORED,
            asset="interruption_predictions",
            description="Every version that should have predicted in each account's latest evaluation did. A failed"
            " challenger harms nothing else.",
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
        checks=lambda reports: version_checks(reports, database, psi_warn=settings.drift_psi_warn),
    )


def version_checks(reports: Mapping[str, Any], database: "sa.Engine", *, psi_warn: float) -> list[dg.AssetCheckResult]:
    """Both checks of all accounts, of each by its latest evaluation: this run's report of it, if none is newer.

    Dagster shows the latest result of a check alone, and each run may be about another account, or an old window.
    """
    from spotlab_pipelines.experiments.queries import latest_notes

    with translated():
        latest = latest_notes(database)
    latest |= {
        account: {"drift": each.drift, "failed_versions": each.failed}
        for account, each in reports.items()
        if account not in latest or each.window_start >= latest[account]["window_start"]
    }
    return [
        drift_check({account: each["drift"] for account, each in latest.items()}, psi_warn=psi_warn),
        scored_check({account: each["failed_versions"] for account, each in latest.items()}),
    ]


def scored_check(failed: Mapping[str, Mapping[str, str]]) -> dg.AssetCheckResult:
    """Whether any version failed for any account; that of a champion fails its evaluation, and is not here.

    Args:
        failed: by account and version the reason; empty for an account where none failed.
    """
    told = [f"{account}, {version}: {why}" for account, found in failed.items() for version, why in found.items()]
    return dg.AssetCheckResult(
        check_name=SCORED,
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"A version failed in {sum(map(bool, failed.values()))} of {len(failed)} accounts{_some(told)}",
        metadata={"failed": dg.MetadataValue.json(told[:SHOWN])},
    )


def drift_check(drift: "Mapping[str, Mapping[str, Drift | None]]", *, psi_warn: float) -> dg.AssetCheckResult:
    """Whether any feature of any account has drifted from a version's training by more than chance and `psi_warn`.

    An account counts as compared if any of its features could have warned; those of too few pools are named.

    Args:
        drift: by account and version; None for a version that has no reference.
    """
    import pandas as pd

    from spotlab_pipelines.features.drift import can_tell, has_drifted

    of_versions = [(account, version, found) for account, each in drift.items() for version, found in each.items()]
    rows: list[dict[str, Any]] = [
        {"account": account, "version": version, "feature": name, **figures}
        for account, version, found in of_versions
        for name, figures in (found or {}).items()
    ]
    compared = [row for row in rows if can_tell(row, psi_warn=psi_warn)]
    too_few = [row for row in rows if not can_tell(row, psi_warn=psi_warn)]
    drifted = pd.DataFrame(
        [row for row in compared if has_drifted(row, psi_warn=psi_warn)],
        columns=["account", "version", "feature", "psi", "psi_by_chance", "ks", "ks_by_chance", "rows_effective"],
    )
    told = [
        f"{row['account']}, {row['version']}: {row['feature']} has PSI {row['psi']:.2f} ({row['psi_by_chance']:.2f} by"
        f" chance), KS {row['ks']:.2f}"
        for row in drifted.to_dict("records")
    ]
    unseen = f" In {_accounts(too_few)} of {len(drift)} accounts some features are of too few pools to tell."
    return dg.AssetCheckResult(
        check_name=DRIFT,
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Features have drifted in {drifted['account'].nunique()} of {_accounts(compared)} accounts that"
        f" could be compared{_some(told)}{unseen if too_few else ''}",
        metadata={
            "drifted": dg.MetadataValue.md(markdown_table(drifted.head(SHOWN))),
            "psi_warn": psi_warn,
            "too few to tell": dg.MetadataValue.json(
                [f"{row['account']}, {row['version']}: {row['feature']}" for row in too_few[:SHOWN]]
            ),
            "no reference": dg.MetadataValue.json(sorted({each for _, each, found in of_versions if found is None})),
        },
    )


def _accounts(rows: list[dict[str, Any]]) -> int:
    return len({row["account"] for row in rows})


def _some(told: list[str]) -> str:
    """The first few of a list, as the end of a sentence."""
    if not told:
        return "."
    first = [each.removesuffix(".") for each in told[:TOLD]]
    return f": {'; '.join(first)}{'; ...' if len(told) > TOLD else '.'}"
