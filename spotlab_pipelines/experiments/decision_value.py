"""What a version's decisions were worth in money, by what really happened. Pure; the rows are the caller's choice.

Between two evaluations of an instance the version's wish stands: stay, or be elsewhere. A row is weighed over the hours
for which the instance really ran from its window to the next one, so that hours and interruptions count once however
often an account is evaluated; an hourly difference is never added up without its hours.

Savings are told apart by whether the wish was carried out. Where it was, they are realised: the hours are those of the
replacement, from its launch until it ended, at the prices of the decision. Where it was not, they are hypothetical: the
hours are those for which the instance ran where it was. They compare different things and are never added up.

Regret is against an oracle that knows what became of the instance and chooses between the two places whose outcome is
certain: where it ran, and on-demand as the same type. A version's figures come from its own rows alone: they do not
change with who else is registered.

Assumptions, because only the pool where an instance ran can be known:

- A version that was not followed is taken to have its wish fulfilled at the window's start, at the price of then; a
  move itself costs nothing.
- A Spot pool where the instance did not run is interrupted as often as the version's rows were on average, whatever it
  claims of it; on-demand is never interrupted.
- What is not known stays NaN and is left out of sums and means, and counted: a price that nobody logged, the hours of a
  replacement that was not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotEnoughData

MOVES = ("SWITCH", "FALLBACK_ON_DEMAND")
COLUMNS = (
    *("account_id", "instance_id", "model_version", "window_start", "decision", "from_pool", "to_pool"),
    *("from_price_usd_per_hour", "to_price_usd_per_hour", "on_demand_usd_per_hour"),
    *("interruption_cost_usd", "interrupted_at", "watched_until", "followed", "replacement_h"),
)
_HOUR = pd.Timedelta(hours=1)
_INSTANCE = ["account_id", "instance_id"]


@dataclass(frozen=True)
class DecisionValue:
    """A version's decisions in figures; nan where one does not exist. Money in USD.

    Attributes:
        decisions: rows that were weighed; SKIP decides nothing and is none.
        instance_days: days for which the instances really ran under these decisions.
        switches: how often the version's wish for an instance changed to another pool.
        churn: `switches` per instance-day.
        followed: wishes to move that were carried out, whoever acted on them.
        replacements_unknown: of `followed`, those whose replacement, or price, is not known; in no savings.
        replacement_days: days for which the replacements of the others really ran.
        savings_realised_usd: of these, price of the pool that was left minus price of the wished one, times the hours
            for which the replacement really ran; below 0 the moves cost more. Interruptions are not in it.
        savings_hypothetical_usd: of wishes that were not carried out, the same difference times the hours held where
            the instance was.
        avoided: interruptions of instances that the version wished elsewhere, as hypothetical.
        cost_per_avoided_usd: what those wishes would have cost in price (−hypothetical savings) for each of them.
        regret_usd: what was decided minus the cheaper of staying and on-demand in hindsight, in all; below 0 where a
            wished Spot pool was cheaper than both.
        regret_per_instance_day_usd: the same over the instance-days of the rows it is known for.
        regret_known: the share of decisions for which it is known.
    """

    decisions: int
    instance_days: float
    switches: int
    churn: float
    followed: int
    replacements_unknown: int
    replacement_days: float
    savings_realised_usd: float
    savings_hypothetical_usd: float
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
        rows: `COLUMNS`, one row per (account, window, instance, version). Times are UTC; `interrupted_at` NaT if it was
            not interrupted, `watched_until` until when that is known; `followed` whether the wish was carried out,
            `replacement_h` for how many hours its replacement ran, NaN if not known or not followed.
        horizon_h: no decision is held to account for longer, should the next evaluation be late.

    Raises:
        NotEnoughData: there is no row that decides anything.
        InvalidInput: a row is there twice.
    """
    weighed = weighed_rows(rows, horizon_h=horizon_h)
    return {str(version): _value(of_one) for version, of_one in weighed.groupby("model_version", sort=True)}


