"""A registered version against a trace: read, predicted by the version's own adapter, judged by backtest.py."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.traces import read_trace
from spotlab_pipelines.training.backtest import (
    ADVISOR,
    CONSTANT,
    TRAILING,
    advisor_forecast,
    judge,
    pools_of,
    recalibrated_forecasts,
    trailing_share,
)
from spotlab_pipelines.training.data import check_bounds, collect_trace
from spotlab_pipelines.training.fitting import Examples
from spotlab_pipelines.training.trace_examples import check_spec
from spotlab_pipelines.training.unseen import check_rows_unseen, check_unseen

if TYPE_CHECKING:
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.history import Progress


def backtest_version(
    settings: Settings,
    registry: ModelRegistry,
    archive: Archive,
    version: str,
    *,
    trace: str,
    since: datetime,
    until: datetime | None = None,
    recalibrate_days: float | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """What a version, whatever its status, and what needs no model would have said of a trace from `since` on.

    Args:
        recalibrate_days: the version is recalibrated on so many first days, which are not judged: once, and daily from
            then on, each as a forecaster of its own.

    Returns:
        See `judge`. Advisor-rate is among the forecasters where the archive's Advisor lists all of the trace's types.

    Raises:
        ModelUnknown, NotFound: no such version or trace.
        ModelTampered: the version's files are not the registered ones.
        InvalidInput: the version was fitted on rows of this trace from `since` on, whatever it was called then, or its
            feature spec needs prices.
        NotEnoughData: too few interruptions to judge by.
    """
    say = progress or (lambda _: None)
    check_bounds(since, until)
    row = registry.find(version)
    # Before what takes its time: the trace is read and the features are computed first of all.
    check_spec(row.feature_spec, version)
    check_unseen(settings, registry, row, trace, since)
    data = collect_trace(
        settings, archive, trace, feature_spec=row.feature_spec, since=since, until=until, progress=say
    )
    check_rows_unseen(settings, registry, archive, row, data.examples)
    examples, pools = Examples.of(data.examples, row.feature_spec, row.horizons_h), pools_of(data.examples)
    say(f"predicting {len(examples)} rows with {version}")
    said = registry.open(row).predict_batch(data.examples, row.feature_spec)
    forecasts = {version: said}
    if recalibrate_days is not None:
        begin_us = pd.Timestamp(since).value // 1000
        first_us = max(begin_us, int(examples.places.at.min()))
        forecasts |= recalibrated_forecasts(said, examples, since_us=first_us, days=recalibrate_days)
    usual = [row.metrics.get(f"base_rate_{horizon}h", np.nan) for horizon in row.horizons_h]
    constant = np.where(np.isnan(usual), np.nanmean(examples.labels, axis=0), usual)
    share = trailing_share(read_trace(archive, trace), examples.places, pools)
    forecasts[CONSTANT] = np.tile(constant, (len(examples), 1))
    forecasts[TRAILING] = np.tile(share[:, None], len(row.horizons_h))
    advised = _advised(settings, archive, pools, row.horizons_h)
    if advised is None:
        say("the archive's Advisor does not list the trace's types: no advisor-rate to compare with")
    else:
        forecasts[ADVISOR] = advised
    return judge(forecasts, examples)


def _advised(
    settings: Settings, archive: Archive, pools: pd.DataFrame, horizons_h: tuple[int, ...]
) -> np.ndarray | None:
    regions, types = sorted(set(pools["region"])), sorted(set(pools["instance_type"]))
    try:
        advisor = MarketHistory(archive).advisor(regions, types)
    except NotFound:
        return None
    return advisor_forecast(advisor, pools, horizons_h=horizons_h, open_bucket_rate=settings.open_bucket_rate)
