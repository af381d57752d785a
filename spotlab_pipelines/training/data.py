"""What models learn from: features as of an instant and what became of it, collected and kept under its fingerprint.

Reads the world and the archive; the examples themselves are made by examples.py and trace_examples.py, both pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.market.trace_reading import read_trace
from spotlab_pipelines.market.traces import ACCOUNTS
from spotlab_pipelines.settings import HORIZONS_H
from spotlab_pipelines.training.folds import labels_known_by
from spotlab_pipelines.training.history import TRAINING_DAYS, Progress, read_examples
from spotlab_pipelines.training.trace_examples import check_spec, trace_examples

if TYPE_CHECKING:
    import redis as redis_client
    import sqlalchemy as sa

    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings

TABLE = "training_examples"
EARLIEST, LATEST = 2006, 2199
"""Years of bounds: EC2 began in the first."""


@dataclass(frozen=True)
class TrainingData:
    """Examples as they are kept in the archive.

    Attributes:
        examples: sampled_at, pool key, features, interrupted_<H>h.
        fingerprint: the hash of their content, whatever the order of the rows; also where they lie.
        source: a trace's name, or ACCOUNTS. since, until: ISO times, None where there was no bound.
    """

    examples: pd.DataFrame
    fingerprint: str
    source: str
    feature_spec: str
    since: str | None
    until: str | None

    def params(self) -> dict[str, Any]:
        """For the log of a fit."""
        return {
            "source": self.source,
            "since": self.since,
            "until": self.until,
            "examples": len(self.examples),
            "first_example": self.examples[SAMPLED_AT].min().isoformat(),
            "last_example": self.examples[SAMPLED_AT].max().isoformat(),
            "data_fingerprint": self.fingerprint,
        }

    def sentence(self) -> str:
        """What it is, for a model card."""
        what = "Spot instances of the accounts" if self.source == ACCOUNTS else f"The trace {self.source}"
        first, last = (self.examples[SAMPLED_AT].agg(end).isoformat() for end in ("min", "max"))
        pools = len(self.examples[list(POOL_KEY)].drop_duplicates())
        return f"{what}: {len(self.examples)} examples of {pools} pools from {first} to {last}."


def collect_trace(
    settings: Settings,
    archive: Archive,
    trace: str,
    *,
    feature_spec: str,
    since: datetime | None = None,
    until: datetime | None = None,
    progress: Progress | None = None,
) -> TrainingData:
    """Examples of an imported trace from `since` until `until`, with what was known by then, kept in the archive.

    Raises:
        NotFound: there is no such trace.
        InvalidInput: the feature spec needs prices, or the bounds are not instants in order.
        NotEnoughData: no observation between the bounds found a pool available.
    """
    say = progress or (lambda _: None)
    check_bounds(since, until)
    check_spec(feature_spec)
    say(f"reading the trace {trace}")
    observations = read_trace(archive, trace)
    if until is not None:
        observations = observations[observations["observed_at"] < pd.Timestamp(until)]
    say(f"computing {feature_spec} as of each of {int(observations['available'].sum())} available observations")
    frame = trace_examples(
        observations, feature_spec=feature_spec, horizons_h=HORIZONS_H, open_bucket_rate=settings.open_bucket_rate
    )
    return _kept(archive, frame, trace, feature_spec, since, until)


def collect_accounts(
    settings: Settings,
    engine: sa.Engine,
    sessions: AccountSessions,
    redis: redis_client.Redis,
    archive: Archive,
    *,
    feature_spec: str,
    since: datetime | None = None,
    until: datetime | None = None,
    days: float = TRAINING_DAYS,
    progress: Progress | None = None,
) -> TrainingData:
    """Examples of the accounts' Spot requests, of the last `days` if not `since`. Errors as in `read_examples`."""
    check_bounds(since, until)
    end = until or datetime.now(UTC)
    days = days if since is None else (end - since) / timedelta(days=1)
    frame = read_examples(
        settings,
        engine,
        sessions,
        redis,
        training_days=days,
        progress=progress,
        feature_spec=feature_spec,
        until=end,
    )
    return _kept(archive, frame, ACCOUNTS, feature_spec, since or end - timedelta(days=days), end)


def read_training_data(archive: Archive, fingerprint: str) -> TrainingData:
    """The examples of that fingerprint, checked against it.

    Raises:
        NotFound: there are none.
        IntegrityError: they are no longer what they were.
    """
    frames, metadata = archive.read_snapshot(fingerprint)
    told = {name: metadata[name] for name in ("source", "feature_spec", "since", "until")}
    return TrainingData(frames[TABLE], fingerprint, **told)


def check_bounds(since: datetime | None, until: datetime | None) -> None:
    """Refuse bounds without a time zone, of no time in which there are Spot instances, or out of order."""
    for bound in (since, until):
        if bound is not None and bound.utcoffset() is None:
            raise InvalidInput(f"Expected times with a zone; got {bound!r}.")
        if bound is not None and not EARLIEST <= bound.year <= LATEST:
            raise InvalidInput(f"Expected times from {EARLIEST} to {LATEST}; got {bound.isoformat()}.")
    if since is not None and until is not None and since >= until:
        raise InvalidInput(f"Expected --since before --until; got {since.isoformat()} and {until.isoformat()}.")


def _kept(
    archive: Archive,
    frame: pd.DataFrame,
    source: str,
    feature_spec: str,
    since: datetime | None,
    until: datetime | None,
) -> TrainingData:
    """Between the bounds, with the labels known at the end, in one order, under the hash of the content."""
    if since is not None:
        frame = frame[frame[SAMPLED_AT] >= pd.Timestamp(since)]
    if until is not None:
        names = [f"interrupted_{horizon}h" for horizon in HORIZONS_H]
        known = labels_known_by(
            frame[names].to_numpy(dtype=float),
            utc_ticks(frame[SAMPLED_AT].dt.as_unit("us")),
            horizons_h=HORIZONS_H,
            until_us=pd.Timestamp(until).value // 1000,
        )
        frame = frame.assign(**{name: known[:, column] for column, name in enumerate(names)})
    if frame.empty or np.isnan(frame[f"interrupted_{HORIZONS_H[0]}h"]).all():
        raise NotEnoughData(f"Expected examples with a known outcome from {source} between the bounds; there are none.")
    frame = frame.sort_values([SAMPLED_AT, *POOL_KEY], kind="stable", ignore_index=True)
    bounds = {"since": since and since.isoformat(), "until": until and until.isoformat()}
    metadata = {"table": TABLE, "source": source, "feature_spec": feature_spec, **bounds}
    fingerprint = archive.write_snapshot({TABLE: frame}, metadata)
    return TrainingData(frame, fingerprint, source, feature_spec, **bounds)
