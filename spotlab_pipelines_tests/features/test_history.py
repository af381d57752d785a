"""The history features: by hand, against the obvious way, and untouched by what lies later, elsewhere or too far."""

from __future__ import annotations

import itertools
import math
import tempfile
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotlab_pipelines.errors import FeatureMissing, FeatureOutOfRange, InvalidInput
from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.matrix import feature_columns
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.features.specs import V2_HISTORY
from spotlab_pipelines.features.timeline import Timeline
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import HISTORY_DAYS, POOL_OBSERVATIONS
from spotlab_pipelines_tests.features.examples import NOW
from spotlab_pipelines_tests.features.observed import ZONES, drawn_observations, observations, places

HOUR = timedelta(hours=1)


def features_of(pools: pd.DataFrame, seen: pd.DataFrame, as_of: datetime | None = None) -> pd.DataFrame:
    features, excluded = compute_features(pools, "v2-history", open_bucket_rate=0.3, past=Past.of(seen, as_of=as_of))
    assert excluded.empty
    return features


def one(*rows: tuple[str, float, bool]) -> pd.Series:
    """The features of zone 1 at NOW."""
    return features_of(places(ZONES[0]), observations(*rows), as_of=NOW).iloc[0]


def test_times_since_the_last_failure_and_in_the_present_state():
    available = one((ZONES[0], 9, True), (ZONES[0], 3, False), (ZONES[0], 1, True))
    assert available["log_hours_without_failure"] == pytest.approx(math.log1p(3))
    assert available["log_hours_failing"] == 0.0
    assert available["log_hours_since_observation"] == pytest.approx(math.log1p(1))
    failing = one((ZONES[0], 9, True), (ZONES[0], 3, False), (ZONES[0], 2, False))
    assert failing["log_hours_without_failure"] == pytest.approx(math.log1p(2))
    assert failing["log_hours_failing"] == pytest.approx(math.log1p(9))


def test_a_pool_that_never_failed_counts_from_its_first_observation():
    assert one((ZONES[0], 50, True), (ZONES[0], 2, True))["log_hours_without_failure"] == pytest.approx(math.log1p(50))


def test_a_short_window_leans_on_the_longer_ones_and_the_longest_on_the_assumption():
    week = (1 + 3 * 0.05) / (2 + 3)
    features = one((ZONES[0], 100, False), (ZONES[0], 5, True))
    assert features["failure_share_168h"] == pytest.approx(week)
    assert features["failure_share_24h"] == pytest.approx(3 * week / 4)
    assert features["failure_share_6h"] == pytest.approx(3 * (3 * week / 4) / 4)
    assert features["failure_share_1h"] == pytest.approx(features["failure_share_6h"]), "nothing seen for an hour"


def test_losses_per_hour_count_what_was_taken_away_not_what_stayed_away():
    features = one((ZONES[0], 8, True), (ZONES[0], 4, False), (ZONES[0], 3, False), (ZONES[0], 2, True))
    # Within 6 h: one loss, one of three observations available, the whole window since the first observation.
    assert features["log_losses_per_hour_6h"] == pytest.approx(math.log1p(1 / (1 + 6 / 3)))
    assert features["log_losses_per_hour_24h"] == pytest.approx(math.log1p(1 / (1 + 8 * 2 / 4)))


def test_a_failure_after_a_week_of_silence_is_no_loss():
    """Else an observation that is too old to count for anything else would make one of it."""
    assert one((ZONES[0], 170, True), (ZONES[0], 2, False))["log_losses_per_hour_6h"] == pytest.approx(math.log1p(1))
    assert one((ZONES[0], 171, True), (ZONES[0], 2, False))["log_losses_per_hour_6h"] == 0.0
    assert one((ZONES[0], 24 * 31, True), (ZONES[0], 2, False))["log_losses_per_hour_6h"] == 0.0


def test_a_pool_that_was_never_observed_says_so_and_is_not_excluded():
    features = features_of(places(*ZONES), observations((ZONES[0], 1, True)), as_of=NOW).set_index("az_id")
    assert features["history_missing"].tolist() == [0.0, 1.0, 1.0]
    unseen = features.iloc[2]
    assert unseen["failure_share_1h"] == 0.05
    assert unseen["log_hours_without_failure"] == pytest.approx(math.log1p(24))
    nothing = features_of(places(*ZONES), observations(), as_of=NOW)
    assert nothing["history_missing"].tolist() == [1.0, 1.0, 1.0]


