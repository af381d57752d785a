"""Challengers against the champion, look by look, and the record of it in the table `verdicts`.

A look is taken when days have ended whose outcomes are all known, at most one for the same days and at most
`VerdictRules.looks_max` in all; a promote or reject verdict ends the comparison of the pair for as long as it counts
(promotion.VERDICT_DAYS). Then a new one begins, on later days alone. Judged are predictions that both made of the same
instance in the same window, before its outcome could be known: past windows, which a version may have been fitted on,
do not count. The arithmetic is verdict.py's; what a verdict allows, inference/promotion.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import ModelVersion, VersionVerdict
from spotlab_pipelines.experiments.labels import paired
from spotlab_pipelines.experiments.plots import Said
from spotlab_pipelines.experiments.scorecard import scorecard
from spotlab_pipelines.experiments.scorecards import VersionScorecard, interruption_of, known, known_at, scorecard_of
from spotlab_pipelines.experiments.verdict import PROMOTE, REJECT, Difference, Verdict, VerdictRules, judge
from spotlab_pipelines.inference.promotion import is_expired, latest_verdict

HORIZON_H = 6
"""The horizon that verdicts are about."""
GRACE = timedelta(days=2)
"""A day whose last outcomes are still open so long after its horizons have ended is judged without them."""
ENDING = (PROMOTE, REJECT)
EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Judged:
    """The latest verdict on a pair. `new` if it was made just now; `day` is the last that it knows."""

    champion: str
    challenger: str
    day: date | None
    new: bool
    verdict: str
    why: str
    look: int
    predictions: int
    events: int
    blocks: int
    brier_gain: float | None
    brier_gain_low: float | None
    brier_gain_high: float | None
    ece: float | None


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same rows, past windows included, and what is on record of the pair.

    Attributes:
        first, second: scorecards over the rows that both predicted.
        verdict: how one single look at these rows would end, the first being the champion; never put on record.
        on_record: the latest look of the pair, None if there was none.
        said: outcomes and probabilities of each version, for plots.
    """

    first: VersionScorecard
    second: VersionScorecard
    verdict: Verdict
    on_record: Judged | None
    said: dict[str, Said]


def judge_challengers(engine: sa.Engine, *, now: datetime, rules: VerdictRules | None = None) -> list[Judged]:
    """Look at every approved version against the champion; the latest verdict of each, new or not, by version.

    Nothing without a champion. A pair that never predicted the same instance is judged as having too little data.
    """
    with database_errors(), engine.connect() as connection:
        rows = connection.execute(
            sa.select(ModelVersion.version, ModelVersion.role)
            .where(ModelVersion.status == "approved")
            .order_by(ModelVersion.family, ModelVersion.number)
        ).all()
    champion = next((row.version for row in rows if row.role == "champion"), None)
    if champion is None:
        return []
    return [look(engine, champion, row.version, now=now, rules=rules) for row in rows if row.version != champion]


def look(
    engine: sa.Engine, champion: str, challenger: str, *, now: datetime, rules: VerdictRules | None = None
) -> Judged:
    """Look at a pair if there are new finished days and it is not decided; else give the latest verdict again."""
    with database_errors(), engine.begin() as connection:
        # One at a time: two looks at once would each spend what only one may.
        lock(connection, "verdicts")
        earlier = looks(connection, champion, challenger)
        latest = earlier[-1] if earlier else None
        if latest is not None and latest.verdict in ENDING and not is_expired(latest.day, now):
            return _judged(latest, new=False)
        ended = max((number for number, row in enumerate(earlier, 1) if row.verdict in ENDING), default=0)
        since = datetime.combine(earlier[ended - 1].day + timedelta(days=1), time(), UTC) if ended else EVER
        earlier = earlier[ended:]
        rows = paired(connection, champion, challenger, horizon_h=HORIZON_H, since=since)
        rows = rows[~rows["retrospective"]]
        day = finished_day(rows, now=now)
        if latest is not None and (day is None or day <= latest.day):
            return _judged(latest, new=False)
        rows = rows[rows["window_start"].dt.date <= (day or date.min)]
        answered = rows["p_challenger"].notna()
        share, rows = float(answered.mean()) if len(rows) else None, rows[answered]
        outcome, ours, block = known(rows)
        theirs = known(rows, "p_challenger")[1]
        spent = [row.information for row in earlier if row.information is not None]
        verdict = judge(outcome, ours, theirs, block, interruption=interruption_of(rows), earlier=spent, rules=rules)
        values = {
            "champion": champion, "challenger": challenger, "day": day, "look": verdict.look,
            "information": float(verdict.information) if np.isfinite(verdict.information) else None,
            "predictions": verdict.n, "events": verdict.events, "blocks": verdict.blocks, "verdict": verdict.verdict,
            "why": verdict.why, **_interval("brier", verdict.brier), **_interval("log_loss", verdict.log_loss),
            **_calibration(outcome, theirs), "answered_share": share,
        }  # fmt: skip
        if day is not None:
            connection.execute(insert(VersionVerdict).values(values).inline())
    return Judged(**{name: values[name] for name in Judged.__dataclass_fields__ if name != "new"}, new=day is not None)


