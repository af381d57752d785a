"""Evaluating windows of the past: the functions of the pipeline on the market and the fleet of that time.

What is logged is logged as ever, in Postgres and MLflow, and marked as retrospective. Steering, the versions that
serve, the account's interruption cost and the settings are those of now: the question is what today's versions would
have said. Every row is a shadow: nothing can act on a decision about the past.

Windows are taken oldest first, so that MLflow's steps, which count an account's evaluations, ascend with time. Points
carry their window's start as their time: where a past window is added after later ones, MLflow's charts over time show
it at its place, those over steps at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from spotlab_pipelines.accounts.past import fleet_at, sync_fleet_and_past
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, fail_evaluation, logged_accounts
from spotlab_pipelines.errors import InvalidInput, SpotLabError
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.tracking import track_evaluations
from spotlab_pipelines.features.snapshot import Seen, freeze, needed_specs
from spotlab_pipelines.features.tables import needs_observations
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.fitting import wanted_market
from spotlab_pipelines.market.history import cover_of
from spotlab_pipelines.market.layout import HISTORY_DAYS
from spotlab_pipelines.market.past import PastMarkets
from spotlab_pipelines.market.prices import collect_prices
from spotlab_pipelines.market.records import Cover, not_covered
from spotlab_pipelines.placement.decide import decide_evaluation

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

Progress = Callable[[str, str], None]
"""Called with what is under way and its state."""


@dataclass(frozen=True)
class PastEvaluation:
    """What became of one past window; `already_logged` ones were left as they are.

    Attributes:
        first_known: sources whose first scrape came later and stood in.
        backfilled: whether prices came from later scrapes.
    """

    account_id: str
    window_start: datetime
    already_logged: bool
    instances: int
    rows_written: int
    first_known: tuple[str, ...] = ()
    backfilled: bool = False


def evaluate_past(
    settings: Settings,
    engine: sa.Engine,
    archive: Archive,
    registry: ModelRegistry,
    account_ids: Sequence[str],
    instants: Iterable[datetime],
    *,
    first_known: bool = False,
    progress: Progress | None = None,
) -> list[PastEvaluation]:
    """Evaluate accounts as of past instants, from the archive alone, which is read once for all.

    An (account, instant) that is in the log already stays as it is. The first one that fails ends it all: what came
    before is logged, what failed is on record if it had begun.

    Args:
        first_known: whether the first scrape of the Advisor and the catalogue stands in for instants before it.

    Raises:
        InvalidInput: an instant lies in the future or has no time zone.
        NotFound: an account is not registered, or something was not known at an instant; nothing of it was written.
        Other errors: as the steps raise them.
    """
    now = datetime.now(UTC)
    windows = past_instants(instants, now=now)
    for account_id in account_ids:
        get_account(engine, account_id)
    markets = PastMarkets(archive, first_known=first_known)
    logged = {window: logged_accounts(engine, window, list(account_ids)) for window in windows}
    fleets = {
        EvaluationKey(account_id, window): past_fleet(engine, account_id, window)
        for account_id in account_ids
        for window in windows
        if account_id not in logged[window]
    }
    if fleets:
        everything = _wanted(settings, markets, fleets)
        markets.load(everything, start=windows[0] - settings.price_window, end=windows[-1])
    done = []
    for account_id in account_ids:
        for number, window in enumerate(windows, start=1):
            if progress is not None:
                progress(f"{account_id} as of {window.isoformat()}", f"{number} of {len(windows)}")
            key = EvaluationKey(account_id, window)
            if key in fleets:
                done.append(_evaluate(settings, engine, archive, registry, markets, key, fleets[key], now=now))
            else:
                done.append(PastEvaluation(account_id, window, already_logged=True, instances=0, rows_written=0))
        # Those of before as well: whoever was interrupted between the log and this would never be tracked.
        track_evaluations(settings, engine, [EvaluationKey(account_id, window) for window in windows])
    return done


def past_instants(instants: Iterable[datetime], *, now: datetime) -> list[datetime]:
    """The instants in order, each once.

    Raises:
        InvalidInput: there is none, one lies in the future, or one has no time zone.
    """
    asked = list(instants)
    if not asked or any(each.utcoffset() is None for each in asked):
        raise InvalidInput(f"Expected instants with a time zone; got {[each.isoformat() for each in asked]}.")
    windows = sorted({each.astimezone(UTC) for each in asked})
    if windows[-1] > now:
        raise InvalidInput(
            f"A past evaluation is as of an instant up to now, {now.isoformat()}; got {windows[-1].isoformat()}.",
            remedy="Give an earlier time.",
        )
    return windows


def past_fleet(engine: sa.Engine, account_id: str, at: datetime) -> pd.DataFrame:
    """The account's fleet at an instant, all of it in shadow: nothing acts on a decision about the past."""
    return fleet_at(engine, account_id, at).assign(shadow=True)


