"""Point-in-time examples: what was known of an exposed pool at an instant, and what became of the instance there. Pure.

Features come from the same windows and the same engine as in serving. Which instances ran when is exposures.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

import numpy as np
import pandas as pd

from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.tables import assemble_pools
from spotlab_pipelines.features.windows import PriceHistory, from_epoch_us
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY

HOUR_US = 3_600_000_000

Document = Callable[[datetime], pd.DataFrame]
"""What was known at an instant of something that is scraped as a whole."""


def sample_instants(
    exposures: pd.DataFrame, *, every: timedelta, not_before: pd.Timestamp, until: pd.Timestamp
) -> pd.DataFrame:
    """The instants at which each exposure is looked at: multiples of `every` since the epoch while the instance ran.

    One grid for all, so that few instants serve many exposures.

    Args:
        exposures: fulfilled Spot requests: started_at, ended_at (missing while running).
        every: distance of the instants.
        not_before: no earlier instant: prices must be known for a window before it.
        until: when the requests were read; a running instance was seen until then.

    Returns:
        Frame (exposure: row number in `exposures`, sampled_at).
    """
    step = int(every / timedelta(microseconds=1))
    started = utc_ticks(exposures["started_at"].dt.as_unit("us"))
    ended = utc_ticks(exposures["ended_at"].fillna(until).dt.as_unit("us"))
    first = -(-np.maximum(started, not_before.value // 1000) // step)
    count = np.maximum(-(-np.minimum(ended, until.value // 1000) // step) - first, 0)
    exposure = np.repeat(np.arange(len(exposures)), count)
    within = np.arange(len(exposure)) - np.repeat(np.cumsum(count) - count, count)
    return pd.DataFrame({"exposure": exposure, "sampled_at": from_epoch_us((first[exposure] + within) * step)})


def label(
    exposures: pd.DataFrame, samples: pd.DataFrame, *, horizons_h: tuple[int, ...], until: pd.Timestamp
) -> np.ndarray:
    """Whether EC2 interrupted the instance within each horizon of the instant.

    An instance that ended otherwise within the horizon, or that was last seen running within it, is censored there: it
    did not survive, it was not watched to the end.

    Returns:
        (n, n_horizons): 1 interrupted, 0 survived, NaN censored.
    """
    of = exposures.take(samples["exposure"].to_numpy())
    at = utc_ticks(samples["sampled_at"].dt.as_unit("us"))
    seen_until = utc_ticks(of["ended_at"].fillna(until).dt.as_unit("us"))
    interrupted = (of["interrupted"] & of["ended_at"].notna()).to_numpy(dtype=bool)
    deadline = at[:, None] + np.array(horizons_h) * HOUR_US
    over = (seen_until[:, None] <= deadline) & (seen_until > at)[:, None]
    survived = np.where(seen_until[:, None] > deadline, 0.0, np.nan)
    return np.where(over & interrupted[:, None], 1.0, survived)


def build_examples(
    exposures: pd.DataFrame,
    changes: pd.DataFrame,
    *,
    advisor: Document,
    on_demand: Document,
    every: timedelta,
    window: timedelta,
    not_before: pd.Timestamp,
    until: pd.Timestamp,
    horizons_h: tuple[int, ...],
    open_bucket_rate: float,
    feature_spec: str = "v1",
    observations: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One example for each instant of each exposure whose pool had features then.

    Features are those of all pools at that instant, computed by the serving engine; nothing after the instant is looked
    at.

    Args:
        advisor, on_demand: what was known of them at an instant.
        observations: what was observed of pools, for a spec that looks at it; each counts from its `known_at` on, and
            without that column from its own time on, as a price does.

    Returns:
        Frame (sampled_at, pool key, the features and what travels with them, interrupted_<H>h: 1, 0 or NaN); without
        rows, but with all columns, if no exposure spans an instant.
    """
    samples = sample_instants(exposures, every=every, not_before=not_before, until=until)
    history = PriceHistory.from_changes(changes)
    labels = label(exposures, samples, horizons_h=horizons_h, until=until)
    samples = samples.assign(**{f"interrupted_{h}h": labels[:, column] for column, h in enumerate(horizons_h)})
    samples = samples.join(exposures[list(POOL_KEY)].reset_index(drop=True), on="exposure")
    past = Past.of(observations, history, price_window=window)
    parts = []
    # Without any instant one is looked at for the columns alone.
    for instant, exposed in samples.groupby("sampled_at", sort=True) if len(samples) else [(until, samples)]:
        at = cast("pd.Timestamp", instant).to_pydatetime()
        windows = history.window_at(at, window)
        known = {"advisor": advisor(at), "on_demand": on_demand(at)}
        pools = assemble_pools(windows, exposed, **known)
        pools[SAMPLED_AT] = pd.Series([instant] * len(pools), dtype="datetime64[us, UTC]")
        features, _ = compute_features(pools, feature_spec, open_bucket_rate=open_bucket_rate, past=past)
        parts.append(exposed.merge(features, on=[SAMPLED_AT, *POOL_KEY], how="inner"))
    return pd.concat(parts, ignore_index=True).drop(columns="exposure")