def test_the_hour_of_the_week_begins_on_monday_in_utc():
    monday = pd.Timestamp("2026-03-09T00:00", tz="UTC").to_pydatetime()
    features = features_of(places(ZONES[0]), observations(), as_of=monday).iloc[0]
    assert features["hour_of_week_sin"] == 0.0
    assert features["hour_of_week_cos"] == 1.0
    later = features_of(places(ZONES[0]), observations(), as_of=monday + 42 * HOUR).iloc[0]
    assert later["hour_of_week_sin"] == pytest.approx(1.0)


def test_what_a_spec_needs_and_is_not_there_is_named():
    with pytest.raises(FeatureMissing, match="v2-history looks at the past"):
        compute_features(places(ZONES[0]), "v2-history", open_bucket_rate=0.3)
    with pytest.raises(FeatureMissing, match="needs pool observations"):
        compute_features(places(ZONES[0]), "v2-history", open_bucket_rate=0.3, past=Past(as_of=NOW))
    with pytest.raises(FeatureMissing, match="needs an instant"):
        features_of(places(ZONES[0]), observations())
    with pytest.raises(InvalidInput, match="time zone"):
        features_of(places(ZONES[0]), observations(), as_of=NOW.replace(tzinfo=None))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5])
def test_a_value_out_of_range_names_feature_and_row(bad: float):
    features = features_of(places(*ZONES), observations((ZONES[1], 1, False)), as_of=NOW)
    features.loc[1, "log_losses_per_hour_6h"] = bad
    with pytest.raises(FeatureOutOfRange, match=rf"log_losses_per_hour_6h.*got row 1 = {bad:g}"):
        feature_columns(features, V2_HISTORY)


def obvious(seen: pd.DataFrame, zone: str, at: datetime) -> dict[str, float]:
    """The same by going through the rows one by one."""
    mine = seen[seen["az_id"] == zone]
    ages = [(at - moment.to_pydatetime()).total_seconds() / 3600 for moment in pd.DatetimeIndex(mine["observed_at"])]
    facts = {(age, bool(ok)) for age, ok in zip(ages, mine["available"], strict=True) if 0 <= age < 24 * HISTORY_DAYS}
    # Oldest first; of two at one time the failure counts as the later.
    rows = sorted(facts, key=lambda fact: (-fact[0], not fact[1]))
    if not rows:
        return {"history_missing": 1.0}
    first, (latest, available_now) = rows[0][0], rows[-1]
    failures, successes = ([age for age, ok in rows if ok is wanted] for wanted in (False, True))
    result = {
        "history_missing": 0.0,
        "log_hours_without_failure": math.log1p(min(failures, default=first)),
        "log_hours_failing": 0.0 if available_now else math.log1p(min(successes, default=first)),
        "log_hours_since_observation": math.log1p(latest),
    }
    share = 0.05
    for window in (168, 24, 6, 1):
        inside = [ok for age, ok in rows if age < window]
        share = (inside.count(False) + 3 * share) / (len(inside) + 3)
        result[f"failure_share_{window}h"] = share
    for window in (6, 24):
        inside = [ok for age, ok in rows if age < window]
        losses = sum(
            was_ok and not ok and age < window and before - age <= 168
            for (before, was_ok), (age, ok) in itertools.pairwise(rows)
        )
        available_h = (inside.count(True) / len(inside) if inside else 0.0) * min(first, window)
        result[f"log_losses_per_hour_{window}h"] = math.log1p(losses / (1 + available_h))
    return result


@settings(max_examples=40)
@given(seen=drawn_observations(), back=st.integers(0, 200))
def test_agrees_with_the_obvious_way(seen: pd.DataFrame, back: int):
    at = NOW - back * HOUR / 2
    features = features_of(places(*ZONES), seen, as_of=at)
    feature_columns(features, V2_HISTORY)
    for row in features.to_dict("records"):
        for name, value in obvious(seen, row["az_id"], at).items():
            assert row[name] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=40)
