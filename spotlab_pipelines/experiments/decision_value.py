"""What a version's decisions were worth in money, by what really happened. Pure; the rows are the caller's choice.

Between two evaluations of an instance the version's wish stands: stay, or be elsewhere. A row is weighed over the hours
for which the instance really ran from its window to the next one, so that hours and interruptions count once however
often an account is evaluated; an hourly difference is never added up without its hours.

Assumptions, because only the pool where an instance ran can be known:

- A version that was not followed is taken to have its wish fulfilled at the window's start, at the price of then; a
  move itself costs nothing.
- A Spot pool where the instance did not run is interrupted as often as the judged rows were on average, whatever the
  version claims of it; on-demand is never interrupted.
- What is not known stays NaN and is left out of sums and means, and counted: a price that nobody logged, or, for the
  oracle, an instance of which no version named another pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotEnoughData

MOVES = ("SWITCH", "FALLBACK_ON_DEMAND")
COLUMNS = (
    *("account_id", "instance_id", "model_version", "window_start", "decision", "from_pool", "to_pool"),
    *("from_price_usd_per_hour", "to_price_usd_per_hour", "interruption_cost_usd", "interrupted_at", "watched_until"),
)
_HOUR = pd.Timedelta(hours=1)
_INSTANCE = ["account_id", "instance_id"]
_WINDOW = [*_INSTANCE, "window_start"]


@dataclass(frozen=True)
class DecisionValue:
    """A version's decisions in figures; nan where one does not exist. Money in USD.

    Attributes:
        decisions: rows that were weighed; SKIP decides nothing and is none.
        instance_days: days for which the instances really ran under these decisions.
        switches: how often the version's wish for an instance changed to another pool.
        churn: `switches` per instance-day.
        savings_usd: price of the pool it ran in minus price of the wished one, times the hours held; below 0 the
            wishes would have cost more. Interruptions are not in it.
        avoided: interruptions of instances that the version wished elsewhere.
        cost_per_avoided_usd: what the wishes cost in price (−savings) for each interruption avoided.
        regret_usd: what was decided minus the best in hindsight, in all; the best is the cheapest among staying and
            the pools that any version named.
        regret_per_instance_day_usd: the same over the instance-days of the rows it is known for.
        regret_known: the share of decisions for which it is known.
    """

    decisions: int
    instance_days: float
    switches: int
    churn: float
    savings_usd: float
    avoided: int
    cost_per_avoided_usd: float
    regret_usd: float
    regret_per_instance_day_usd: float
    regret_known: float

    def metrics(self) -> dict[str, float]:
        """The figures that exist, by name."""
        return {name: float(value) for name, value in vars(self).items() if np.isfinite(value)}


def decision_values(rows: pd.DataFrame, *, horizon_h: float) -> dict[str, DecisionValue]:
    """Weigh the decisions of each version in `rows`.

    Args:
        rows: `COLUMNS`, one row per (account, window, instance, version); all versions together, because the pools that
            one names are alternatives for all. Times are UTC; `interrupted_at` NaT if it was not interrupted,
            `watched_until` until when that is known.
        horizon_h: no decision is held to account for longer, should the next evaluation be late.

    Raises:
        NotEnoughData: there is no row that decides anything.
        InvalidInput: a row is there twice.
    """
    weighed = weighed_rows(rows, horizon_h=horizon_h)
    return {str(version): _value(of_one) for version, of_one in weighed.groupby("model_version", sort=True)}


def weighed_rows(rows: pd.DataFrame, *, horizon_h: float) -> pd.DataFrame:
    """Each decision with `held_h`, `interrupted`, `moves`, `changed`, `saved_usd` and `regret_usd`; see the module."""
    rows = rows.loc[rows["decision"] != "SKIP", list(COLUMNS)]
    rows = rows.sort_values([*_INSTANCE, "model_version", "window_start"], kind="stable", ignore_index=True)
    if rows.empty:
        raise NotEnoughData("Expected decisions to weigh, got none.")
    if rows.duplicated([*_WINDOW, "model_version"]).any():
        raise InvalidInput("Expected one row per account, window, instance and version; some are there twice.")
    moves = rows["decision"].isin(MOVES).to_numpy()
    held_h, interrupted = _held(rows, horizon_h)
    rate = _rate(rows, held_h, interrupted)
    cost = rows["interruption_cost_usd"].to_numpy(dtype=float)
    price, to_price = (
        rows[name].to_numpy(dtype=float) for name in ("from_price_usd_per_hour", "to_price_usd_per_hour")
    )
    stay = price * held_h + interrupted * cost
    unseen = np.where((rows["decision"] == "SWITCH").to_numpy(), rate * held_h * cost, 0.0)
    elsewhere = np.where(moves, to_price * held_h + unseen, np.nan)
    decided = np.where(moves, elsewhere, stay)
    named = pd.Series(elsewhere).groupby([rows[name] for name in _WINDOW], sort=False).transform("min").to_numpy()
    return rows.assign(
        held_h=held_h,
        interrupted=interrupted,
        moves=moves,
        changed=_changed(rows, moves),
        saved_usd=np.where(moves, (price - to_price) * held_h, 0.0),
        regret_usd=decided - np.minimum(stay, named),
    )


def _held(rows: pd.DataFrame, horizon_h: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) hours from each window until the next one of the same instance and version, the horizon's end, or when the
    instance ended or was last seen; and whether it was interrupted by then.
    """
    start = rows["window_start"]
    following = start.groupby([rows[name] for name in (*_INSTANCE, "model_version")], sort=False).shift(-1)
    until = pd.concat([following, start + horizon_h * _HOUR], axis=1).min(axis=1)
    ended = rows["interrupted_at"].fillna(rows["watched_until"])
    interrupted = (rows["interrupted_at"] > start) & (rows["interrupted_at"] <= until)
    held = pd.concat([until, ended], axis=1).min(axis=1, skipna=False) - start
    return (held.dt.total_seconds() / 3600).clip(lower=0.0).to_numpy(dtype=float), interrupted.to_numpy(dtype=float)


