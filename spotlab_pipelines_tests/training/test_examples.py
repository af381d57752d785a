"""Examples know the past alone, and count only what was watched to the end."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.features.engine import compute_features
from spotlab_pipelines.features.tables import assemble_pools
from spotlab_pipelines.features.windows import price_windows
from spotlab_pipelines.training.examples import build_examples, label, sample_instants
from spotlab_pipelines_tests.features.examples import LINUX, NOW, WEEK
from spotlab_pipelines_tests.features.seeded import seeded_market

NAN = np.nan
END = pd.Timestamp(NOW)
THREE_HOURS = timedelta(hours=3)


def exposures(*rows: tuple[float, float | None, bool], pool: tuple[str, str] = ("m0.s0", "use1-az1")) -> pd.DataFrame:
    """Spot requests from (hours before NOW that it started, that it ended, whether EC2 interrupted it)."""
    frame = pd.DataFrame(
        {
            "region": pd.Series(["us-east-1"] * len(rows), dtype="str"),
            "instance_type": pd.Series([pool[0]] * len(rows), dtype="str"),
            "az_id": pd.Series([pool[1]] * len(rows), dtype="str"),
            "product": pd.Series([LINUX] * len(rows), dtype="str"),
            "started_at": [END - pd.Timedelta(hours=row[0]) for row in rows],
            "ended_at": [None if row[1] is None else END - pd.Timedelta(hours=row[1]) for row in rows],
            "interrupted": [row[2] for row in rows],
        }
    )
    for name in ("started_at", "ended_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("us")
    return frame


def samples(*hours_before: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "exposure": 0,
            "sampled_at": pd.to_datetime([END - pd.Timedelta(hours=h) for h in hours_before], utc=True).as_unit("us"),
        }
    )


def test_instants_are_multiples_while_the_instance_ran():
    # NOW is 12:00, so the grid is …, 3:00, 6:00, 9:00, 12:00.
    found = sample_instants(
        exposures((10.0, 2.5, True), (4.0, None, False), (100.0, 50.0, False)),
        every=THREE_HOURS,
        not_before=END - pd.Timedelta(hours=20),
        until=END,
    )
    assert found["exposure"].tolist() == [0, 0, 0, 1]
    hours = ((END - found["sampled_at"]) / pd.Timedelta(hours=1)).tolist()
    assert hours == [9.0, 6.0, 3.0, 3.0]


def test_an_interruption_counts_at_the_horizons_it_falls_into():
    found = label(exposures((20.0, 3.0, True)), samples(9, 5, 3.5), horizons_h=(1, 6, 12), until=END)
    assert found.tolist() == [[0, 1, 1], [0, 1, 1], [1, 1, 1]]
    exactly = label(exposures((20.0, 3.0, True)), samples(9, 4), horizons_h=(1, 6, 12), until=END)
    assert exactly.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_an_instance_that_its_owner_stopped_is_censored_never_a_survivor():
    found = label(exposures((20.0, 3.0, False)), samples(9, 3.5), horizons_h=(1, 6, 12), until=END)
    np.testing.assert_array_equal(found, [[0, NAN, NAN], [NAN, NAN, NAN]])


def test_an_instance_that_still_runs_is_censored_beyond_what_was_seen():
    found = label(exposures((20.0, None, False)), samples(9, 0.5), horizons_h=(1, 6, 12), until=END)
    np.testing.assert_array_equal(found, [[0, 0, NAN], [NAN, NAN, NAN]])


def test_what_became_of_an_instance_after_the_end_is_not_asked(world: dict):
    found = examples(world, exposures((30.0, None, False)))
    hours = (END - found["sampled_at"]) / pd.Timedelta(hours=1)
    for horizon in (1, 6, 12):
        np.testing.assert_array_equal(found[f"interrupted_{horizon}h"].isna(), hours <= horizon)


@pytest.fixture(scope="module")
def world() -> dict:
    seeded = seeded_market(families=2, sizes=2, zones=2, changes_per_pool=60, now=NOW)
    return {"changes": seeded.changes, "advisor": lambda _: seeded.advisor, "on_demand": lambda _: seeded.on_demand}


def examples(world: dict, requests: pd.DataFrame, **changed: object) -> pd.DataFrame:
    base = {
        "every": THREE_HOURS,
        "window": WEEK,
        "not_before": END - pd.Timedelta(days=2),
        "until": END,
        "horizons_h": (1, 6, 12),
        "open_bucket_rate": 0.3,
    }
    return build_examples(requests, **{**world, **base, **changed})


def test_features_are_those_that_serving_would_have_computed(world: dict):
    found = examples(world, exposures((30.0, 1.0, True)))
    assert len(found) == 10
    instant = found["sampled_at"][4]
    windows = price_windows(world["changes"], instant.to_pydatetime(), WEEK)
    pools = assemble_pools(windows, windows, advisor=world["advisor"](instant), on_demand=world["on_demand"](instant))
    served, _ = compute_features(pools, open_bucket_rate=0.3)
    expected = served[(served["instance_type"] == "m0.s0") & (served["az_id"] == "use1-az1")].iloc[0]
    for name in ("price_position", "discount_depth", "family_stress_index", "historic_interrupt_rate"):
        assert found[name][4] == expected[name]


def test_what_happened_later_changes_no_feature(world: dict):
    requests = exposures((30.0, 1.0, True), (20.0, None, False))
    everything = examples(world, requests)
    names = ["sampled_at", "price_position", "discount_depth", "family_stress_index", "historic_interrupt_rate"]
    for hours in (25, 12, 4):
        instant = END - pd.Timedelta(hours=hours)
        past = world["changes"][world["changes"]["changed_at"] <= instant]
        known = examples({**world, "changes": past}, requests)
        mine, theirs = (frame[frame["sampled_at"] <= instant][names] for frame in (known, everything))
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=True)


def test_what_the_advisor_says_counts_from_its_scrape_on(world: dict):
    """Its rate is of the month before: said of an instant in that month, it would be the answer."""
    scraped = END - pd.Timedelta(hours=12)
    before = world["advisor"](None)
    after = before.assign(interrupt_rate_min=0.10, interrupt_rate_max=0.11)
    found = examples({**world, "advisor": lambda at: after if at >= scraped else before}, exposures((30.0, 1.0, True)))
    late = (found["sampled_at"] >= scraped).to_numpy()
    assert 0 < late.sum() < len(found)
    np.testing.assert_array_equal(np.isclose(found["historic_interrupt_rate"], 0.105), late)


def test_an_exposure_in_a_pool_without_features_gives_no_example(world: dict):
    assert examples(world, exposures((30.0, 1.0, True), pool=("x1.large", "use1-az1"))).empty
    assert examples(world, exposures()).empty


def test_without_an_instant_there_are_no_examples_but_all_columns(world: dict):
    """An instance that ran between two instants of the grid teaches nothing; the columns are those of any examples."""
    columns = list(examples(world, exposures((30.0, 1.0, True))).columns)
    assert {"price_position", "historic_interrupt_rate", "interrupted_6h"} <= set(columns)
    for nothing in (exposures((2.5, 1.0, True)), exposures()):
        found = examples(world, nothing)
        assert found.empty
        assert list(found.columns) == columns
