"""The first versions of a fresh laboratory: advisor-rate needs no history, logistic needs interruptions.

They are fitted as any other is; what is special is that the first ones are approved at once, where there were none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.features.specs import V1
from spotlab_pipelines.inference.fitted_on import NO_DATA
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.training.data import collect_accounts
from spotlab_pipelines.training.fitting import MINIMUM_EVENTS
from spotlab_pipelines.training.history import SAMPLED_EVERY, TRAINING_DAYS, Progress
from spotlab_pipelines.training.interruption_model import train_model

if TYPE_CHECKING:
    import redis as redis_client
    import sqlalchemy as sa

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.inference.registry import ModelRegistry, ServingVersion
    from spotlab_pipelines.settings import Settings

FAMILIES = ("advisor-rate", "logistic")
REGISTERED_BY = "spotlab models bootstrap"
EMPTY_PLACE = "The last champion was retired, as it could not be opened; bootstrap fills its place."
"""Goes on record where there was one: the very first needs no reason."""


@dataclass(frozen=True)
class FirstModel:
    """What became of one family: `version` is None if it was not fitted, and `note` says why or what was done."""

    family: str
    version: str | None
    role: str
    note: str
    metrics: dict[str, float] = field(default_factory=dict)


def register_first_models(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    redis: redis_client.Redis,
    registry: ModelRegistry,
    progress: Progress | None = None,
    *,
    training_days: float = TRAINING_DAYS,
    until: datetime | None = None,
) -> list[FirstModel]:
    """Register advisor-rate as champion and, if the accounts have seen interruptions, logistic as challenger.

    A family that already has an approved version with intact files stays as it is; one whose files are gone is fitted
    and registered anew and its old version retired. Of the roles, only an empty one is filled.

    Args:
        training_days: so many days of history up to `until`, which is now if not given.

    Raises:
        NotFound: no account is registered yet.
        MarketDataMissing, MarketDataStale: the Advisor or the catalogue was not scraped.
        SourceUnavailable, Throttled, SourceMalformed: an account's history could not be read.
    """
    say = progress or (lambda _: None)
    _retire_broken(registry)
    return [
        _advisor_rate(registry, say),
        _logistic(settings, engine, sessions, redis, registry, say, training_days, until),
    ]


def _advisor_rate(registry: ModelRegistry, say: Progress) -> FirstModel:
    from spotlab_pipelines.inference.estimators import HOURS_PER_MONTH, AdvisorRateModel

    family = FAMILIES[0]
    found = _approved(registry, family)
    if found is None:
        say("registering advisor-rate")
        example = pd.DataFrame({"historic_interrupt_rate": [0.025, 0.30]})
        found = registry.register(
            AdvisorRateModel(),
            family=family,
            feature_spec=V1.version,
            example=example,
            params={"hours_per_month": HOURS_PER_MONTH, "source": NO_DATA},
            metrics={},
            registered_by=REGISTERED_BY,
        )
        registry.approve(found.version)
        note = "Registered: the Advisor's monthly rate under a constant hazard."
    else:
        note = "Already registered."
    if not any(row.role == "champion" for row in registry.versions()):
        found = registry.promote(found.version, override=EMPTY_PLACE)
    return FirstModel(family, found.version, found.role, note)


def _logistic(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    redis: redis_client.Redis,
    registry: ModelRegistry,
    say: Progress,
    training_days: float,
    until: datetime | None,
) -> FirstModel:
    family = FAMILIES[1]
    found = _approved(registry, family)
    if found is not None:
        return FirstModel(family, found.version, found.role, "Already registered.", found.metrics)
    archive = Archive(settings.archive_location)
    try:
        data = collect_accounts(
            settings, engine, sessions, redis, archive,
            feature_spec=V1.version, until=until, days=training_days, progress=say,
        )  # fmt: skip
        more = {"sampled_every": str(SAMPLED_EVERY), "open_bucket_rate": settings.open_bucket_rate}
        trained = train_model(
            settings, registry, data,
            family=family, registered_by=REGISTERED_BY, progress=say, minimum_events=MINIMUM_EVENTS, more=more,
        )  # fmt: skip
    except NotEnoughData as error:
        return FirstModel(family, None, "none", f"Not fitted: {error}")
    found = registry.approve(trained.version, role="challenger")
    auc = found.metrics.get("auc_6h")
    judged = "" if auc is None else f"; AUC at 6 h {auc:.3f} on days and pools left out"
    note = f"Fitted on {len(data.examples)} examples{judged}."
    return FirstModel(family, found.version, found.role, note, dict(found.metrics))


def _retire_broken(registry: ModelRegistry) -> None:
    """Retire approved versions whose files are gone or altered: no role may be held by what cannot serve."""
    for row in registry.versions():
        if row.family in FAMILIES and row.status == "approved" and not registry.is_intact(row):
            registry.retire(row.version)


def _approved(registry: ModelRegistry, family: str) -> ServingVersion | None:
    """The family's newest approved version."""
    found = [row for row in registry.versions() if row.family == family and row.status == "approved"]
    return max(found, key=lambda row: row.number, default=None)
