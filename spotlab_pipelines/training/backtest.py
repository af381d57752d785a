"""How a version would have done on rows it was not fitted on, beside what needs no model. Pure.

All forecasters are judged on the same rows. The figures are those of experiments/scorecard.py.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.experiments.scorecard import scorecard
from spotlab_pipelines.experiments.verdict import gain_interval
from spotlab_pipelines.features.engine import historic_interrupt_rate
from spotlab_pipelines.features.history import PoolHistory
from spotlab_pipelines.inference.calibration import apply_curve
from spotlab_pipelines.inference.estimators import AdvisorRateModel
from spotlab_pipelines.market.fallback import BY_OS
from spotlab_pipelines.market.frames import POOL_KEY, joined
from spotlab_pipelines.training.fitting import MINIMUM_EVENTS, Examples, recalibration
from spotlab_pipelines.training.folds import DAY_US, HOUR_US, Places

CONSTANT, TRAILING, ADVISOR = "constant", "trailing 24 h failure share", "advisor-rate"
ONCE, DAILY = "recalibrated once", "recalibrated daily"
FIGURES = ("n", "events", "base_rate", "roc_auc", "pr_auc", "log_loss", "brier", "brier_skill", "ece")


def recalibrated_forecasts(
    version: str, said: np.ndarray, examples: Examples, *, since_us: int, days: float
) -> dict[str, np.ndarray]:
    """What a version would have said after `days` of recalibration: once, or anew every day with all that was known.

    Args:
        said: (n, n_horizons) what the version says of the examples, none of which is before `since_us`.

    Returns:
        By name (n, n_horizons); NaN in the prefix, which nothing is judged on.
    """
    begin = since_us + int(days * DAY_US)
    judged = examples.places.at >= begin
    once, daily = np.full(said.shape, np.nan), np.full(said.shape, np.nan)
    once[judged] = _through(said, examples, judged, begin)
    day = (examples.places.at - begin) // DAY_US
    for number in np.unique(day[judged]):
        rows = judged & (day == number)
        daily[rows] = _through(said, examples, rows, begin + int(number) * DAY_US)
    return {f"{version}, {ONCE}": once, f"{version}, {DAILY}": daily}


def trailing_share(observations: pd.DataFrame, places: Places, pools: pd.DataFrame, *, hours: int = 24) -> np.ndarray:
    """The plain share of a pool's observations in (t − hours, t] that failed, (n,); of all of them where there is none.

    Args:
        places: where and when; pools: the pool key columns of the same rows.
    """
    history = PoolHistory.from_observations(observations)
    pool = history.find(pools)
    end = history.timeline.end(pool, places.at)
    start = history.timeline.end(pool, places.at - hours * HOUR_US)
    failures, count = history.failures[end] - history.failures[start], end - start
    usual = failures.sum() / max(count.sum(), 1)
    return np.where(count > 0, failures / np.maximum(count, 1), usual)


def advisor_forecast(
    advisor: pd.DataFrame, pools: pd.DataFrame, *, horizons_h: tuple[int, ...], open_bucket_rate: float
) -> np.ndarray | None:
    """What the Advisor's rates say of pools, (n, n_horizons); None where it does not list all of their types.

    Args:
        advisor: Advisor rows. pools: pool key columns.
    """
    system = pd.Series(np.where(pools["product"] == "Windows", "Windows", "Linux"), dtype="str", index=pools.index)
    row = joined(advisor, BY_OS).get_indexer(joined(pools.assign(os=system), BY_OS))
    if (row < 0).any():
        return None
    lowest, highest = (advisor[f"interrupt_rate_{end}"].to_numpy(dtype=float)[row] for end in ("min", "max"))
    rate = historic_interrupt_rate(lowest, highest, open_bucket_rate)
    return AdvisorRateModel(horizons_h=list(horizons_h)).predict(rate[:, None])


def judge(
    forecasts: dict[str, np.ndarray], examples: Examples, block: np.ndarray, *, minimum_events: int = MINIMUM_EVENTS
) -> pd.DataFrame:
    """The scorecards of several forecasters on the rows of which all have said something and the outcome is known.

    Args:
        forecasts: by name (n, n_horizons). One named CONSTANT is what the others' `skill_over_constant` is against.
        block: (n,) the (region, day) of each example, as verdict.py wants them.

    Returns:
        One row a horizon and forecaster: horizon_h, forecaster, FIGURES, skill_over_constant, and brier_gain with
        _low and _high: how much lower its Brier score is than the first forecaster's, with the 95 % interval. A
        horizon without enough of both outcomes is left out.

    Raises:
        NotEnoughData: at no horizon are there enough interruptions and survivals.
    """
    rows, few = [], []
    for column, horizon in enumerate(examples.horizons_h):
        known = judged_rows(forecasts, examples, column)
        outcome = examples.labels[known, column]
        events = int(outcome.sum())
        if min(events, len(outcome) - events) < minimum_events:
            few.append(f"{events} interruptions in {len(outcome)} rows at {horizon} h")
            continue
        cards = {name: scorecard(outcome, said[known, column]) for name, said in forecasts.items()}
        against = cards[CONSTANT].brier if CONSTANT in cards else float("nan")
        first = next(iter(forecasts.values()))[known, column]
        for name, card in cards.items():
            gain = gain_interval(outcome, first, forecasts[name][known, column], block[known])
            rows.append(
                {
                    "horizon_h": horizon,
                    "forecaster": name,
                    **{figure: getattr(card, figure) for figure in FIGURES},
                    "skill_over_constant": 1 - card.brier / against,
                    "brier_gain": gain.mean,
                    "brier_gain_low": gain.low,
                    "brier_gain_high": gain.high,
                }
            )
    if not rows:
        raise NotEnoughData(
            f"Expected at least {minimum_events} interruptions and as many survivals to judge by at some horizon;"
            f" there are {', '.join(few)}.",
            remedy="Take an earlier --since, fewer --recalibrate-days or a longer trace.",
        )
    return pd.DataFrame(rows)


def judged_rows(forecasts: dict[str, np.ndarray], examples: Examples, column: int) -> np.ndarray:
    """(n,) whether all forecasters have said something of an example, and its outcome at a horizon is known."""
    said = np.logical_and.reduce([~np.isnan(each[:, column]) for each in forecasts.values()])
    return said & ~np.isnan(examples.labels[:, column])


def pools_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The pool key columns."""
    return cast("pd.DataFrame", frame[list(POOL_KEY)])


def _through(said: np.ndarray, examples: Examples, rows: np.ndarray, known_us: int) -> np.ndarray:
    """What the version said of `rows`, through maps learned from the rows whose outcome was known at an instant."""
    before = np.flatnonzero(examples.places.at < known_us)
    curves = recalibration(said[before], examples.take(before).known_by(known_us))
    return np.column_stack([apply_curve(curve, said[rows, column]) for column, curve in enumerate(curves)])
