"""What was said of a challenger against the champion, look by look; the state that further looks depend on."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from spotlab_pipelines.database.tables.base import VERDICTS, Base, new_id, now, one_of, probability


class VersionVerdict(Base):
    """One look at a pair of versions, written once and never changed; the pair's next look follows from all of them.

    `day` is the last UTC day whose predictions were judged. `look` counts the looks that spent some of the error, up to
    and with this one; `information` is null unless this one did. Gains are the champion's loss minus the challenger's
    per prediction, with the interval of this look: infinite while nothing could be shown. `events` counts an
    interruption once, however many predictions it made true. `ece` is the challenger's calibration error on the same
    predictions, `predicted_share` what it predicted on average, and `interrupted_share` what came true of that;
    of `answered_share` of the champion's predictions it had one too.
    """

    __tablename__ = "verdicts"
    __table_args__ = (
        one_of("verdict", VERDICTS),
        *(probability(name) for name in ("ece", "predicted_share", "interrupted_share", "answered_share")),
        sa.CheckConstraint("champion <> challenger", name="challenger"),
        sa.CheckConstraint("look >= 0", name="look"),
        sa.CheckConstraint("information > 0 and information < 'infinity'", name="information"),
        sa.CheckConstraint("predictions >= events and events >= 0 and blocks >= 0", name="predictions"),
        # One look a day, whoever looks: also what finds a pair's looks in their order.
        sa.UniqueConstraint("champion", "challenger", "day"),
    )

    id: Mapped[UUID] = new_id()
    champion: Mapped[str] = mapped_column(sa.ForeignKey("model_registry.version", ondelete="RESTRICT"))
    challenger: Mapped[str] = mapped_column(sa.ForeignKey("model_registry.version", ondelete="RESTRICT"))
    day: Mapped[date]
    look: Mapped[int]
    information: Mapped[float | None]
    predictions: Mapped[int]
    events: Mapped[int]
    blocks: Mapped[int]
    verdict: Mapped[str]
    why: Mapped[str]
    brier_gain: Mapped[float | None]
    brier_gain_low: Mapped[float | None]
    brier_gain_high: Mapped[float | None]
    log_loss_gain: Mapped[float | None]
    log_loss_gain_low: Mapped[float | None]
    log_loss_gain_high: Mapped[float | None]
    ece: Mapped[float | None]
    predicted_share: Mapped[float | None]
    interrupted_share: Mapped[float | None]
    answered_share: Mapped[float | None]
    judged_at: Mapped[datetime] = now()