def _rate(rows: pd.DataFrame, held_h: np.ndarray, interrupted: np.ndarray) -> float:
    """Interruptions per instance-hour, each hour and interruption counted once whatever the number of versions."""
    once = ~rows.duplicated(_WINDOW).to_numpy()
    hours = np.nansum(held_h[once])
    return float(interrupted[once].sum() / hours) if hours > 0 else float("nan")


def _changed(rows: pd.DataFrame, moves: np.ndarray) -> np.ndarray:
    """Whether the wish differs from the one before, or, the first of an instance, from where it ran."""
    fallback = (rows["decision"] == "FALLBACK_ON_DEMAND").to_numpy()
    here = rows["from_pool"].astype(object)
    wished = here.where(~moves, rows["to_pool"].astype(object).where(~fallback, "on-demand"))
    before = wished.groupby([rows[name] for name in (*_INSTANCE, "model_version")], sort=False).shift(1)
    return (wished != before.fillna(here)).to_numpy()


def _value(rows: pd.DataFrame) -> DecisionValue:
    days, avoided = rows["held_h"].sum() / 24, int((rows["moves"] & (rows["interrupted"] == 1)).sum())
    known = rows["saved_usd"].notna()
    saved = float(rows["saved_usd"].sum()) if known.any() else float("nan")
    switches = int(rows["changed"].sum())
    regret = rows[rows["regret_usd"].notna()]
    regret_days = regret["held_h"].sum() / 24
    total = float(regret["regret_usd"].sum()) if len(regret) else float("nan")
    return DecisionValue(
        decisions=len(rows),
        instance_days=float(days),
        switches=switches,
        churn=_ratio(switches, days),
        savings_usd=saved,
        avoided=avoided,
        cost_per_avoided_usd=_ratio(-saved, avoided),
        regret_usd=total,
        regret_per_instance_day_usd=_ratio(total, regret_days),
        regret_known=len(regret) / len(rows),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
