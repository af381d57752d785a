"""Examples from an imported trace: what was known of a pool when it was seen available, and whether it failed. Pure.

Reading traces is market/traces.py's; the features are those of serving, by the same engine.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.features.specs import SPECS, get_spec
from spotlab_pipelines.features.windows import from_epoch_us, pool_codes
from spotlab_pipelines.market.canonical import utc_ticks
from spotlab_pipelines.market.frames import POOL_KEY

HOUR_US = 3_600_000_000
NEVER = np.iinfo(np.int64).max
GAP_FACTOR = 3.0
"""A pool counts as watched between two observations that are at most this many usual distances apart."""
LATENESS = 0.05
"""By this share of its usual distance an observation may come late and still be the one that was due: a probe every ten
minutes drifts by seconds, and the sixth is the one after an hour."""


def check_spec(feature_spec: str, version: str | None = None) -> None:
    """Refuse a feature spec, or the version that reads it, which needs what no trace has.

    Raises:
        InvalidInput: it needs prices.
        FeatureVersionMismatch: there is no such spec.
    """
    if get_spec(feature_spec).needs_market:
        without = " or ".join(name for name, spec in SPECS.items() if not spec.needs_market)
        what = f"feature spec {feature_spec}" if version is None else f"{version}, of feature spec {feature_spec},"
        raise InvalidInput(
            f"A trace tells what happened to pools, not what they cost; {what} needs prices.",
            remedy=f"`spotlab models train FAMILY --trace NAME --spec {without}` makes a version that needs none, and"
            " prints its name.",
        )


def trace_examples(
    observations: pd.DataFrame, *, feature_spec: str, horizons_h: tuple[int, ...], open_bucket_rate: float
) -> pd.DataFrame:
    """One example for each observation that found its pool available.

    Features are as of that instant. Of an available and a failed observation of a pool at one time the failure counts
    as the later, as it does in the features: the pool was not available then.

    Args:
        observations: region, instance_type, az_id, product, observed_at, available.
        feature_spec: one that needs no market: a trace has no prices.

    Returns:
        Frame (sampled_at, pool key, the features, interrupted_<H>h: 1, 0 or NaN), sorted by instant and pool.

    Raises:
        InvalidInput: the spec needs prices.
        NotEnoughData: no observation found a pool available.
    """
    check_spec(feature_spec)
    samples, labels = label_observations(observations, horizons_h)
    if samples.empty:
        raise NotEnoughData(f"Expected observations that found a pool available; {len(observations)} hold none.")
    past = Past.of(observations)
    # Pools are unique at one instant, and the engine sorts by instant and pool key as these are.
    features, _ = compute_features(samples, feature_spec, open_bucket_rate=open_bucket_rate, past=past)
    named = {f"interrupted_{horizon}h": labels[:, column] for column, horizon in enumerate(horizons_h)}
    return features.merge(samples.assign(**named), on=[SAMPLED_AT, *POOL_KEY], validate="one_to_one")


def label_observations(observations: pd.DataFrame, horizons_h: tuple[int, ...]) -> tuple[pd.DataFrame, np.ndarray]:
    """The instants at which pools were seen available, and whether each failed within each horizon after it.

    A pool is watched as long as its observations are at most `GAP_FACTOR` times their usual (median) distance apart.
    Failed: an observation in (t, t + H] failed. Survived: none did, and the pool was watched up to t + H. Censored,
    whatever was seen: the watch ended before t + H, and not with a failure; else, of the last rows of a watch, only
    those that failed would count.

    Returns:
        The samples (pool key, sampled_at), sorted by instant and pool key, and (n, n_horizons) labels: 1, 0 or NaN.
    """
    pool, pools = pool_codes(observations)
    moment = utc_ticks(observations["observed_at"].dt.as_unit("us"))
    failed = ~observations["available"].to_numpy(dtype=bool)
    order = np.lexsort((failed, moment, pool))
    pool, moment, failed = pool[order], moment[order], failed[order]
    # The last of several at one instant: a failure, if there is one.
    last = np.append((pool[1:] != pool[:-1]) | (moment[1:] != moment[:-1]), True) if len(pool) else failed
    pool, moment, failed = pool[last], moment[last], failed[last]
    usual = _usual_distance(pool, moment)
    last_seen = _run_ends(pool, moment, usual)
    fails_at = _next_failure(pool, moment, failed)
    at = np.flatnonzero(~failed)
    lateness = (LATENESS * usual[pool[at]]).astype(np.int64)[:, None]
    deadline = moment[at, None] + np.asarray(horizons_h, dtype=np.int64) * HOUR_US
    hit = fails_at[at, None] <= deadline + lateness
    watched = moment[last_seen[at], None] + lateness >= deadline
    labels = np.where(hit & (watched | failed[last_seen[at], None]), 1.0, np.where(watched & ~hit, 0.0, np.nan))
    samples = pools.take(pool[at]).reset_index(drop=True).assign(**{SAMPLED_AT: from_epoch_us(moment[at])})
    ordered = samples.sort_values([SAMPLED_AT, *POOL_KEY]).index.to_numpy()
    return samples.take(ordered).reset_index(drop=True), labels[ordered]


def _usual_distance(pool: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """The median distance of each pool's observations, by its number, 0 for a single one; sorted by pool and time."""
    same = pool[1:] == pool[:-1]
    medians = pd.Series(np.diff(moment)[same]).groupby(pool[1:][same]).median()
    return medians.reindex(np.arange(pool.max(initial=-1) + 1), fill_value=0.0).to_numpy(dtype=float)


def _run_ends(pool: np.ndarray, moment: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The row with which the watch that each row belongs to ends; rows sorted by pool and time, (n,)."""
    goes_on = (pool[1:] == pool[:-1]) & (np.diff(moment) <= GAP_FACTOR * usual[pool[1:]])
    ends = np.flatnonzero(np.append(~goes_on, True))
    return ends[np.searchsorted(ends, np.arange(len(pool)))]


def _next_failure(pool: np.ndarray, moment: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """When the pool of each row next fails, from that row on; NEVER if it does not; rows sorted by pool and time."""
    row = np.arange(len(pool))
    following = np.minimum.accumulate(np.where(failed, row, len(row))[::-1])[::-1]
    known = np.minimum(following, len(row) - 1)
    return np.where((following < len(row)) & (pool[known] == pool), moment[known], NEVER)