def looks(connection: sa.Connection, champion: str, challenger: str) -> Sequence[sa.Row]:
    """The looks at a pair, in their order: all columns of the table."""
    table = VersionVerdict
    return connection.execute(
        sa.select(*table.__table__.columns)
        .where(table.champion == champion, table.challenger == challenger)
        .order_by(table.day)
    ).all()


def latest_look(connection: sa.Connection, champion: str, challenger: str) -> Judged | None:
    """The latest verdict on a pair, None if there was no look."""
    row = latest_verdict(connection, champion=champion, challenger=challenger)
    return None if row is None else _judged(row, new=False)


def compare(
    engine: sa.Engine, first: str, second: str, *, horizon_h: int, since: datetime, rules: VerdictRules | None = None
) -> Comparison | None:
    """Both versions on all rows that both predicted since then; None if there is none."""
    with database_errors(), engine.connect() as connection:
        rows = paired(connection, first, second, horizon_h=horizon_h, since=since)
        on_record = latest_look(connection, first, second)
    rows = rows[rows["p_challenger"].notna()]
    if rows.empty:
        return None
    outcome, ours, block = known(rows)
    theirs, at = known(rows, "p_challenger")[1], known_at(rows)
    once = VerdictRules(looks_max=1) if rules is None else rules
    return Comparison(
        first=scorecard_of(rows, first, horizon_h),
        second=scorecard_of(rows.assign(p_current=rows["p_challenger"]), second, horizon_h),
        verdict=judge(outcome, ours, theirs, block, interruption=interruption_of(rows), rules=once),
        on_record=on_record,
        said={first: Said(outcome, ours, at), second: Said(outcome, theirs, at)} if len(outcome) else {},
    )


def finished_day(rows: pd.DataFrame, *, now: datetime) -> date | None:
    """The last UTC day of rows that has ended with all before it: horizons over, and every outcome known for good.

    An outcome that stays open for `GRACE` longer than it should keeps no day open.
    """
    days = rows["window_start"].dt.floor("D")
    over = days + timedelta(days=1, hours=HORIZON_H)
    is_open = (over > now) | (~rows["final"] & (over + GRACE > now))
    ended = days if not is_open.any() else days[days < days[is_open].min()]
    return None if ended.empty else ended.max().date()


def _interval(loss: str, found: Difference | None) -> dict[str, float | None]:
    ends = (None, None, None) if found is None else (found.mean, found.low, found.high)
    return dict(zip((f"{loss}_gain", f"{loss}_gain_low", f"{loss}_gain_high"), ends, strict=True))


def _calibration(outcome: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    if not len(outcome):
        return dict.fromkeys(("ece", "predicted_share", "interrupted_share"))
    return {
        "ece": scorecard(outcome, predicted).ece,
        "predicted_share": float(predicted.mean()),
        "interrupted_share": float(outcome.mean()),
    }


def _judged(row: sa.Row, *, new: bool) -> Judged:
    return Judged(**{name: getattr(row, name) for name in Judged.__dataclass_fields__ if name != "new"}, new=new)