def bring_past(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    archive: Archive,
    account_ids: Sequence[str],
    instants: Iterable[datetime],
) -> None:
    """Ask AWS for what it still tells of the past: ended Spot instances, and the prices of what could replace them.

    The Advisor and the catalogue have no past at their source; only the archive knows it.

    Raises:
        AccessDenied, Throttled, SourceUnavailable, PageLoop, SourceMalformed: an account could not be read.
        NotFound: the catalogue was never scraped.
    """
    now = datetime.now(UTC)
    windows = past_instants(instants, now=now)
    markets = PastMarkets(archive, first_known=True)
    for account_id in account_ids:
        account = get_account(engine, account_id)
        sync_fleet_and_past(sessions, engine, account_id)
        fleets = {EvaluationKey(account_id, window): fleet_at(engine, account_id, window) for window in windows}
        wanted = _wanted(settings, markets, fleets)
        lacking = not_covered(
            archive, wanted, since=now - timedelta(seconds=settings.price_history_ttl_s), until=datetime.now(UTC)
        )
        if lacking:
            collect_prices(settings, sessions, engine, archive, account, lacking)


def _wanted(settings: Settings, markets: PastMarkets, fleets: dict[EvaluationKey, pd.DataFrame]) -> Cover:
    """The prices that all these fleets want together."""
    together = pd.concat(list(fleets.values()), ignore_index=True).drop_duplicates("instance_id", ignore_index=True)
    latest = max(key.window_start for key in fleets)
    return cover_of(wanted_market(together, markets.types_at(latest), settings.flexibility_factor))


def _evaluate(
    settings: Settings,
    engine: sa.Engine,
    archive: Archive,
    registry: ModelRegistry,
    markets: PastMarkets,
    key: EvaluationKey,
    fleet: pd.DataFrame,
    *,
    now: datetime,
) -> PastEvaluation:
    started, as_of = time.perf_counter(), key.window_start
    wanted = wanted_market(fleet, markets.types_at(as_of), settings.flexibility_factor)
    specs = needed_specs(engine, fleet["assigned_version"])
    observed_days = HISTORY_DAYS if needs_observations(specs) else 0
    past = markets.at(wanted, t=as_of, window=settings.price_window, observed_days=observed_days)
    marks = {"retrospective": True, "first_known": list(past.first_known), "backfilled": past.backfilled}
    seen = Seen(fleet, past.market, as_of=as_of, now=now, more_specs=specs, marks=marks)
    read_ms = round(1000 * (time.perf_counter() - started), 3)
    begin_evaluation(engine, key, None)
    step = "features"
    try:
        freeze(settings, archive, key, seen, read_ms=read_ms)
        step = "predictions"
        score_evaluation(registry, archive, key)
        step = "decisions"
        decide_evaluation(settings, engine, archive, key)
        step = "log"
        report = log_evaluation(engine, archive, key)
    except Exception as error:
        told = f"{type(error).__name__}: {error}" if isinstance(error, SpotLabError) else type(error).__name__
        fail_evaluation(engine, key, at_step=step, error=told)
        raise
    return PastEvaluation(
        account_id=key.account_id,
        window_start=as_of,
        already_logged=report.already_logged,
        instances=len(fleet),
        rows_written=report.written,
        first_known=past.first_known,
        backfilled=past.backfilled,
    )