@given(seen=drawn_observations(), later=drawn_observations(), back=st.integers(0, 200), seed=st.integers(0, 99))
def test_neither_order_nor_the_future_nor_the_far_past_nor_repeats_change_a_bit(
    seen: pd.DataFrame, later: pd.DataFrame, back: int, seed: int
):
    at = NOW - back * HOUR / 2
    expected = features_of(places(*ZONES), seen[seen["observed_at"] <= at], as_of=at)
    future = later.assign(observed_at=later["observed_at"] + timedelta(days=60))
    ancient = later.assign(observed_at=later["observed_at"] - timedelta(days=60 + back))
    elsewhere = later.assign(region=pd.Series(["aa-east-1"] * len(later), dtype="str"))
    mixed = pd.concat([seen, future, ancient, elsewhere, seen]).sample(frac=1, random_state=seed)
    pools = places(*ZONES).sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(features_of(pools, mixed, as_of=at), expected, check_exact=True)


@settings(max_examples=15)
@given(seen=drawn_observations(), delays=st.lists(st.integers(0, 90), min_size=25, max_size=25))
def test_many_instants_at_once_are_each_what_it_would_be_alone_and_nothing_is_known_before_its_time(
    seen: pd.DataFrame, delays: list[int]
):
    known = seen["observed_at"] + pd.to_timedelta(np.array(delays[: len(seen)]) * 30, unit="min")
    seen = seen.assign(known_at=known.dt.as_unit("us"))
    instants = [float(hours) for hours in (0, 1, 2.5, 6, 24, 24.5, 100)]
    together = features_of(pd.concat([places(*ZONES, hours=hours) for hours in instants], ignore_index=True), seen)
    assert together["sampled_at"].is_monotonic_increasing
    for hours in instants:
        at = NOW - hours * HOUR
        then = seen[seen["known_at"] <= at].drop(columns="known_at")
        alone = features_of(places(*ZONES), then, as_of=at)
        part = together[together["sampled_at"] == at].drop(columns="sampled_at").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, alone, check_exact=True)


@settings(max_examples=8)
@given(
    seen=drawn_observations(), delays=st.lists(st.integers(0, 90), min_size=25, max_size=25), back=st.integers(0, 99)
)
def test_the_archive_as_of_an_instant_gives_the_floats_of_what_was_known_then(
    seen: pd.DataFrame, delays: list[int], back: int
):
    known = seen["observed_at"] + pd.to_timedelta(np.array(delays[: len(seen)]) * 30, unit="min")
    facts = seen.assign(**{name: pd.Series(["probe"] * len(seen), dtype="str") for name in ("observation", "source")})
    at = NOW - back * HOUR / 2
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(folder)
        # As scrapes do, each brings what is new to it; a fact that two of them tell counts from the first.
        for number, (fetched_at, rows) in enumerate(facts.groupby(known.dt.ceil("12h"))):
            moment = pd.Timestamp(str(fetched_at)).to_pydatetime()
            archive.write_scrape(
                kind=POOL_OBSERVATIONS, region="us-east-1", fetched_at=moment, scrape_id=UUID(int=number), frame=rows
            )
        start = at - timedelta(days=HISTORY_DAYS)
        found = MarketHistory(archive).observations(["us-east-1"], start=start, end=at, known_at=at)
    then = seen[known.dt.ceil("12h") <= at]
    expected = features_of(places(*ZONES), then, as_of=at)
    pd.testing.assert_frame_equal(features_of(places(*ZONES), found, as_of=at), expected, check_exact=True)


def test_a_timeline_whose_moments_do_not_fit_beside_its_pools_finds_the_same():
    generator = np.random.default_rng(3)
    pool = np.sort(generator.integers(0, 50, 400))
    moment = generator.integers(0, 2**45, 400)
    moment = moment[np.lexsort((moment, pool))]
    wide = Timeline.of(pool * 2**18, moment)
    assert wide.levels is not None
    asked, at = generator.integers(0, 50, 300), generator.integers(-5, 2**45, 300)
    narrow = Timeline.of(pool, moment)
    assert narrow.levels is None
    np.testing.assert_array_equal(wide.end(asked * 2**18, at), narrow.end(asked, at))
    np.testing.assert_array_equal(wide.start(asked * 2**18), narrow.start(asked))