def decision_values_by(rows: pd.DataFrame, column: str, *, horizon_h: float) -> dict[tuple[str, str], DecisionValue]:
    """`decision_values` of each version's rows of one account, region, …: by (version, value of `column`)."""
    parts = weighed_rows(rows, horizon_h=horizon_h).groupby(["model_version", column], sort=True)
    return {(str(version), str(group)): _value(part) for (version, group), part in parts}


def weighed_rows(rows: pd.DataFrame, *, horizon_h: float) -> pd.DataFrame:
    """Each decision and whatever else its row holds, with `held_h`, `interrupted`, `moves`, `followed`, `changed`,
    `regret_usd` and `saved_usd`: realised where it was followed, else hypothetical; see the module.
    """
    rows = rows[rows["decision"] != "SKIP"]
    rows = rows.sort_values([*_INSTANCE, "model_version", "window_start"], kind="stable", ignore_index=True)
    if rows.empty:
        raise NotEnoughData("Expected decisions to weigh, got none.")
    if rows.duplicated([*_INSTANCE, "window_start", "model_version"]).any():
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
    decided = np.where(moves, to_price * held_h + unseen, stay)
    on_demand = rows["on_demand_usd_per_hour"].to_numpy(dtype=float) * held_h
    followed, replaced_h = moves & rows["followed"].to_numpy(dtype=bool), rows["replacement_h"].to_numpy(dtype=float)
    return rows.assign(
        held_h=held_h,
        interrupted=interrupted,
        moves=moves,
        followed=followed,
        changed=_changed(rows, moves),
        saved_usd=np.where(moves, (price - to_price) * np.where(followed, replaced_h, held_h), 0.0),
        regret_usd=decided - np.minimum(stay, on_demand),
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


def _rate(rows: pd.DataFrame, held_h: np.ndarray, interrupted: np.ndarray) -> np.ndarray:
    """(n,) interruptions per instance-hour among the rows of each one's version; NaN where there is no hour."""
    sums = pd.DataFrame({"hours": held_h, "taken": interrupted}).groupby(rows["model_version"]).transform("sum")
    return (sums["taken"] / sums["hours"].where(sums["hours"] > 0)).to_numpy(dtype=float)


def _changed(rows: pd.DataFrame, moves: np.ndarray) -> np.ndarray:
    """Whether the wish differs from the one before, or, the first of an instance, from where it ran."""
    fallback = (rows["decision"] == "FALLBACK_ON_DEMAND").to_numpy()
    here = rows["from_pool"].astype(object)
    wished = here.where(~moves, rows["to_pool"].astype(object).where(~fallback, "on-demand"))
    before = wished.groupby([rows[name] for name in (*_INSTANCE, "model_version")], sort=False).shift(1)
    return (wished != before.fillna(here)).to_numpy()


def _value(rows: pd.DataFrame) -> DecisionValue:
    days, avoided = rows["held_h"].sum() / 24, int((rows["moves"] & (rows["interrupted"] == 1)).sum())
    followed, switches = rows[rows["followed"]], int(rows["changed"].sum())
    hypothetical = _known_sum(rows.loc[rows["moves"] & ~rows["followed"], "saved_usd"])
    told = followed["saved_usd"].notna()
    regret = rows[rows["regret_usd"].notna()]
    regret_days = regret["held_h"].sum() / 24
    total = _known_sum(rows["regret_usd"])
    return DecisionValue(
        decisions=len(rows),
        instance_days=float(days),
        switches=switches,
        churn=_ratio(switches, days),
        followed=len(followed),
        replacements_unknown=int((~told).sum()),
        replacement_days=_known_sum(followed["replacement_h"].where(told)) / 24,
        savings_realised_usd=_known_sum(followed["saved_usd"]),
        savings_hypothetical_usd=hypothetical,
        avoided=avoided,
        cost_per_avoided_usd=_ratio(-hypothetical, avoided),
        regret_usd=total,
        regret_per_instance_day_usd=_ratio(total, regret_days),
        regret_known=len(regret) / len(rows),
    )


def _known_sum(values: pd.Series) -> float:
    """The sum of what is known: 0 of nothing at all, NaN if nothing of something is known."""
    return float(values.sum(min_count=min(len(values), 1)))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
