"""What a version must have shown to become the champion: the latest verdict against the present one, and calibration.

Verdicts are made by experiments/judging.py and read here from their table. A step of a version's way is roles.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from spotlab_pipelines.database.tables import VersionVerdict
from spotlab_pipelines.errors import InvalidInput, NotProven

REASON_MAX = 500
VERDICT_DAYS = 30
"""For so long a verdict counts; then the pair is compared anew, on later days (experiments/judging.py)."""
ANSWERED_MIN = 0.99
"""Of the champion's predictions, the share of which the challenger must have had one too."""


@dataclass(frozen=True)
class PromotionGate:
    """The rules of a promotion, and somebody's reason to overrule them.

    Attributes:
        ece_max: largest calibration error; setting promote_ece_max.
        ratio_max: how many times as much as came true may be predicted on average, or as little; setting
            promote_ratio_max.
        predictions_min: predictions that verdict and calibration must rest on; setting promote_predictions_min.
        override: why it is promoted all the same; None if it is not.

    Raises:
        InvalidInput: the reason is empty, too long or not one line of text.
    """

    ece_max: float
    ratio_max: float
    predictions_min: int
    override: str | None = None

    def __post_init__(self) -> None:
        reason = self.override
        if reason is not None and not (reason.strip() and len(reason) <= REASON_MAX and reason.isprintable()):
            raise InvalidInput(
                f"Expected a reason of 1 to {REASON_MAX} printable characters for the override, got {reason[:50]!r}."
            )

    def overruled(self, connection: sa.Connection, *, champion: str, challenger: str) -> str | None:
        """What the override overrules; None if the rules are met.

        Raises:
            NotProven: they are not met, and nobody overrules them.
        """
        found = refusal(connection, champion=champion, challenger=challenger, gate=self)
        if found is not None and self.override is None:
            raise NotProven(
                found,
                remedy=f"`spotlab models compare {champion} {challenger}` shows both; an admin may overrule it:"
                f" `spotlab models promote {challenger} --override REASON`.",
            )
        return found


def refusal(connection: sa.Connection, *, champion: str, challenger: str, gate: PromotionGate) -> str | None:
    """Why the challenger may not take the champion's place, in a sentence; None if it may."""
    row = latest_verdict(connection, champion=champion, challenger=challenger)
    if row is None:
        return f"Expected a verdict that {challenger} beats the champion {champion}; none was made yet."
    if row.verdict != "promote":
        return (
            f"Expected the verdict promote for {challenger} against the champion {champion}; that of {row.day} is"
            f" {row.verdict}: {row.why}"
        )
    shown = f"The verdict of {row.day} is promote: {row.why}"
    if is_expired(row.day, datetime.now(UTC)):
        return f"{shown} But it is more than {VERDICT_DAYS} days old; a new comparison goes on from there."
    if row.answered_share is None or row.answered_share < ANSWERED_MIN:
        told = "an unknown share" if row.answered_share is None else f"{100 * row.answered_share:.1f} %"
        return f"{shown} But it had a prediction for {told} of the champion's; {100 * ANSWERED_MIN:g} % are asked for."
    if row.predictions < gate.predictions_min:
        return f"{shown} But it rests on {row.predictions} predictions; {gate.predictions_min} are asked for."
    if row.ece is None or row.ece > gate.ece_max:
        told = "unknown" if row.ece is None else f"{row.ece:.4f}"
        return f"{shown} But its calibration error (ECE) is {told}; at most {gate.ece_max:g} is asked for."
    # Where interruptions are rare, a small error is still many times the rate, and decisions weigh the rate.
    predicted, came_true = row.predicted_share, row.interrupted_share
    if predicted is None or not came_true / gate.ratio_max <= predicted <= came_true * gate.ratio_max:
        told = "what it predicts on average is unknown"
        if predicted is not None:
            told = f"it predicts {predicted:.4f} on average, of which {came_true:.4f} came true"
        return f"{shown} But {told}; a factor of {gate.ratio_max:g} is allowed."
    return None


def is_expired(day: date, now: datetime) -> bool:
    """Whether a verdict that knows all up to a day counts no longer."""
    return now.date() - day > timedelta(days=VERDICT_DAYS)


def latest_verdict(connection: sa.Connection, *, champion: str, challenger: str) -> sa.Row | None:
    """The newest look at a pair, all columns of the table; None if there was none."""
    table = VersionVerdict
    return connection.execute(
        sa.select(*table.__table__.columns)
        .where(table.champion == champion, table.challenger == challenger)
        .order_by(table.day.desc())
        .limit(1)
    ).one_or_none()
