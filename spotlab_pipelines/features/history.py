"""What was observed of a pool before an instant, as numbers, for many (pool, instant) pairs at once. Pure.

One function for serving (every pool at one instant) and for training (some pools at many instants). Windows are
counted in whole observations and differences of running counts, which are exact: rows of other pools, rows of the
future and rows older than HISTORY_DAYS cannot change a bit of what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from spotlab_pipelines.features.specs import (
    HISTORY_FEATURES,
    LONGEST_LOG_HOURS,
    PRIOR_SHARE,
    PRIOR_WEIGHT,
    RATE_WINDOWS_H,
    SHARE_WINDOWS_H,
)
from spotlab_pipelines.features.timeline import Timeline
from spotlab_pipelines.features.windows import pool_codes
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY, joined
from spotlab_pipelines.market.layout import HISTORY_DAYS

HOUR_US = 3_600_000_000
NAMES = tuple(feature.name for feature in HISTORY_FEATURES if not feature.required)
NEVER = -1
LOSS_GAP_H = 168
"""A failure counts as a loss if the pool was seen available at most this long before it; less than HISTORY_DAYS minus
the longest window in which losses are counted, so that older rows cannot make one."""


@dataclass(frozen=True)
class PoolHistory:
    """Observations sorted by pool and time, ready to be looked at from any instant.

    An observation is one fact about one pool at one time: repeats of it count once, however many accounts saw it. Of an
    available and a failed one at the same time the failure counts as the later.

    Attributes:
        pools: the pool keys, one row a pool.
        timeline: the (n,) observations.
        failed: (n,) whether each failed.
        known_at: (n,) microseconds since the epoch from which each was known.
        prompt: whether each was known from its own time on.
        failures, losses: (n + 1,) running counts: of the first i observations, how many failed, how many were losses.
        last_failure, last_success: (n,) row of the latest one so far, of whatever pool; NEVER if there is none.
    """

    pools: pd.DataFrame
    timeline: Timeline
    failed: np.ndarray
    known_at: np.ndarray
    prompt: bool
    failures: np.ndarray
    losses: np.ndarray
    last_failure: np.ndarray
    last_success: np.ndarray

    @classmethod
    def from_observations(cls, observations: pd.DataFrame) -> PoolHistory:
        """Sort observations; the order of the rows and repeats of a row do not matter.

        Args:
            observations: region, instance_type, az_id, product, observed_at, available. With a column `known_at` an
                observation counts only from then on; without, from `observed_at` on.
        """
        pool, pools = pool_codes(observations)
        moment = utc_ticks(observations["observed_at"].dt.as_unit("us"))
        failed = ~observations["available"].to_numpy(dtype=bool)
        known = moment
        if "known_at" in observations:
            known = np.maximum(moment, utc_ticks(observations["known_at"].dt.as_unit("us")))
        order = np.lexsort((known, failed, moment, pool))
        pool, moment, failed, known = pool[order], moment[order], failed[order], known[order]
        repeated = np.zeros(len(pool), dtype=bool)
        repeated[1:] = (pool[1:] == pool[:-1]) & (moment[1:] == moment[:-1]) & (failed[1:] == failed[:-1])
        rows = ~repeated
        return cls._sorted(pools, pool[rows], moment[rows], failed[rows], known[rows])

    @classmethod
    def _sorted(
        cls, pools: pd.DataFrame, pool: np.ndarray, moment: np.ndarray, failed: np.ndarray, known: np.ndarray
    ) -> PoolHistory:
        lost = np.zeros(len(pool), dtype=bool)
        lost[1:] = failed[1:] & ~failed[:-1] & (pool[1:] == pool[:-1])
        lost[1:] &= moment[1:] - moment[:-1] <= LOSS_GAP_H * HOUR_US
        row = np.arange(len(pool))
        return cls(
            pools=pools,
            timeline=Timeline.of(pool, moment),
            failed=failed,
            known_at=known,
            prompt=np.array_equal(known, moment),
            failures=_running(failed),
            losses=_running(lost),
            last_failure=np.maximum.accumulate(np.where(failed, row, NEVER)) if len(row) else row,
            last_success=np.maximum.accumulate(np.where(failed, NEVER, row)) if len(row) else row,
        )

    def find(self, pools: pd.DataFrame) -> np.ndarray:
        """The numbers of `pools` (pool key columns) in this history, (m,); timeline.UNKNOWN where it has none."""
        return joined(self.pools, POOL_KEY).get_indexer(joined(pools, POOL_KEY)).astype(np.int64)

    def features_at(self, pool: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        """The history features of (pool, instant) pairs, looking at nothing that was observed or known later.

        Args:
            pool: (m,) numbers as `find` gives them. at: (m,) microseconds since the epoch.

        Returns:
            Each (m,): the features that specs.HISTORY_FEATURES declares, NaN where nothing was observed.
        """
        columns = self._features(pool, at)
        if self.prompt:
            return columns
        # Where an observation of the pool had been made and was not known yet, the counts include it: look again at
        # these pairs, at each of their instants with what was known then.
        later = self._unknown_yet(pool, at)
        for instant in np.unique(at[later]):
            rows = np.flatnonzero(later & (at == instant))
            for name, values in self._known_by(int(instant))._features(pool[rows], at[rows]).items():
                columns[name][rows] = values
        return columns

    def _unknown_yet(self, pool: np.ndarray, at: np.ndarray) -> np.ndarray:
        return self._known.end(pool, at) != self.timeline.end(pool, at)

    @cached_property
    def _known(self) -> Timeline:
        """The rows of each pool by when they were known; sorted once, however often the history is looked at."""
        order = np.lexsort((self.known_at, self.timeline.pool))
        return Timeline.of(self.timeline.pool, self.known_at[order])

    def _known_by(self, instant: int) -> PoolHistory:
        rows = self.known_at <= instant
        moment = self.timeline.moment[rows]
        return PoolHistory._sorted(self.pools, self.timeline.pool[rows], moment, self.failed[rows], moment)

    def _features(self, pool: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        columns = {name: np.full(len(pool), np.nan) for name in NAMES}
        seen = np.flatnonzero(self.timeline.end(pool, at) > self._window(pool, at, 24 * HISTORY_DAYS))
        for name, values in self._features_of_seen(pool[seen], at[seen]).items() if len(seen) else ():
            columns[name][seen] = values
        return columns

    def _features_of_seen(self, pool: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        end = self.timeline.end(pool, at)
        latest, opening = end - 1, self._window(pool, at, 24 * HISTORY_DAYS)
        failing_h = _log_hours(self._since(self.last_success[latest], opening, at))
        columns = {
            "log_hours_without_failure": _log_hours(self._since(self.last_failure[latest], opening, at)),
            "log_hours_failing": np.where(self.failed[latest], failing_h, 0.0),
            "log_hours_since_observation": _log_hours(self._since(latest, opening, at)),
        }
        share = np.full(len(pool), PRIOR_SHARE)
        for window in sorted(SHARE_WINDOWS_H, reverse=True):
            failures, count = self._counts(self._window(pool, at, window), end)
            share = (failures + PRIOR_WEIGHT * share) / (count + PRIOR_WEIGHT)
            columns[f"failure_share_{window}h"] = share
        since_opening = self._since(opening, opening, at)
        for window in RATE_WINDOWS_H:
            start = self._window(pool, at, window)
            failures, count = self._counts(start, end)
            available = (count - failures) / np.maximum(count, 1) * np.minimum(since_opening, float(window))
            losses = self.losses[end] - self.losses[start]
            columns[f"log_losses_per_hour_{window}h"] = np.log1p(losses / (1.0 + available))
        return columns

    def _window(self, pool: np.ndarray, at: np.ndarray, hours: int) -> np.ndarray:
        """The first row of each pair's window (instant − hours, instant]; its end if the window is empty."""
        return self.timeline.end(pool, at - hours * HOUR_US)

    def _counts(self, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many observations failed, and how many there are, from row `start` to before row `end`."""
        return self.failures[end] - self.failures[start], end - start

    def _since(self, row: np.ndarray, opening: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Hours since `row`, or since `opening` where `row` lies before it: in another pool, or too long ago."""
        return (at - self.timeline.moment[np.maximum(row, opening)]) / HOUR_US


def _running(flags: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(flags, dtype=np.int64)])


def _log_hours(hours: np.ndarray) -> np.ndarray:
    # The logarithm may exceed its own bound in its last bit.
    return np.minimum(np.log1p(hours), LONGEST_LOG_HOURS)
