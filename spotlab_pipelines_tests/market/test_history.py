"""What was known when: exactly what scrapes had brought by then, each change once, and never what came later."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.changes import Changes
from spotlab_pipelines.market.compaction import compact_archive
from spotlab_pipelines.market.fitting import Wanted
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS
from spotlab_pipelines.market.reading import new_facts
from spotlab_pipelines.market.records import covered_until, whole_scrapes
from spotlab_pipelines_tests.market.archived import (
    COVER,
    NOON,
    PRODUCT,
    REGION,
    SORTED,
    TYPES,
    Change,
    at,
    every_row,
    price_frame,
    scrape,
)

WINDOW = timedelta(hours=48)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"))


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(TYPES),
        st.sampled_from(["use1-az1", "use1-az2"]),
        st.integers(-90, 0).map(float),
        st.sampled_from([0.05, 0.06, 0.07]),
    ),
    max_size=12,
)
SCRAPES = st.lists(st.tuples(st.integers(-60, 0), CHANGES), min_size=1, max_size=3)


def known(changes: list[Change], fetched_h: float) -> list[Change]:
    return [change for change in changes if change[2] <= fetched_h]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(earlier=SCRAPES, later=SCRAPES, instant_h=st.integers(-60, 0))
def test_what_is_scraped_later_never_changes_what_was_known(earlier: list, later: list, instant_h: int):
    """Scrapes come in any order, and bring changes of any age."""
    with tempfile.TemporaryDirectory() as folder:
        archive, instant = Archive(folder), at(instant_h)
        history = MarketHistory(archive)
        window = {"start": instant - WINDOW, "end": instant, "known_at": instant}
        brought: list[Change] = []
        for number, (hour, changes) in enumerate(earlier):
            hour = min(hour, instant_h)
            brought += known(changes, hour)
            scrape(archive, number, at(hour), known(changes, hour))
        before = history.prices(COVER, **window)
        expected = Changes.of(price_frame(brought)).in_force(instant - WINDOW, instant).frame()
        pd.testing.assert_frame_equal(before, expected, check_exact=True)
        for number, (hour, changes) in enumerate(later, start=len(earlier)):
            hour = instant_h + 1 + abs(hour)
            scrape(archive, number, at(hour), known(changes, hour))
        pd.testing.assert_frame_equal(history.prices(COVER, **window), before, check_exact=True)
        compact_archive(archive, settle=timedelta(hours=2), now=at(instant_h + 9))
        pd.testing.assert_frame_equal(history.prices(COVER, **window), before, check_exact=True)
        if (Path(folder) / "scrapes/kind=spot_prices").exists():
            rows = every_row(archive)
            assert not rows.duplicated(SORTED).any()


def test_each_change_is_known_since_the_scrape_that_first_brought_it(archive: Archive):
    scrape(archive, 1, at(-2), [("m5.large", "use1-az1", -9, 0.05)])
    # The opening row that AWS repeats is not stored again.
    new = scrape(archive, 2, at(-1), [("m5.large", "use1-az1", -9, 0.05), ("m5.large", "use1-az1", -1.5, 0.06)])
    assert new["spot_price_usd_per_hour"].tolist() == [0.06]
    rows = every_row(archive).sort_values("changed_at")
    assert rows["fetched_at"].tolist() == [at(-2), at(-1)]
    history = MarketHistory(archive)
    for known_at, prices in [(at(-3), []), (at(-2), [0.05]), (at(-1.01), [0.05]), (at(-1), [0.05, 0.06])]:
        found = history.prices(COVER, start=at(-24), end=at(0), known_at=known_at)
        assert found["spot_price_usd_per_hour"].tolist() == prices
    assert len(history.prices(COVER, start=at(-24), end=at(-1.6))) == 1


def test_prices_come_with_what_held_when_the_window_opened(archive: Archive):
    rows = [
        ("m5.large", "use1-az1", hour, price) for hour, price in [(-50, 0.01), (-30, 0.02), (-24, 0.03), (-1, 0.04)]
    ]
    rows += [
        ("m5.xlarge", "use1-az1", -40, 0.09),
        ("m5.xlarge", "use1-az2", 0, 0.10),
        ("m5-flex.large", "use1-az1", 1, 1),
    ]
    scrape(archive, 1, at(2), rows)
    found = MarketHistory(archive).prices(COVER, start=at(-24), end=at(0))
    assert found["instance_type"].tolist() == ["m5.large", "m5.large", "m5.xlarge", "m5.xlarge"]
    assert found["spot_price_usd_per_hour"].tolist() == [0.03, 0.04, 0.09, 0.10]


def test_only_what_is_asked_for_is_read_and_families_come_in_the_caches_order(archive: Archive):
    scrape(archive, 1, at(0), [(name, "use1-az1", -1, 0.05) for name in TYPES])
    history, window = MarketHistory(archive), {"start": at(-24), "end": at(0)}
    assert history.prices(COVER, **window)["instance_type"].tolist() == ["m5.large", "m5.xlarge", "m5-flex.large"]
    one = {(REGION, "m5"): (("m5.xlarge",), (PRODUCT,))}
    assert history.prices(one, **window)["instance_type"].tolist() == ["m5.xlarge"]
    assert history.prices({(REGION, "m5"): (TYPES, ("Windows",))}, **window).empty
    assert history.prices({}, **window).empty
    assert history.prices({("eu-west-1", "m5"): (TYPES, (PRODUCT,))}, **window).empty


def test_a_family_that_was_not_scraped_by_then_is_named(archive: Archive):
    scrape(archive, 1, at(0), [("m5.large", "use1-az1", -1, 0.05)])
    cover = {**COVER, (REGION, "c5"): (("c5.large",), (PRODUCT,))}
    with pytest.raises(NotFound, match="no scrape of all wanted prices of c5 in us-east-1"):
        MarketHistory(archive).price_scrapes(cover, at(1))
    with pytest.raises(NotFound, match="of m5 in us-east-1 at or before 2026-11-02T11:00"):
        MarketHistory(archive).price_scrapes(COVER, at(-1))
    wanted = Wanted(types={}, families={}, products={})
    with pytest.raises(NotFound, match="no scrape of spot_advisor"):
        MarketHistory(archive).market_at(wanted, t=at(0), window=WINDOW)


def test_a_scrape_begins_where_the_newest_that_covers_ended(archive: Archive):
    scrape(archive, 1, at(-30), [])
    scrape(archive, 2, at(-3), [])
    wanted = {(REGION, "m5"): (("m5.large", "m5.metal"), (PRODUCT, "Windows"), ("use1-az1",))}
    until = {"until": at(0), "since": at(-48)}
    assert covered_until(archive, wanted, **until) == {(REGION, "m5.large", PRODUCT): at(-3)}
    assert covered_until(archive, wanted, until=at(-4), since=at(-48)) == {(REGION, "m5.large", PRODUCT): at(-30)}
    assert covered_until(archive, wanted, until=at(0), since=at(-2)) == {}
    elsewhere = {(REGION, "m5"): (("m5.large",), (PRODUCT,), ("use1-az1", "use1-az6"))}
    assert covered_until(archive, elsewhere, **until) == {}


def test_only_files_that_will_stay_count_for_what_need_not_be_stored_again(archive: Archive):
    scrape(archive, 1, at(-3), [("m5.large", "use1-az1", -9, 0.05)])
    scrape(archive, 2, at(-1), [("m5.large", "use1-az1", -1, 0.06)])
    running = price_frame([("m5.large", "use1-az1", 0, 0.07)])
    path = archive.write_scrape(kind="spot_prices", region=REGION, fetched_at=at(0), scrape_id="0" * 32, frame=running)
    files = {file.fetched_at: file for file in archive.scrape_files("spot_prices")}
    counts = whole_scrapes(archive, now=at(0.1), settle=timedelta(hours=2))
    assert [counts(files[moment]) for moment in (at(-3), at(-1), at(0))] == [True, True, False]
    later = whole_scrapes(archive, now=at(3), settle=timedelta(hours=2))
    assert later(files[at(0)])
    # A reader takes it as it is: the file is whole.
    assert len(MarketHistory(archive).prices(COVER, start=at(-24), end=at(1))) == 3
    archive.remove(path)


def test_observations_are_facts_too(archive: Archive):
    rows = price_frame([("m5.large", "use1-az1", hour, 1) for hour in (-3, -2, -2, -1)])
    frame = (
        rows.drop(columns=["changed_at", "spot_price_usd_per_hour"])
        .assign(
            observed_at=rows["changed_at"], available=[True, False, False, True], observation="probe", source="import"
        )
        .astype({"observation": "str", "source": "str"})
    )
    for number, fetched_at in enumerate([at(0), at(1)]):
        new = new_facts(archive, POOL_OBSERVATIONS, frame.head(2 + 2 * number))
        assert len(new) == [2, 1][number]
        archive.write_scrape(
            kind=POOL_OBSERVATIONS, region=REGION, fetched_at=fetched_at, scrape_id=f"{number}" * 32, frame=new
        )
    history = MarketHistory(archive)
    found = history.observations([REGION, "eu-west-1"], start=at(-3), end=at(0))
    assert found["available"].tolist() == [False, True]
    assert list(found.columns) == [*rows.columns[:4], "observed_at", "available", "kind", "source"]
    assert history.observations([REGION], start=at(-9), end=at(0), known_at=at(0))["observed_at"].tolist() == [
        at(-3),
        at(-2),
    ]
    assert history.observations([REGION], ["c5.large"], start=at(-9), end=at(0)).empty


def test_changes_are_sorted_once_each_whatever_their_order():
    rows = [(name, "use1-az1", hour, price) for name in TYPES for hour in (-2, -1) for price in (0.05, 0.06)]
    frame = price_frame(rows)
    expected = Changes.of(frame)
    shuffled = Changes.of(pd.concat([frame, frame]).sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(shuffled.frame(), expected.frame(), check_exact=True)
    assert (np.diff(expected.pool) >= 0).all()
    assert len(Changes.of(frame.iloc[:0]).frame()) == 0
    assert len(expected.not_in(Changes.of(frame.head(5))).pool) == len(frame) - 5
    assert at(0) == NOON
