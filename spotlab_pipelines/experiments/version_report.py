"""Everything that is known of one version: its row, its way on record, its files, its fit, and what it was worth.

Each is told by whoever keeps it: Postgres, the artifact, MLflow. Here they are read together, and nothing is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from spotlab_pipelines.database.audit import LISTED_MAX, list_entries
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.errors import NotEnoughData, StoreUnavailable
from spotlab_pipelines.experiments.judging import HORIZON_H, Judged, latest_look
from spotlab_pipelines.experiments.scorecards import VersionScorecard, version_scorecards
from spotlab_pipelines.inference.fitted_on import source_of
from spotlab_pipelines.inference.mlflow_models import fit_params, pages_of
from spotlab_pipelines.inference.mlflow_store import mlflow_client, mlflow_errors
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.versions import ServingVersion

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.settings import Settings

ACT = ("at", "action", "actor", "outcome", "reason", "details")


@dataclass(frozen=True)
class VersionReport:
    """What is known of a version.

    Attributes:
        row: what the registry says of it.
        acts: what the audit log has of it, first to last: the columns ACT.
        intact: whether its files are there and are the registered ones.
        problem: why it is not opened; None if nothing is wrong.
        params: what its fit logged in MLflow; empty where MLflow does not have it.
        learned_from: in a word; None where its fit does not say.
        pages: addresses in MLflow's UI, by what they show.
        scorecard: at `HORIZON_H` over the last `scorecard_days`; None if it predicted nothing then.
        verdict: the latest against the present champion; None if there is none, and of the champion.
        lost: why MLflow's part is not known; None if it is.
    """

    row: ServingVersion
    acts: list[dict[str, Any]]
    intact: bool
    problem: str | None
    params: dict[str, str]
    learned_from: str | None
    pages: dict[str, str]
    scorecard: VersionScorecard | None
    verdict: Judged | None
    lost: str | None


def version_report(settings: Settings, engine: sa.Engine, version: str, *, now: datetime) -> VersionReport:
    """Read all that is known of a version, whatever its status.

    Raises:
        ModelUnknown: there is no such version.
        StoreUnavailable: Postgres does not answer. Without MLflow's database its part is left out.
    """
    registry = ModelRegistry(engine, settings)
    row = registry.find(version)
    champion = next((each.version for each in registry.versions() if each.role == "champion"), None)
    entries = list_entries(engine, subject=row.version, limit=LISTED_MAX)
    with database_errors(), engine.connect() as connection:
        verdict = None if champion in (None, row.version) else latest_look(connection, champion, row.version)
    fault = registry.fault(row)
    params, pages, lost = _in_mlflow(settings, row)
    return VersionReport(
        row=row,
        acts=[{name: entry[name] for name in ACT} for entry in reversed(entries)],
        intact=registry.is_intact(row),
        problem=None if fault is None else str(fault),
        params=params,
        learned_from=source_of(params),
        pages=pages,
        scorecard=_scorecard(engine, row.version, since=now - timedelta(days=settings.scorecard_days)),
        verdict=verdict,
        lost=lost,
    )


def _in_mlflow(settings: Settings, row: ServingVersion) -> tuple[dict[str, str], dict[str, str], str | None]:
    try:
        client = mlflow_client(settings)
        with mlflow_errors():
            return fit_params(client, [row]).get(row.version, {}), pages_of(client, settings, row), None
    except StoreUnavailable as error:
        # What Postgres and the files say is known without it.
        return {}, {}, str(error)


def _scorecard(engine: sa.Engine, version: str, *, since: datetime) -> VersionScorecard | None:
    try:
        [card] = version_scorecards(engine, version, horizon_h=HORIZON_H, since=since)
    except NotEnoughData:
        return None
    return card
