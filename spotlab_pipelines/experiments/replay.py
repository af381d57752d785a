"""Recomputing what the log says, from the archive and the pinned models alone: is it the same, bit for bit?

Nothing of today enters: the market and the fleet come from the evaluation's snapshot, the versions with their hashes
and the rules from what its tables recorded. The functions are those that the pipeline runs. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pandas as pd

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import IntegrityError, ModelTampered, ModelUnknown, NotFound
from spotlab_pipelines.experiments.frames import PROBABILITIES
from spotlab_pipelines.experiments.queries import logged_row, logged_rows
from spotlab_pipelines.features.snapshot import recompute
from spotlab_pipelines.inference.batch import predict
from spotlab_pipelines.placement.decide import scored_versions
from spotlab_pipelines.placement.linear import Evaluated, Rules, decide_linear
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion
    from spotlab_pipelines.market.archive import Archive

IDENTICAL, DIFFERS, IMPOSSIBLE = "identical", "differs", "cannot be replayed"
ROW = ["instance_id", "model_version", "horizon_h"]
"""What tells the rows of one evaluation apart."""
TEXTS = ("region", "model_role", "pipeline_mode", "decision", "reason", "from_pool", "to_pool", "snapshot_id")
FLAGS = ("acting", "shadow")
NUMBERS = (
    *("p_current", "p_target", "gain", "candidates_considered"),
    *("from_price_usd_per_hour", "to_price_usd_per_hour", "from_cost_usd_per_hour", "to_cost_usd_per_hour"),
)
COMPARED = (*NUMBERS, "features", *TEXTS, *FLAGS)


@dataclass(frozen=True)
class Difference:
    """A field that does not come out as it was logged; `row` is the whole row where one of the two has none."""

    field: str
    logged: Any
    recomputed: Any


@dataclass(frozen=True)
class Replay:
    """What became of one row: `verdict` is identical, differs (see `differences`) or cannot be replayed (see `why`)."""

    experiment_id: str
    account_id: str
    window_start: datetime
    instance_id: str
    model_version: str
    horizon_h: int
    verdict: str
    why: str | None = None
    differences: tuple[Difference, ...] = ()


def replay_experiment(
    engine: sa.Engine, archive: Archive, registry: ModelRegistry, experiment_id: UUID
) -> list[Replay]:
    """Recompute one row of the log.

    Raises:
        NotFound: the log has no such row.
        StoreUnavailable: Postgres or the archive does not answer.
    """
    return _replay(archive, registry, logged_row(engine, experiment_id), whole=False)


def replay_evaluation(engine: sa.Engine, archive: Archive, registry: ModelRegistry, key: EvaluationKey) -> list[Replay]:
    """Recompute every row of an evaluation; rows that should be in the log and are not count as differing.

    Raises:
        NotFound: the evaluation is not in the log.
        StoreUnavailable: Postgres or the archive does not answer.
    """
    return _replay(archive, registry, logged_rows(engine, key), whole=True)


def _replay(archive: Archive, registry: ModelRegistry, logged: pd.DataFrame, *, whole: bool) -> list[Replay]:
    key = EvaluationKey(logged["account_id"].iloc[0], logged["window_start"].iloc[0].to_pydatetime())
    try:
        recomputed, unopened = _recompute(archive, registry, key, sorted(logged["model_version"].unique()))
    except (NotFound, IntegrityError) as error:
        return [_told(row, IMPOSSIBLE, why=str(error)) for row in logged.to_dict("records")]
    both = logged.merge(recomputed, on=ROW, how="outer" if whole else "left", suffixes=("", "_again"), indicator=True)
    both = both.assign(account_id=key.account_id, window_start=key.window_start)
    return _compare(both, unopened)


def _recompute(
    archive: Archive, registry: ModelRegistry, key: EvaluationKey, versions: list[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The evaluation's rows of these versions, a row a horizon, and why a version among them could not be opened."""
    decided, scored_by = (archive.read_metadata(table, key) for table in ("decisions", "predictions"))
    frozen = recompute(archive, decided["snapshot_id"])
    recorded = {entry["version"]: entry for entry in scored_by["versions"]}
    # A version that failed predicted nothing then, whatever it would say now.
    again = [version for version in versions if "failed" not in recorded.get(version, {})]
    predictions, unopened = [predict(registry, [], frozen.tables.by_spec).frame], {}
    for version in again:
        try:
            # Of no role: there is no champion among them, one by one.
            pinned = replace(_pinned(registry, version, recorded), role="none")
            predicted = predict(registry, [pinned], frozen.tables.by_spec)
            predictions.append(predicted.frame)
            unopened |= predicted.failed
        except (ModelTampered, ModelUnknown) as error:
            unopened[version] = str(error)
    if set(versions) == set(unopened):
        return pd.DataFrame(columns=[*ROW, *COMPARED]), unopened
    evaluated = Evaluated(
        instances=frozen.instances,
        pools=frozen.tables.pools,
        features=frozen.tables.features,
        exclusions=frozen.tables.exclusions,
        predictions=pd.concat(predictions, ignore_index=True),
        fits=frozen.tables.fits,
        # All of them: which version acts for an instance depends on who else scored.
        scored=scored_versions(scored_by),
        more_features=frozen.tables.by_spec,
    )
    rules = Rules(**{**decided["rules"], "horizons_h": tuple(decided["rules"]["horizons_h"])})
    decisions = decide_linear(evaluated, rules).assign(snapshot_id=decided["snapshot_id"])
    return _by_horizon(decisions[decisions["model_version"].isin(set(versions) - set(unopened))]), unopened


