"""Merging the archive's files: nothing that was known when changes, whenever the process is killed."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spotlab_pipelines.errors import IntegrityError
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.compaction import compact_archive
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.layout import KINDS, RECORDS, SPOT_ADVISOR, SPOT_PRICES
from spotlab_pipelines.market.records import RecordEntry, covered_until, record_frame
from spotlab_pipelines_tests.market.archived import (
    COVER,
    REGION,
    SORTED,
    TYPES,
    at,
    every_row,
    price_frame,
    scrape,
)

SETTLE = timedelta(hours=2)
INSTANTS = [at(hours) for hours in (-7, -6, -5, -3, -1, 0, 30)]


class Killed(BaseException):
    """As kill -9: nothing after it happens."""


class Mortal(Archive):
    """An archive whose process is killed at its nth writing or removing, before or after it."""

    def __init__(self, url: str, dies_at: int, *, after: bool) -> None:
        super().__init__(url)
        self.left, self.after = dies_at, after

    def _step(self, work: Any) -> None:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        work()
        if self.left < 0:
            raise Killed

    def write_file(self, path: str, data: Any) -> None:
        self._step(lambda: super(Mortal, self).write_file(path, data))

    def remove(self, path: str) -> None:
        self._step(lambda: super(Mortal, self).remove(path))


def advise(archive: Archive, number: int, hours: float, buckets: list[int]) -> None:
    """What a scrape of the Advisor does to the archive, with only the columns that matter here."""
    frame = pd.DataFrame({"instance_type": pd.Series(["m5.large", "c5.large"], dtype="str"), "bucket": buckets})
    scrape_id = f"{number:032x}"
    for region in ("us-east-1", "eu-west-1"):
        archive.write_scrape(kind=SPOT_ADVISOR, region=region, fetched_at=at(hours), scrape_id=scrape_id, frame=frame)
    entries = [RecordEntry(region, 2) for region in ("us-east-1", "eu-west-1")]
    record = record_frame(SPOT_ADVISOR, entries)
    archive.write_scrape(kind=RECORDS, region=None, fetched_at=at(hours), scrape_id=scrape_id, frame=record)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Scrapes of two days: prices and the Advisor; one change was stored by two scrapes that ran side by side."""
    archive = Archive(str(tmp_path / "archive"))
    for number, hours in enumerate((-6, -5, -3, 30)):
        scrape(
            archive, number, at(hours), [(name, "use1-az1", hours - 1, 0.05 + number) for name in TYPES[: number + 1]]
        )
        advise(archive, 100 + number, hours, [number, 0])
    again = price_frame([(TYPES[0], "use1-az1", -7, 0.05)])
    archive.write_scrape(kind=SPOT_PRICES, region=REGION, fetched_at=at(-5.5), scrape_id="a" * 32, frame=again)
    return archive


def answers(archive: Archive) -> list[Any]:
    """All that the archive says of every instant."""
    history = MarketHistory(archive)
    told: list[Any] = []
    for instant in INSTANTS:
        prices = history.prices(COVER, start=at(-48), end=at(48), known_at=instant)
        told.append(prices.to_dict("list"))
        wanted = {key: (*asked, ("use1-az1",)) for key, asked in COVER.items()}
        told.append(covered_until(archive, wanted, until=instant, since=at(-99)))
        if instant >= at(-6):
            told.append(history.price_scrapes(COVER, instant))
            document = history.document(SPOT_ADVISOR, known_at=instant)
            told.append((document.origin, document.frame.drop(columns="fetched_at").to_dict("list")))
    return told


def counts(archive: Archive) -> dict[str, int]:
    return {kind: len(archive.scrape_files(kind)) for kind in KINDS}


def test_each_partition_becomes_one_file_and_nothing_that_was_known_changes(archive: Archive):
    before, rows = answers(archive), every_row(archive)
    report = compact_archive(archive, settle=SETTLE, now=at(50))
    assert answers(archive) == before
    assert counts(archive) == {
        SPOT_PRICES: 2,
        "pool_observations": 0,
        "pool_traces": 0,
        SPOT_ADVISOR: 4,
        "instance_catalogue": 0,
        RECORDS: 2,
    }
    assert (report.partitions, report.repeats_dropped, report.left_alone) == (5, 1, 0)
    merged = every_row(archive)
    assert not merged.duplicated(SORTED).any()
    expected = rows.sort_values("fetched_at").drop_duplicates(SORTED).sort_values(SORTED, ignore_index=True)
    pd.testing.assert_frame_equal(merged.sort_values(SORTED, ignore_index=True), expected)


