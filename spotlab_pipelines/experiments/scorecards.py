"""Scorecards of versions from the log: what each said, judged by what happened, in all and by account, region, family.

A row counts for the version that predicted it, whatever is assigned now. Censored predictions are left out of figures
and counted; so are those whose outcome may still change. The arithmetic is scorecard.py's and decision_value.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.experiments.decision_rows import decision_rows
from spotlab_pipelines.experiments.decision_value import DecisionValue, decision_values, decision_values_by
from spotlab_pipelines.experiments.labels import labelled
from spotlab_pipelines.experiments.scorecard import Scorecard, scorecard
from spotlab_pipelines.experiments.verdict import Difference, skill_interval

Group = Literal["account", "environment", "region", "family"]
GROUPS: dict[Group, str] = {
    "account": "account_id", "environment": "environment", "region": "region", "family": "family"
}  # fmt: skip

FAR_APART = 1_000_000
"""Days between the blocks of two regions, so that none follows upon another's."""


@dataclass(frozen=True)
class VersionScorecard:
    """What a version's predictions at one horizon were worth.

    Attributes:
        group: the account, region, … it is about; None for all.
        first, last: windows of the first and the last prediction.
        predictions: all, of which `censored` will never be known and `pending` are not yet; `retrospective` of past
            windows, predicted when the outcome was there already.
        card: None if no outcome is known.
        skill: Brier skill with its 95 % interval; None where there is none.
    """

    version: str
    horizon_h: int
    group: str | None
    first: datetime
    last: datetime
    predictions: int
    censored: int
    pending: int
    retrospective: int
    card: Scorecard | None
    skill: Difference | None

    def row(self) -> dict[str, Any]:
        """The figures in one flat row; what does not exist is None."""
        head = {name: value for name, value in vars(self).items() if name not in ("card", "skill")}
        figures = {"n": 0, "events": 0}
        if self.card is not None:
            figures = self.card.metrics() | {"n": self.card.n, "events": self.card.events}
        names = [name for name in Scorecard.__dataclass_fields__ if name not in ("bins", "thresholds")]
        low, high = (None, None) if self.skill is None else (self.skill.low, self.skill.high)
        return head | {name: figures.get(name) for name in names} | {"brier_skill_low": low, "brier_skill_high": high}


def version_scorecards(
    engine: sa.Engine,
    version: str,
    *,
    horizon_h: int,
    since: datetime,
    by: Group | None = None,
    account_id: str | None = None,
) -> list[VersionScorecard]:
    """A version's scorecard over the windows from `since` on, or one for each account, region, …, in their order.

    Raises:
        NotEnoughData: it predicted nothing there.
    """
    with database_errors(), engine.connect() as connection:
        rows = labelled(connection, version, horizon_h=horizon_h, since=since, account_id=account_id)
    if rows.empty:
        raise NotEnoughData(
            f"Expected predictions of {version} at {horizon_h} h since {since:%Y-%m-%d}; there are none.",
            remedy="`spotlab experiments list` shows what was evaluated.",
        )
    return [scorecard_of(part, version, horizon_h, group) for group, part in _parts(rows, by)]


def scorecard_of(rows: pd.DataFrame, version: str, horizon_h: int, group: str | None = None) -> VersionScorecard:
    """The scorecard of rows as `labels.labelled` gives them; at least one."""
    outcome, predicted, block = known(rows)
    return VersionScorecard(
        version=version,
        horizon_h=horizon_h,
        group=group,
        first=rows["window_start"].min().to_pydatetime(),
        last=rows["window_start"].max().to_pydatetime(),
        predictions=len(rows),
        censored=int((rows["final"] & (rows["outcome"] == "censored")).sum()),
        pending=int((~rows["final"]).sum()),
        retrospective=int(rows["retrospective"].sum()),
        card=scorecard(outcome, predicted) if len(outcome) else None,
        skill=skill_interval(outcome, predicted, block, interruption_of(rows)) if len(outcome) else None,
    )


def known(rows: pd.DataFrame, probability: str = "p_current") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) outcomes as 1 and 0, probabilities, and `region_days`, of the rows with a known final outcome."""
    rows = rows[is_known(rows)]
    outcome = (rows["outcome"] == "interrupted").to_numpy(dtype=float)
    return outcome, rows[probability].to_numpy(dtype=float), region_days(rows["region"], rows["window_start"])


def region_days(region: pd.Series, at: pd.Series) -> np.ndarray:
    """(n,) blocks of (region, day), as verdict.py wants them: of one region the next day is the next integer."""
    number, _ = pd.factorize(region, sort=True)
    day = at.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    return number * FAR_APART + day


def interruption_of(rows: pd.DataFrame) -> np.ndarray:
    """(n,) which interruption each row foresaw or missed, as a number; -1 where none came. Of the rows `known` gives.

    All windows whose horizon reaches the same interruption of an instance have the same number.
    """
    rows = rows[is_known(rows)]
    number = rows.groupby(["account_id", "instance_id", "interrupted_at"], sort=True).ngroup()
    return number.where(rows["outcome"] == "interrupted", -1).to_numpy()


def known_at(rows: pd.DataFrame) -> np.ndarray:
    """(n,) windows of the rows that `known` gives, in microseconds since the epoch."""
    start = rows.loc[is_known(rows), "window_start"]
    return start.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


def version_values(
    engine: sa.Engine, versions: Sequence[str], *, horizon_h: int, since: datetime
) -> dict[str, DecisionValue]:
    """What each version's decisions were worth; nothing of a version that decided nothing."""
    with database_errors(), engine.connect() as connection:
        rows = decision_rows(connection, versions, horizon_h=horizon_h, since=since)
    return decision_values(rows, horizon_h=horizon_h) if (rows["decision"] != "SKIP").any() else {}


def version_values_by(
    engine: sa.Engine, version: str, by: Group, *, horizon_h: int, since: datetime, account_id: str | None = None
) -> dict[str, DecisionValue]:
    """The same of one version for each account, environment, region or family that it decided of, or of one account."""
    with database_errors(), engine.connect() as connection:
        rows = decision_rows(connection, [version], horizon_h=horizon_h, since=since)
    rows = rows[rows["account_id"] == account_id] if account_id else rows
    if not (rows["decision"] != "SKIP").any():
        return {}
    return {group: value for (_, group), value in decision_values_by(rows, GROUPS[by], horizon_h=horizon_h).items()}


def is_known(rows: pd.DataFrame) -> pd.Series:
    """Which rows have an outcome, interrupted or survived, that will not change any more."""
    return rows["final"] & (rows["outcome"] != "censored")


def _parts(rows: pd.DataFrame, by: Group | None) -> Iterator[tuple[str | None, pd.DataFrame]]:
    if by is None:
        yield None, rows
    else:
        yield from ((str(name), part) for name, part in rows.groupby(GROUPS[by], sort=True))
