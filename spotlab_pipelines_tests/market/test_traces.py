"""Public traces become labelled history of pools: stated, never guessed; stored once; whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from spotlab_pipelines.errors import IntegrityError, InvalidInput, NotFound, SourceMalformed, StoreUnavailable
from spotlab_pipelines.features.history import PoolHistory
from spotlab_pipelines.features.past import Past
from spotlab_pipelines.market import compaction, traces
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.compaction import compact_archive, replace_files
from spotlab_pipelines.market.frames import OBSERVATION_COLUMNS
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS, POOL_TRACES, RECORDS
from spotlab_pipelines.market.trace_files import read_rows
from spotlab_pipelines.market.trace_reading import list_traces, read_trace
from spotlab_pipelines.market.trace_removal import remove_trace
from spotlab_pipelines.market.trace_statement import Told, TraceStatement, observations_from
from spotlab_pipelines.market.traces import import_trace
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.market.trace_examples import (
    CONSTANT,
    EVENTS,
    NODES,
    OF_EVENTS,
    STATEMENT,
    probes,
    probes_file,
    ticks_file,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"))


def observed(path: Path, statement: TraceStatement, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    return observations_from(read_rows(path, columns=columns), statement, name="x", now=NOW)


def refused(
    path: Path, statement: TraceStatement, error: type[Exception], *said: str, columns: tuple[str, ...] = ()
) -> None:
    with pytest.raises(error) as caught:
        observed(path, statement, columns)
    for each in said:
        assert each in str(caught.value)


def test_probes_in_parquet_are_what_their_columns_say(tmp_path: Path) -> None:
    frame = observed(probes_file(tmp_path), STATEMENT)
    assert list(frame) == list(OBSERVATION_COLUMNS)
    assert len(frame) == 12
    failed = frame[~frame["available"]]
    assert set(failed["az_id"]) == {"us-west-2b"}
    assert list(failed["observed_at"]) == list(pd.to_datetime(["2022-10-26T22:25Z", "2022-10-26T22:35Z"]))
    assert set(frame["kind"]) == {"probe"}
    turned = observed(probes_file(tmp_path), replace(STATEMENT, available=STATEMENT.failed, failed=STATEMENT.available))
    assert (turned["available"] != frame["available"]).all(), "polarity is what is stated"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_the_same_rows_are_the_same_observations_in_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"probes.{ending}"
    plain = probes().assign(ts=probes()["ts"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    match ending:
        case "csv":
            plain.to_csv(path, index=False)
        case "jsonl":
            path.write_bytes(b"\n".join(map(orjson.dumps, plain.to_dict("records"))))
        case _:
            path.write_bytes(orjson.dumps(plain.to_dict("records")))
    pd.testing.assert_frame_equal(observed(path, STATEMENT), observed(probes_file(tmp_path), STATEMENT))


def test_events_of_instances_have_a_kind_each_and_what_says_nothing_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(EVENTS)
    frame = observed(path, OF_EVENTS)
    assert list(zip(frame["kind"], frame["available"], strict=True)) == [
        ("launch", True), ("running", True), ("interruption", False),
    ]  # fmt: skip
    assert set(frame["az_id"]) == {"us-east-1b"}
    counted = replace(
        OF_EVENTS, failed=(*OF_EVENTS.failed, ("event", "create_failed")), ignored=(("event", "deleted"),)
    )
    refused(path, counted, SourceMalformed, "'az'", "1 have none", "row 3 (nothing)")


def test_ticks_and_offsets_count_from_the_start_that_is_stated(tmp_path: Path) -> None:
    ticks = replace(CONSTANT, time="#", time_unit="34s", available=(("data", "1"),), failed=(("data", "0"),))
    start = datetime(2023, 4, 19, tzinfo=UTC)
    frame = observed(ticks_file(tmp_path), replace(ticks, start=start))
    assert list(frame["observed_at"]) == [start + timedelta(seconds=34 * tick) for tick in range(4)]
    assert list(frame["available"]) == [False, True, True, False]
    nodes = replace(CONSTANT, time="ms", time_unit="ms", available=(("event", "add"),), failed=(("event", "remove"),))
    path = tmp_path / "nodes.csv"
    path.write_text(NODES)
    frame = observed(path, replace(nodes, start=start), columns=("ms", "event", "node"))
    assert list(frame["observed_at"]) == [start, start, start + timedelta(minutes=1)]
    refused(path, nodes, SourceMalformed, "'ms'", "row 1 ('0')", columns=("ms", "event", "node"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failed": ()}, "1 and 0"),
        ({"failed": (("az", "us-west-2a"),)}, "of one column"),
        ({"failed": (("available", "1"),)}, "'1' is stated more than once"),
        ({"failed": (("available", "no"),)}, "'0' (2 rows, first row 9)"),
        ({"kind": "guess"}, "guess"),
        ({"kinds": {"2": "launch"}}, "2"),
        ({"zone": Told("zone")}, "'zone'"),
        ({"zone": Told("az", "use1-az1")}, "got both. Give either --zone or --zone-column"),
        ({"region": Told()}, "got neither. Give either --region or --region-column"),
        ({"instance_type": Told(value="p3")}, "'p3'. Correct --type"),
        ({"product": Told(value="linux/unix")}, "Windows; got 'linux/unix'. Correct --product"),
        ({"time_unit": "s"}, "--time-unit has no meaning there"),
        ({"time": "available"}, "the unit of the times in 'available' to be told; they are numbers, '1'. Say --time-u"),
        ({"time": "available", "time_unit": "days"}, "'days'"),
    ],
)
def test_what_is_not_stated_is_an_error_that_names_it(tmp_path: Path, change: dict[str, object], said: str) -> None:
    refused(probes_file(tmp_path), replace(STATEMENT, **change), InvalidInput, said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ts", pd.Timestamp("2001-01-01", tz="UTC"), "1 lie before EC2 was there: row 3 ('2001-01-01"),
        ("ts", pd.Timestamp("2031-01-01", tz="UTC"), "1 lie in the future: row 3 ('2031-01-01"),
        ("ts", pd.NaT, "row 3 (nothing)"),
        ("instance_type", "p3", "row 3 ('p3')"),
        ("region", None, "row 3 (nothing)"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_stored(
    engine: sa.Engine, archive: Archive, tmp_path: Path, column: str, value: Any, said: str
) -> None:
    frame = probes()
    frame.loc[2, column] = value
    with pytest.raises(SourceMalformed) as caught:
        import_trace(engine, archive, probes_file(tmp_path, frame), "x", STATEMENT)
    assert said in str(caught.value)
    assert archive.scrape_files(POOL_TRACES) == archive.scrape_files(RECORDS) == []
    assert audit_rows(engine) == []
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from scrapes")) == 0


def test_times_without_a_zone_need_one(tmp_path: Path) -> None:
    frame = probes().assign(ts=probes()["ts"].dt.tz_localize(None))
    path = probes_file(tmp_path, frame)
    refused(path, STATEMENT, InvalidInput, "name no time zone, as '2022-10-26 22:05:00'. Say --time-zone")
    refused(path, replace(STATEMENT, time_zone="Mars"), InvalidInput, "'Mars'")
    there = observed(path, replace(STATEMENT, time_zone="America/Los_Angeles"))
    assert there["observed_at"].min() == pd.Timestamp("2022-10-27T05:05Z")
    autumn = probes().assign(ts="2022-11-06T01:30:00")
    autumn.to_csv(tmp_path / "a.csv", index=False)
    refused(tmp_path / "a.csv", replace(STATEMENT, time_zone="America/Los_Angeles"), SourceMalformed, "row 1")


@pytest.mark.parametrize(
    ("times", "error", "said"),
    [
        (["1666821900", "", "1666822500"], InvalidInput, "are numbers, '1666821900'. Say --time-unit"),
        (["1666821900", "", ""], InvalidInput, "are numbers, '1666821900'. Say --time-unit"),
        (["1666821900", "n/a", "1666822500"], InvalidInput, "are numbers, '1666821900'. Say --time-unit"),
        (["2022-10-26T22:05Z", "yesterday", "2022-10-26T22:15Z"], SourceMalformed, "1 have none: row 2 ('yesterday')"),
        (["yesterday", "", "today"], SourceMalformed, "3 have none: row 1 ('yesterday'), row 2 (nothing)"),
        (["2022-10-26T22:05Z", "2022-10-26T22:10", "x"], InvalidInput, "as '2022-10-26 22:10:00'. Say --time-zone"),
    ],
)
def test_a_time_that_is_none_is_no_time_without_a_zone(
    tmp_path: Path, times: list[str], error: type[Exception], said: str
) -> None:
    path = tmp_path / "times.csv"
    probes().head(3).assign(ts=times).to_csv(path, index=False)
    refused(path, STATEMENT, error, said)


def times_file(folder: Path, *times: str) -> Path:
    """Probes of one pool at these times, as texts."""
    path = folder / "times.csv"
    probes().head(len(times)).assign(ts=times).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "times", "error", "said"),
    [
        ({"time_unit": "s"}, ["1666821900000"], SourceMalformed, "lie in the future: row 1 ('1666821900000')"),
        ({"time_unit": "ms"}, ["1666821900"], SourceMalformed, "lie before EC2 was there"),
        ({"time_unit": "s"}, ["inf", "1666821900"], SourceMalformed, "1 have none: row 1 ('inf')"),
        ({"time_unit": "0s"}, ["1666821900"], InvalidInput, "got '0s'"),
        ({"time_zone": "America"}, ["2022-10-26T22:05"], InvalidInput, "got 'America'. Correct --time-zone"),
        (
            {"time_zone": "America/Los_Angeles"}, ["2022-03-13T02:30", "2022-11-06T03:30"], SourceMalformed,
            "that the clocks of America/Los_Angeles show twice or never: row 1 ('2022-03-13T02:30')",
        ),
    ],
)  # fmt: skip
def test_a_clock_that_is_stated_wrongly_is_told_as_such(
    tmp_path: Path, change: dict[str, Any], times: list[str], error: type[Exception], said: str
) -> None:
    refused(times_file(tmp_path, *times), replace(STATEMENT, **change), error, said)


def test_times_that_name_their_zone_keep_it_beside_times_that_name_none(tmp_path: Path) -> None:
    named = ["2022-10-26T22+00", "2022-10-26 22:05:00 UTC", "2022-10-26T22:10GMT", "2022-10-26 22:15:00 +0000"]
    path = times_file(tmp_path, *named, "2022-10-26T15:20")
    frame = observed(path, replace(STATEMENT, time_zone="America/Los_Angeles"))
    assert sorted(frame["observed_at"].dt.strftime("%H:%M")) == ["22:00", "22:05", "22:10", "22:15", "22:20"]


def test_times_of_which_none_is_known_need_no_zone(tmp_path: Path) -> None:
    unknown = pd.Series([pd.NaT] * 12).astype("datetime64[us]")
    refused(probes_file(tmp_path, probes().assign(ts=unknown)), STATEMENT, SourceMalformed, "12 have none: row 1")
    silent = probes().assign(ts=probes()["ts"].dt.tz_localize(None), available=2)
    nothing = replace(STATEMENT, ignored=(("available", "2"),))
    refused(probes_file(tmp_path, silent), nothing, SourceMalformed, "the trace has none")


def test_rows_that_say_nothing_and_empty_ones_keep_their_number(tmp_path: Path) -> None:
    """A tick is the row's number: left out rows must not move those after them."""
    path = tmp_path / "ticks.csv"
    start = datetime(2023, 4, 19, tzinfo=UTC)
    ticks = replace(
        CONSTANT, time="#", time_unit="60s", start=start, available=(("event", "add"),), failed=(("event", "remove"),)
    )
    path.write_text("event\nadd\n\nnoise\nremove\n\n\n")
    refused(path, ticks, InvalidInput, "nothing says so of '' (1 rows, first row 2), 'noise' (1 rows, first row 3)")
    frame = observed(path, replace(ticks, ignored=(("event", ""), ("event", "noise"))))
    assert list(frame["observed_at"]) == [start, start + timedelta(minutes=3)]