def _pinned(registry: ModelRegistry, version: str, recorded: dict[str, dict[str, str]]) -> ServingVersion:
    """The version with the hash that the evaluation recorded, whatever its status is by now."""
    row = registry.find(version)
    if version not in recorded:
        raise ModelUnknown(f"The predictions of the evaluation do not name {version}.")
    pinned = replace(row, artifact_sha256=recorded[version]["sha256"])
    # Asked here, because a model that this process has opened before is still in its memory.
    if not registry.is_intact(pinned):
        raise ModelTampered(
            f"The artifact of {version} is gone, or not the one of sha256 {pinned.artifact_sha256} that predicted.",
            remedy="Restore its files from a backup.",
        )
    return pinned


def _by_horizon(decisions: pd.DataFrame) -> pd.DataFrame:
    """Wide decisions as the log has them: a row a horizon."""
    shared = decisions.drop(columns=[*PROBABILITIES, "account_id"])
    return pd.concat(
        [
            shared.assign(
                horizon_h=horizon,
                p_current=decisions[f"p_current_{horizon}h"],
                p_target=decisions[f"p_target_{horizon}h"],
            )
            for horizon in HORIZONS_H
        ],
        ignore_index=True,
    )


def _compare(both: pd.DataFrame, unopened: dict[str, str]) -> list[Replay]:
    """`both` has each logged field beside its recomputed one, called `<field>_again`."""
    there = (both["_merge"] == "both").to_numpy()
    differing = {field: there & ~_same(field, both[field], both[f"{field}_again"]) for field in COMPARED}
    wrong = ~there | np.logical_or.reduce(list(differing.values()))
    told = []
    for number, row in enumerate(both.to_dict("records")):
        if row["model_version"] in unopened:
            told.append(_told(row, IMPOSSIBLE, why=unopened[row["model_version"]]))
        elif not wrong[number]:
            told.append(_told(row, IDENTICAL))
        elif not there[number]:
            is_logged = row["_merge"] == "left_only"
            told.append(_told(row, DIFFERS, (Difference("row", is_logged, not is_logged),)))
        else:
            fields = [field for field in COMPARED if differing[field][number]]
            differences = (Difference(field, _plain(row[field]), _plain(row[f"{field}_again"])) for field in fields)
            told.append(_told(row, DIFFERS, tuple(differences)))
    return told


def _same(field: str, logged: pd.Series, again: pd.Series) -> np.ndarray:
    """(n,) whether two columns hold the same: numbers by their bits, unknown beside unknown."""
    unknown = (logged.isna() & again.isna()).to_numpy()
    if field in NUMBERS:
        bits, bits_again = (each.to_numpy(dtype="float64", na_value=np.nan).view(np.int64) for each in (logged, again))
        return unknown | (bits == bits_again)
    # JSON keeps every digit of a feature but not the sign of a zero, so == is all that can be asked.
    return unknown | (logged.to_numpy(dtype=object) == again.to_numpy(dtype=object))


def _told(
    row: dict[Any, Any], verdict: str, differences: tuple[Difference, ...] = (), why: str | None = None
) -> Replay:
    named = {name: row[name] for name in ("account_id", "window_start", *ROW)}
    return Replay(
        experiment_id="" if row["id"] != row["id"] else str(row["id"]), verdict=verdict, why=why,
        differences=differences, **named,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """A value as a person reads it: None for what is unknown, Python's own numbers."""
    if value is None or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value