def test_doing_it_again_changes_nothing_and_new_scrapes_join_the_merged_file(archive: Archive):
    compact_archive(archive, settle=SETTLE, now=at(50))
    files = {kind: archive.scrape_files(kind) for kind in KINDS}
    assert compact_archive(archive, settle=SETTLE, now=at(50)).files_merged == 0
    assert {kind: archive.scrape_files(kind) for kind in KINDS} == files
    scrape(archive, 9, at(31), [(TYPES[0], "use1-az2", 30, 0.5)])
    before = answers(archive)
    assert compact_archive(archive, settle=SETTLE, now=at(50)).partitions == 2
    assert answers(archive) == before
    assert counts(archive)[SPOT_PRICES] == 2


def test_files_that_a_running_scrape_may_still_remove_are_left_alone(archive: Archive):
    young = [file for kind in KINDS for file in archive.scrape_files(kind) if file.fetched_at > at(29)]
    report = compact_archive(archive, settle=SETTLE, now=at(31))
    assert report.left_alone == len(young) == 5
    assert {file for kind in KINDS for file in archive.scrape_files(kind)} >= set(young)
    assert compact_archive(archive, settle=timedelta(days=9), now=at(31)).files_merged == 0


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_is_killed_at_any_point_changes_nothing_that_was_known(archive: Archive, after: bool):
    before, dies_at = answers(archive), 0
    while True:
        mortal = Mortal(archive.url, dies_at, after=after)
        try:
            compact_archive(mortal, settle=SETTLE, now=at(50))
        except Killed:
            dies_at += 1
            assert answers(archive) == before, f"killed at step {dies_at}"
            continue
        break
    assert dies_at > 4
    assert counts(archive)[SPOT_PRICES] == 2
    assert answers(archive) == before
    assert not every_row(archive).duplicated(SORTED).any()


def test_a_damaged_file_is_named_and_only_its_own_partition_is_left_as_it_is(archive: Archive):
    whole = counts(archive)
    first = next(file for file in archive.scrape_files(SPOT_ADVISOR))
    path = Path(archive.url) / first.path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=first.path):
        compact_archive(archive, settle=SETTLE, now=at(50))
    assert path.exists()
    assert (counts(archive)[SPOT_PRICES], counts(archive)[RECORDS]) == (2, 2)
    assert 4 < counts(archive)[SPOT_ADVISOR] < whole[SPOT_ADVISOR]


def test_what_a_killed_writer_left_is_removed_and_read_by_nobody(archive: Archive):
    (file, *_) = archive.scrape_files(SPOT_PRICES)
    path = Path(archive.url) / file.path
    leftover = path.with_name(f".{path.name}.{'0' * 32}.tmp")
    leftover.write_bytes(b"half a fi")
    assert len(every_row(archive)) > 0
    assert compact_archive(archive, settle=SETTLE, now=at(50)).leftovers_removed == 0
    assert leftover.exists(), "it is young: its writer may be at work"
    os.utime(leftover, (at(0).timestamp(), at(0).timestamp()))
    assert compact_archive(archive, settle=SETTLE, now=at(50)).leftovers_removed == 1
    assert not leftover.exists()


def test_a_reader_whose_files_are_merged_meanwhile_reads_again(archive: Archive):
    before = answers(archive)[0]

    class Overtaken(Archive):
        merged = False

        def read_scrape(self, *arguments: Any, **named: Any) -> Any:
            if not self.merged:
                self.merged = True
                compact_archive(archive, settle=SETTLE, now=at(50))
            return super().read_scrape(*arguments, **named)

    history = MarketHistory(Overtaken(archive.url))
    found = history.prices(COVER, start=at(-48), end=at(48), known_at=INSTANTS[0])
    assert found.to_dict("list") == before
    assert len(history.prices(COVER, start=at(-48), end=at(48))) == 9