def test_what_pandas_kept_as_the_index_is_a_column(tmp_path: Path) -> None:
    expected = observed(probes_file(tmp_path), STATEMENT)
    for index in ("ts", ["region", "ts"]):
        indexed = probes_file(tmp_path, probes().set_index(index), "indexed.parquet")
        pd.testing.assert_frame_equal(observed(indexed, STATEMENT), expected)


def test_a_zone_may_be_hours_alone(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    times = ["2022-10-26 22:05:00+00", "2022-10-26 22:05:00.5-07", "2022-10-26"]
    probes().head(3).assign(ts=times).to_csv(path, index=False)
    frame = observed(path, replace(STATEMENT, time_zone="UTC"))
    assert list(frame["observed_at"]) == list(
        pd.to_datetime(["2022-10-26T00:00Z", "2022-10-26T22:05Z", "2022-10-27T05:05:00.5Z"], format="ISO8601")
    )


def test_a_product_is_one_that_aws_names_with_its_suffix_or_without(tmp_path: Path) -> None:
    by_column = replace(STATEMENT, product=Told("product"))
    named = probes().assign(product="Linux/UNIX (Amazon VPC)")
    frame = observed(probes_file(tmp_path, named), by_column)
    pd.testing.assert_frame_equal(frame, observed(probes_file(tmp_path, probes(), "plain.parquet"), STATEMENT))
    named.loc[2, "product"] = "Windows Server"
    refused(probes_file(tmp_path, named), by_column, SourceMalformed, "Red Hat", "row 3 ('Windows Server')")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    rows = "2022-10-26T22:05Z,us-west-2,us-west-2a,p3.2xlarge,1,0\n"
    path.write_text(f"ts,region,az,instance_type,available,available\n{rows}")
    refused(path, STATEMENT, SourceMalformed, "'available' is there twice")
    path.write_text(f"ts,region,az,instance_type,available,\n{rows}")
    assert len(observed(path, STATEMENT)) == 1


def test_the_name_that_stands_for_the_accounts_is_no_traces(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="Choose another --name"):
        import_trace(engine, archive, probes_file(tmp_path), "accounts", STATEMENT)
    assert archive.scrape_files(POOL_TRACES) == []


def test_a_trace_is_stored_once_on_record_and_apart_from_live_observations(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    path = probes_file(tmp_path)
    first = import_trace(engine, archive, path, "probes", STATEMENT)
    assert (first.stored, first.rows, first.pools, first.available, first.failed) == (True, 12, 2, 10, 2)
    shuffled = probes().sample(frac=1.0, random_state=1)
    again = import_trace(engine, archive, probes_file(tmp_path, shuffled, "again.parquet"), "probes", STATEMENT)
    assert replace(again, stored=True) == first
    assert not again.stored
    assert len(archive.scrape_files(POOL_TRACES)) == 1
    assert archive.scrape_files(POOL_OBSERVATIONS) == []
    (entry,) = audit_rows(engine)
    assert (entry["action"], entry["subject"], entry["outcome"]) == ("import_trace", "probes", "done")
    assert entry["actor"].startswith("cli:")
    assert entry["details"]["statement"]["failed"] == [["available", "0"]]
    assert entry["details"]["content_id"] == first.content_id
    with pytest.raises(InvalidInput, match="named 'probes'"):
        import_trace(engine, archive, path, "other", STATEMENT)
    more = probes_file(tmp_path, probes(7), "more.parquet")
    with pytest.raises(InvalidInput, match="another one"):
        import_trace(engine, archive, more, "probes", STATEMENT)
    import_trace(engine, archive, more, "more", STATEMENT)
    assert list(list_traces(archive)["trace"]) == ["more", "probes"]
    assert list(list_traces(archive)["rows"]) == [14, 12]


def test_what_a_trace_says_twice_or_both_ways_is_counted(engine: sa.Engine, archive: Archive, tmp_path: Path) -> None:
    rows = probes()
    otherwise = rows.head(3).assign(available=1 - rows["available"].head(3))
    told = pd.concat([rows, rows.tail(4), otherwise])
    report = import_trace(engine, archive, probes_file(tmp_path, told), "probes", STATEMENT)
    assert (report.rows, report.repeated, report.both_at_once) == (15, 4, 3)


def test_a_trace_reads_as_history_before_and_after_the_archive_is_compacted(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    import_trace(engine, archive, probes_file(tmp_path), "probes", STATEMENT)
    import_trace(engine, archive, probes_file(tmp_path, probes(7)), "more", STATEMENT)
    frame = read_trace(archive, "probes")
    assert list(frame) == [*OBSERVATION_COLUMNS, "known_at"]
    assert (frame["known_at"] == frame["observed_at"]).all()
    assert set(frame["source"]) == {"trace probes"}
    pd.testing.assert_frame_equal(frame.drop(columns="known_at").assign(source="trace x").astype({"source": "str"}),
                                  observed(probes_file(tmp_path), STATEMENT))  # fmt: skip
    assert len(PoolHistory.from_observations(frame).pools) == 2
    assert Past.of(frame).observations is not None
    compact_archive(archive, settle=timedelta(0), now=datetime.now(UTC) + timedelta(hours=1))
    assert [file.merged for file in archive.scrape_files(POOL_TRACES)] == [True]
    pd.testing.assert_frame_equal(read_trace(archive, "probes"), frame)
    assert list(list_traces(archive)["rows"]) == [14, 12]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_removed_trace_is_gone_on_record_and_others_stay_even_in_the_same_file(
    engine: sa.Engine, archive: Archive, tmp_path: Path, compacted: bool
) -> None:
    path = probes_file(tmp_path)
    first = import_trace(engine, archive, path, "probes", STATEMENT)
    import_trace(engine, archive, probes_file(tmp_path, probes(7), "more.parquet"), "more", STATEMENT)
    more = read_trace(archive, "more")
    if compacted:
        compact_archive(archive, settle=timedelta(0), now=datetime.now(UTC) + timedelta(hours=1))
    [removed] = remove_trace(engine, archive, "probes")
    assert (removed.trace, removed.rows, removed.content_id) == ("probes", 12, first.content_id)
    assert list(list_traces(archive)["trace"]) == ["more"]
    pd.testing.assert_frame_equal(read_trace(archive, "more"), more)
    assert [file.merged for file in archive.scrape_files(POOL_TRACES)] == [compacted]
    entry = audit_rows(engine)[-1]
    assert (entry["action"], entry["subject"], entry["outcome"]) == ("remove_trace", "probes", "done")
    assert entry["details"] == {"content_ids": [first.content_id], "rows": 12}
    with pytest.raises(NotFound, match="no trace 'probes'; there are: more"):
        remove_trace(engine, archive, "probes")
    assert len(audit_rows(engine)) == 3
    # Versions learned from it by its name: another trace does not get it, and it gets no other.
    for file, name, said in (
        (probes_file(tmp_path, probes(8), "b.parquet"), "probes", "another one"),
        (path, "x", "this"),
    ):
        with pytest.raises(InvalidInput, match=f"{said}.*, was"):
            import_trace(engine, archive, file, name, STATEMENT)
    assert import_trace(engine, archive, path, "probes", STATEMENT).stored, "it may come again"


@pytest.mark.parametrize("again", [False, True])
def test_an_import_that_was_killed_before_it_was_on_record_has_its_name_all_the_same(
    engine: sa.Engine, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = probes_file(tmp_path)
    monkeypatch.setattr(traces, "put_on_record", killed)
    with pytest.raises(KeyboardInterrupt):
        import_trace(engine, archive, path, "probes", STATEMENT)
    monkeypatch.undo()
    assert audit_rows(engine, "import_trace") == []
    if again:
        assert not import_trace(engine, archive, path, "probes", STATEMENT).stored
        assert len(audit_rows(engine, "import_trace")) == 1
    remove_trace(engine, archive, "probes")
    with pytest.raises(InvalidInput, match=r"another one.*, was"):
        import_trace(engine, archive, probes_file(tmp_path, probes(8), "b.parquet"), "probes", STATEMENT)


def test_a_trace_that_had_two_names_once_keeps_both(
    engine: sa.Engine, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = probes_file(tmp_path)
    import_trace(engine, archive, path, "probes", STATEMENT)
    remove_trace(engine, archive, "probes")
    with monkeypatch.context() as earlier:
        # When names were not kept.
        earlier.setattr(traces, "_refuse_another", lambda *_: None)
        import_trace(engine, archive, path, "y", STATEMENT)
    assert not import_trace(engine, archive, path, "y", STATEMENT).stored
    with pytest.raises(InvalidInput, match=r"named 'y', is"):
        import_trace(engine, archive, path, "probes", STATEMENT)
    remove_trace(engine, archive, "y")
    assert import_trace(engine, archive, path, "probes", STATEMENT).stored


class Dying(Archive):
    """Its process is killed once it has removed a file."""

    def remove(self, path: str) -> None:
        super().remove(path)
        raise KeyboardInterrupt


def test_what_a_killed_removal_left_is_on_record_and_taken_for_no_trace(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    frame = pd.concat([probes(), probes().assign(region="us-east-1", az="us-east-1a")], ignore_index=True)
    path = probes_file(tmp_path, frame)
    import_trace(engine, archive, path, "probes", STATEMENT)
    assert len(archive.scrape_files(POOL_TRACES)) == 2
    with pytest.raises(KeyboardInterrupt):
        remove_trace(engine, Dying(archive.url), "probes")
    assert [row["outcome"] for row in audit_rows(engine, "remove_trace")] == ["done", "failed"]
    assert 0 < list_traces(archive)["rows"][0] < len(frame)
    with pytest.raises(IntegrityError, match=r"not all of it.*outcomes remove probes"):
        read_trace(archive, "probes")
    with pytest.raises(IntegrityError, match="not all of it"):
        import_trace(engine, archive, path, "probes", STATEMENT)
    remove_trace(engine, archive, "probes")
    assert import_trace(engine, archive, path, "probes", STATEMENT).stored
    assert len(read_trace(archive, "probes")) == len(frame.drop_duplicates())


def lost(*_: object) -> None:
    """A store that is not there any more."""
    raise StoreUnavailable("lost")


class Overtaken(Archive):
    """Before its process writes a file, another one does its work."""

    work: Callable[[], object] = staticmethod(lambda: None)

    def write_file(self, path: str, data: Any) -> None:
        work, self.work = self.work, lambda: None
        work()
        super().write_file(path, data)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_compaction_that_has_read_a_trace_does_not_bring_it_back(
    engine: sa.Engine, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    for name, count in (("probes", 6), ("more", 7)):
        import_trace(engine, archive, probes_file(tmp_path, probes(count)), name, STATEMENT)
    overtaken = Overtaken(archive.url)
    overtaken.work = lambda: remove_trace(engine, archive, "probes")
    if breaks:
        monkeypatch.setattr(compaction, "_check_written", lost)
    with pytest.raises(StoreUnavailable) if breaks else nullcontext():
        compact_archive(overtaken, settle=timedelta(0), now=datetime.now(UTC) + timedelta(hours=1))
    assert list(list_traces(archive)["trace"]) == ["more"]
    assert len(read_trace(archive, "more")) == 14


def test_a_removal_finds_the_rows_that_a_compaction_moves_meanwhile(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    def compact() -> None:
        compact_archive(archive, settle=timedelta(0), now=datetime.now(UTC) + timedelta(hours=1))

    for name, count in (("probes", 6), ("more", 7)):
        import_trace(engine, archive, probes_file(tmp_path, probes(count)), name, STATEMENT)
    # Then the removal writes a file: that of the other trace.
    compact()
    import_trace(engine, archive, probes_file(tmp_path, probes(8)), "most", STATEMENT)
    overtaken = Overtaken(archive.url)
    overtaken.work = compact
    remove_trace(engine, overtaken, "probes")
    assert [(row["trace"], row["rows"]) for _, row in list_traces(archive).iterrows()] == [("more", 14), ("most", 16)]
    assert [len(read_trace(archive, name)) for name in ("more", "most")] == [14, 16]
    assert [row["outcome"] for row in audit_rows(engine, "remove_trace")] == ["done"]


def test_two_traces_of_one_name_are_read_by_nobody_and_removed_together(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    for name, count in (("probes", 6), ("more", 7)):
        import_trace(engine, archive, probes_file(tmp_path, probes(count)), name, STATEMENT)
    for file, table in [(file, archive.read_scrape(file)) for file in archive.scrape_files(POOL_TRACES)]:
        same = table.set_column(table.schema.get_field_index("trace"), "trace", pa.array(["probes"] * len(table)))
        replace_files(archive, [file], same)
    with pytest.raises(IntegrityError, match="or more"):
        read_trace(archive, "probes")
    assert sorted(each.rows for each in remove_trace(engine, archive, "probes")) == [12, 14]
    assert list_traces(archive).empty


def test_rows_that_a_killed_compaction_left_twice_are_listed_once(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    import_trace(engine, archive, probes_file(tmp_path), "probes", STATEMENT)
    [file] = archive.scrape_files(POOL_TRACES)
    name = f"merged-{Path(file.path).name}"
    (Path(str(archive.url)) / Path(file.path).with_name(name)).write_bytes(archive.read_file(file.path))
    assert len(archive.scrape_files(POOL_TRACES)) == 2
    assert list(list_traces(archive)["rows"]) == [12]


def test_a_trace_that_is_not_there_is_told_with_those_that_are(
    engine: sa.Engine, archive: Archive, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="there are: none"):
        read_trace(archive, "x")
    import_trace(engine, archive, probes_file(tmp_path), "probes", STATEMENT)
    with pytest.raises(NotFound, match="there are: probes"):
        read_trace(archive, "x")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.txt", b"", InvalidInput),
        ("x.parquet", b"not parquet", SourceMalformed),
        ("x.json", b"{", SourceMalformed),
        ("x.json", b'{"a": [1], "b": [1, 2]}', SourceMalformed),
        ("x.json", b"3", SourceMalformed),
        ("x.csv", b"", SourceMalformed),
        ("x.csv", b"a,b\n", SourceMalformed),
        ("x.csv", b"a,b\n1,2\n1,2,3,4\n", SourceMalformed),
        ("x.csv", b"a,b\n1,2,3\n1,2,3\n", SourceMalformed),
        ("x.csv", b"a,b\n\n\n", SourceMalformed),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes, error: type[Exception]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=name.partition(".")[2] if error is InvalidInput else name):
        read_rows(path)
    with pytest.raises(NotFound):
        read_rows(tmp_path / "none.csv")
