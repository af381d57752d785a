"""Registered versions against a trace: read, predicted by each version's own adapter, judged by backtest.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.errors import InvalidInput, NotFound
from spotlab_pipelines.experiments.scorecards import region_days
from spotlab_pipelines.features.rows import SAMPLED_AT
from spotlab_pipelines.inference.package_code import package_errors
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.trace_reading import read_trace
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
from spotlab_pipelines.training.data import TrainingData, check_bounds, collect_trace
from spotlab_pipelines.training.fitting import Examples
from spotlab_pipelines.training.trace_examples import check_spec
from spotlab_pipelines.training.unseen import check_rows_unseen, check_unseen

if TYPE_CHECKING:
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.history import Progress


@dataclass(frozen=True)
class Backtest:
    """What several versions, and what needs no model, said of the same rows of a trace.

    Attributes:
        versions: those that were asked, in that order.
        data: the rows as they are kept in the archive.
        examples: the same, with their outcomes.
        forecasts: by forecaster (n, n_horizons); NaN in the days of a recalibration, which nobody is judged on.
        judged: see `judge`; gains are over the first version.
        params: what was asked for, by name.
    """

    versions: list[ServingVersion]
    data: TrainingData
    examples: Examples
    forecasts: dict[str, np.ndarray]
    judged: pd.DataFrame
    params: dict[str, str]


def backtest_versions(
    settings: Settings,
    registry: ModelRegistry,
    archive: Archive,
    versions: Sequence[str],
    *,
    trace: str,
    since: datetime,
    until: datetime | None = None,
    recalibrate_days: float | None = None,
    progress: Progress | None = None,
) -> Backtest:
    """What versions, whatever their status, and what needs no model would have said of a trace from `since` on.

    Args:
        recalibrate_days: each version is recalibrated on so many first days, which are not judged: once, and daily from
            then on, each as a forecaster of its own.

    Returns:
        All on the same rows. `constant` says the base rate of what the first version was fitted on. Advisor-rate is
        among the forecasters where the archive's Advisor lists all of the trace's types.

    Raises:
        ModelUnknown, NotFound: no such version or trace.
        ModelTampered: a version's files are not the registered ones.
        InvalidInput: a version was fitted on rows of this trace from `since` on, whatever it was called then, its
            feature spec needs prices, or it is named twice.
        NotEnoughData: too few interruptions to judge by.
    """
    say = progress or (lambda _: None)
    check_bounds(since, until)
    if len(set(versions)) < len(versions):
        raise InvalidInput(f"Expected different versions, got {', '.join(versions)}.")
    rows = [registry.find(version) for version in versions]
    # Before what takes its time: the trace is read and the features are computed first of all.
    for row in rows:
        check_spec(row.feature_spec, row.version)
        check_unseen(settings, registry, row, trace, since)
    data = collect_trace(
        settings, archive, trace, feature_spec=rows[0].feature_spec, since=since, until=until, progress=say
    )
    examples = Examples.of(data.examples, data.feature_spec, rows[0].horizons_h)
    since_us = max(pd.Timestamp(since).value // 1000, int(examples.places.at.min()))
    forecasts: dict[str, np.ndarray] = {}
    for row in rows:
        check_rows_unseen(settings, registry, archive, row, data.examples)
        say(f"predicting {len(examples)} rows with {row.version}")
        with package_errors(row.version):
            said = forecasts[row.version] = registry.open(row).predict_batch(data.examples, data.feature_spec)
        if recalibrate_days is not None:
            forecasts |= recalibrated_forecasts(row.version, said, examples, since_us=since_us, days=recalibrate_days)
    forecasts |= _without_a_model(settings, archive, rows[0], data, examples, say)
    judged = judge(forecasts, examples, region_days(data.examples["region"], data.examples[SAMPLED_AT]))
    days = {} if recalibrate_days is None else {"recalibrate_days": f"{recalibrate_days:g}"}
    return Backtest(rows, data, examples, forecasts, judged, {**data.params(), **days})


def _without_a_model(
    settings: Settings,
    archive: Archive,
    first: ServingVersion,
    data: TrainingData,
    examples: Examples,
    say: Progress,
) -> dict[str, np.ndarray]:
    """What needs no model, by forecaster (n, n_horizons)."""
    pools, horizons_h = pools_of(data.examples), first.horizons_h
    usual = [first.metrics.get(f"base_rate_{horizon}h", np.nan) for horizon in horizons_h]
    constant = np.where(np.isnan(usual), np.nanmean(examples.labels, axis=0), usual)
    share = trailing_share(read_trace(archive, data.source), examples.places, pools)
    found = {
        CONSTANT: np.tile(constant, (len(examples), 1)),
        TRAILING: np.tile(share[:, None], len(horizons_h)),
    }
    advised = _advised(settings, archive, pools, horizons_h)
    if advised is None:
        say("the archive's Advisor does not list the trace's types: no advisor-rate to compare with")
        return found
    return found | {ADVISOR: advised}


def _advised(
    settings: Settings, archive: Archive, pools: pd.DataFrame, horizons_h: tuple[int, ...]
) -> np.ndarray | None:
    regions, types = sorted(set(pools["region"])), sorted(set(pools["instance_type"]))
    try:
        advisor = MarketHistory(archive).advisor(regions, types)
    except NotFound:
        return None
    return advisor_forecast(advisor, pools, horizons_h=horizons_h, open_bucket_rate=settings.open_bucket_rate)
