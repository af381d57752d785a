"""The archive: bit for bit, whole or not at all, and a snapshot's id is its content."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import ArchiveTooNew, IntegrityError, InvalidInput, NotFound, StoreUnavailable
from spotlab_pipelines.market import parquet
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.canonical import content_id, row_order
from spotlab_pipelines.market.compaction import compact_archive
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.records import Cover

KEY = EvaluationKey("111122223333", datetime(2026, 11, 2, 12, 30, 0, 123456, tzinfo=UTC))
FLOATS = [0.1, 1 / 3, np.nan, np.inf, -0.0, 5e-324]


def example() -> pd.DataFrame:
    days: Any = ["2026-11-02T00:00:00.000001Z", None, *["2026-11-01T00:00:00Z"] * 4]
    times = pd.to_datetime(days, format="ISO8601").as_unit("us")
    return pd.DataFrame(
        {
            "name": pd.Series(["b", None, "a", "ä", "", "b"], dtype="str"),
            "at": times,
            "rate": FLOATS,
            "count": np.arange(6),
            "flag": [True, False] * 3,
            "tags": pd.Series([{"k": 0.1}, None, {}, {"z": None, "a": [1]}, {"k": "v"}, {}], dtype=object),
        }
    )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"))


def test_a_table_comes_back_bit_for_bit(archive):
    frame = example()
    archive.write_table("features", KEY, frame, {"timings_ms": {"features": 12.3}})
    back = archive.read_table("features", KEY)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert back["rate"].to_numpy().tobytes() == np.array(FLOATS).tobytes()
    assert archive.read_metadata("features", KEY) == {"timings_ms": {"features": 12.3}}


def test_another_process_reads_a_table_and_its_metadata_alike(archive):
    archive.write_table("features", KEY, example(), {"timings_ms": {"features": 12.3}})
    elsewhere = Archive(archive.url)
    assert elsewhere.read_metadata("features", KEY) == {"timings_ms": {"features": 12.3}}
    pd.testing.assert_frame_equal(elsewhere.read_table("features", KEY), example(), check_exact=True)


def test_an_empty_table_keeps_its_columns_and_types(archive):
    archive.write_table("features", KEY, example().iloc[:0])
    pd.testing.assert_frame_equal(archive.read_table("features", KEY), example().iloc[:0])
    assert archive.read_metadata("features", KEY) == {}


def test_a_table_is_found_by_its_logical_key_and_replaced_whole(archive):
    archive.write_table("features", KEY, example())
    archive.write_table("features", KEY, example().head(1))
    east = EvaluationKey(KEY.account_id, KEY.window_start.astimezone(timezone(timedelta(hours=9))))
    assert len(archive.read_table("features", east)) == 1


@pytest.mark.parametrize("other", [("decisions", KEY), ("features", EvaluationKey("999988887777", KEY.window_start))])
def test_an_absent_table_is_not_found(archive, other):
    archive.write_table("features", KEY, example())
    with pytest.raises(NotFound, match=str(other[0])):
        archive.read_table(*other)
    with pytest.raises(NotFound):
        archive.read_metadata(*other)


SCRAPED_AT = datetime(2026, 11, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
SCRAPE = "019a0000-0000-7000-8000-000000000001"


def facts(*zones: str) -> pd.DataFrame:
    """One price in each zone."""
    count = len(zones)
    texts = {"region": ["us-east-1"], "instance_type": ["m5.large"], "az_id": zones, "product": ["Linux/UNIX"]}
    return pd.DataFrame(
        {
            **{name: pd.Series([*values] * (count // len(values)), dtype="str") for name, values in texts.items()},
            "changed_at": pd.DatetimeIndex(["2026-11-01T00:00:00Z"] * count).as_unit("us"),
            "spot_price_usd_per_hour": np.linspace(0.1, 0.2, count),
        }
    )


def test_scrapes_lie_by_kind_region_and_date_and_duckdb_and_pandas_read_them_as_they_are(archive, tmp_path):
    import duckdb

    frame = facts("use1-az1", "use1-az2")
    path = archive.write_scrape(
        kind="spot_prices", region="us-east-1", fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=frame
    )
    assert path == (
        f"scrapes/kind=spot_prices/region=us-east-1/date=2026-11-02/20261102T013000000000Z-{SCRAPE}.parquet"
    )
    archive.write_scrape(
        kind="spot_prices", region="eu-west-1", fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=facts("euw1-az1")
    )
    plain = pd.read_parquet(tmp_path / "archive/scrapes/kind=spot_prices")
    back = plain[plain["region"] == "us-east-1"].astype({"region": "str"})
    pd.testing.assert_frame_equal(back[frame.columns].reset_index(drop=True), frame, check_exact=True)
    assert (plain["fetched_at"] == SCRAPED_AT).all()
    files = f"{archive.url}/scrapes/kind=spot_prices/**/*.parquet"
    query = f"""
        select region, az_id, date::text, spot_price_usd_per_hour, epoch_us(fetched_at)
        from read_parquet('{files}', hive_partitioning=true) order by all
    """
    micros = int(SCRAPED_AT.timestamp() * 1_000_000)
    assert duckdb.sql(query).fetchall() == [
        ("eu-west-1", "euw1-az1", "2026-11-02", 0.1, micros),
        ("us-east-1", "use1-az1", "2026-11-02", 0.1, micros),
        ("us-east-1", "use1-az2", "2026-11-02", 0.2, micros),
    ]


def test_rows_of_a_document_carry_its_scrape(archive, tmp_path):
    archive.write_scrape(kind="spot_advisor", region=None, fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=example())
    plain = pd.read_parquet(tmp_path / "archive/scrapes/kind=spot_advisor")
    assert set(plain["scrape_id"]) == {SCRAPE}
    assert plain["region"].unique().tolist() == ["all"]
    assert plain["tags"].iloc[0] == '{"k":0.1}'


def test_a_column_that_the_path_would_hide_is_refused(archive):
    with pytest.raises(InvalidInput, match="no column kind: the path says it"):
        archive.write_scrape(
            kind="pool_observations",
            region="us-east-1",
            fetched_at=SCRAPED_AT,
            scrape_id=SCRAPE,
            frame=facts("use1-az1").assign(kind="launch"),
        )


@pytest.mark.parametrize(
    ("version", "error", "says"),
    [
        ("2.0", ArchiveTooNew, r"schema_version 2\.0; this SpotLab reads up to 1\.1.*Upgrade SpotLab"),
        ("", IntegrityError, "Expected a schema_version in the metadata of .*spot_prices"),
        ("1.7", None, ""),
    ],
)
def test_a_newer_schema_is_refused_by_name_and_a_newer_minor_is_read(archive, monkeypatch, version, error, says):
    monkeypatch.setattr(parquet, "SCHEMA_VERSION", version)
    archive.write_scrape(
        kind="spot_prices", region="us-east-1", fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=facts("use1-az1")
    )
    monkeypatch.undo()
    (file,) = archive.scrape_files("spot_prices")
    if error is None:
        assert len(archive.read_scrape(file)) == 1
    else:
        with pytest.raises(error, match=says):
            archive.read_scrape(file)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "any bit": lambda data: data,
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "without its checksum": lambda data: data[: (at := data.index(parquet.SEAL))] + data[at + len(parquet.SEAL) + 4 :],
    "something else": lambda data: b"no parquet " * 50,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_error_that_names_it_and_never_other_numbers(archive, tmp_path, damage):
    """Parquet itself takes half of all changed bits for other prices, and ends the process at some."""
    archive.write_scrape(
        kind="spot_prices", region="us-east-1", fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=facts("use1-az1")
    )
    (scrape,) = archive.scrape_files("spot_prices")
    table = archive.write_table("features", KEY, example(), {"k": 1})
    fresh = Archive(archive.url)
    ways = {
        scrape.path: [lambda: fresh.read_scrape(scrape)],
        table: [lambda: fresh.read_table("features", KEY), lambda: fresh.read_metadata("features", KEY)],
    }
    for path, reads in ways.items():
        file = tmp_path / "archive" / path
        whole = file.read_bytes()
        step = max(len(whole) // 100, 1) if damage == "any bit" else len(whole)
        for place in range(0, len(whole), step):
            bad = bytearray(DAMAGES[damage](whole))
            if damage == "any bit":
                bad[place] ^= 1 << place % 8
            file.write_bytes(bad)
            for read in reads:
                with pytest.raises(IntegrityError, match=re.escape(path)):
                    read()
        file.write_bytes(whole)
        for read in reads:
            read()


def test_a_file_from_before_there_were_checksums_is_read(archive, monkeypatch):
    monkeypatch.setattr(parquet, "SCHEMA_VERSION", "1.0")
    monkeypatch.setattr(parquet, "_sealed", lambda data: data)
    archive.write_table("features", KEY, example())
    monkeypatch.undo()
    pd.testing.assert_frame_equal(Archive(archive.url).read_table("features", KEY), example())


def test_what_is_no_scrape_of_ours_is_not_listed(archive, tmp_path):
    archive.write_scrape(
        kind="spot_prices", region="us-east-1", fetched_at=SCRAPED_AT, scrape_id=SCRAPE, frame=facts("use1-az1")
    )
    (file,) = archive.scrape_files("spot_prices", "us-east-1", "2026-11-02")
    for name in ("x.parquet", f"{SCRAPE}.parquet", f"20261102T013000000000Z-{SCRAPE}.parquet.{'0' * 32}.tmp"):
        (tmp_path / "archive" / file.path).with_name(name).write_bytes(b"")
    assert archive.scrape_files("spot_prices") == [file]
    assert (file.region, file.id, file.merged) == ("us-east-1", SCRAPE, False)
    assert file.fetched_at == SCRAPED_AT
    assert archive.scrape_files("spot_prices", "eu-west-1") == []


def test_nothing_half_written_stays(archive, tmp_path):
    path = archive.write_table("features", KEY, example())
    blocked = tmp_path / "archive" / path
    blocked.unlink()
    (blocked / "in the way").mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match="could not be written"):
        archive.write_table("features", KEY, example())
    assert [entry for entry in (tmp_path / "archive").rglob("*") if entry.is_file()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="SPOTLAB_ARCHIVE_URL"):
        Archive(str(tmp_path / "file" / "archive")).write_table("features", KEY, example())


def test_another_kind_of_url_is_refused():
    with pytest.raises(InvalidInput, match="ftp://x"):
        Archive("ftp://x/y").read_table("features", KEY)


def test_a_snapshot_comes_back_and_is_stored_once(archive, tmp_path):
    frames = {"prices": example(), "instances": example().head(2)}
    snapshot_id = archive.write_snapshot(frames, {"open_bucket_rate": 0.3})
    assert len(snapshot_id) == 64
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert archive.write_snapshot(frames, {"open_bucket_rate": 0.3}) == snapshot_id
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files
    back, metadata = archive.read_snapshot(snapshot_id)
    assert metadata == {"open_bucket_rate": 0.3}
    assert sorted(back) == ["instances", "prices"]
    pd.testing.assert_frame_equal(back["prices"], frames["prices"], check_exact=True)


def test_a_snapshots_id_does_not_depend_on_the_order_of_rows_or_columns():
    frame = example()
    shuffled = frame.sample(frac=1, random_state=3)[frame.columns[::-1]].reset_index(drop=True)
    assert content_id({"a": frame}, {"x": 1, "y": 2}) == content_id({"a": shuffled}, {"y": 2, "x": 1})


def changed(column, value):
    frame = example()
    frame.at[3, column] = value
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        changed("rate", 7.0),
        example().assign(rate=[*FLOATS[:4], 0.0, FLOATS[5]]),
        changed("name", None),
        changed("name", "a"),
        changed("at", pd.Timestamp("2026-11-01T00:00:00.000001Z")),
        changed("count", 7),
        changed("flag", True),
        changed("tags", {"a": [1], "z": 0}),
        example().rename(columns={"rate": "rates"}),
        example().astype({"count": "float64"}),
        example().head(5),
        pd.concat([example(), example().tail(1)], ignore_index=True),
    ],
)
def test_any_other_content_has_another_id(frame):
    assert content_id({"a": frame}, {}) != content_id({"a": example()}, {})


@pytest.mark.parametrize("spans", [(3, 2**40, 9), (3, 2), (2**62, 2**62, 2), (2**40, 2**40, 2)])
def test_rows_are_ordered_by_one_column_after_the_other(spans):
    """Whether packing the columns into one tells all rows apart, leaves ties, or has room for some of them only."""
    random = np.random.default_rng(1)
    columns = [random.choice(random.integers(-span, span, size=9), size=200) for span in spans]
    expected = np.lexsort(columns[::-1])
    for column in columns:
        assert (column[row_order(columns)] == column[expected]).all()


def test_names_of_frames_and_metadata_are_part_of_the_id():
    one = content_id({"a": example()}, {})
    assert len({one, content_id({"b": example()}, {}), content_id({"a": example()}, {"x": 1})}) == 3


def test_the_id_is_fixed_for_all_times():
    """Replays compare ids across years: a change here needs a new version of the canonical form."""
    frame = pd.DataFrame({"pool": pd.Series(["b", "a"], dtype="str"), "price": [0.25, 0.5]})
    assert content_id({"prices": frame}, {"v": 1}) == content_id({"prices": frame.iloc[::-1]}, {"v": 1})
    assert content_id({"prices": frame}, {"v": 1}).startswith("0e1b7c27c6e7f0a0")


def test_a_snapshot_that_was_changed_is_refused(archive, tmp_path):
    snapshot_id = archive.write_snapshot({"prices": example()}, {})
    other = Archive(str(tmp_path / "other"))
    other_id = other.write_snapshot({"prices": changed("rate", 0.2)}, {})
    folder = tmp_path / "archive" / "snapshots" / snapshot_id
    (folder / "prices.parquet").write_bytes(
        (tmp_path / "other" / "snapshots" / other_id / "prices.parquet").read_bytes()
    )
    with pytest.raises(IntegrityError, match=other_id):
        archive.read_snapshot(snapshot_id)


def test_an_absent_snapshot_is_not_found(archive):
    with pytest.raises(NotFound, match="0" * 64):
        archive.read_snapshot("0" * 64)


@pytest.fixture
def bucket_url(local_aws):
    """An empty bucket of the local AWS."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="archive")
    return "s3://archive/spotlab"


def test_an_archive_on_s3_is_the_same(bucket_url, archive):
    remote = Archive(bucket_url)
    with pytest.raises(NotFound):
        remote.read_table("features", KEY)
    for place in (remote, archive):
        place.write_table("features", KEY, example(), {"x": 1})
    pd.testing.assert_frame_equal(remote.read_table("features", KEY), archive.read_table("features", KEY))
    assert remote.read_metadata("features", KEY) == {"x": 1}
    frames = {"prices": example()}
    snapshot_id = remote.write_snapshot(frames, {})
    assert snapshot_id == archive.write_snapshot(frames, {})
    pd.testing.assert_frame_equal(remote.read_snapshot(snapshot_id)[0]["prices"], example())


def test_scrapes_on_s3_are_the_same(bucket_url, archive):
    remote = Archive(bucket_url)
    cover: Cover = {("us-east-1", "m5"): (("m5.large",), ("Linux/UNIX",))}
    found = []
    for place in (remote, archive):
        assert place.scrape_files("spot_prices") == []
        for zone, step in (("use1-az1", 0), ("use1-az2", 1)):
            place.write_scrape(
                kind="spot_prices",
                region="us-east-1",
                fetched_at=SCRAPED_AT + timedelta(days=step),
                scrape_id=SCRAPE,
                frame=facts(zone),
            )
        two = facts("use1-az1", "use1-az3").iloc[1:]
        place.write_scrape(kind="spot_prices", region="us-east-1", fetched_at=SCRAPED_AT, scrape_id="2" * 32, frame=two)
        assert compact_archive(place, settle=timedelta(0)).files_merged == 2
        history = MarketHistory(place)
        window = {"start": datetime(2026, 10, 1, tzinfo=UTC), "end": datetime(2026, 12, 1, tzinfo=UTC)}
        found.append([history.prices(cover, **window, known_at=at) for at in (None, SCRAPED_AT)])
        place.remove(place.scrape_files("spot_prices")[0].path)
        assert len(place.scrape_files("spot_prices", "us-east-1")) == 1
    assert [len(frame) for frame in found[0]] == [3, 2]
    for here, there in zip(*found, strict=True):
        pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_bucket_that_is_not_there_is_named(local_aws):
    with pytest.raises(StoreUnavailable, match="SPOTLAB_ARCHIVE_URL"):
        Archive("s3://no-such-bucket/x").write_table("features", KEY, example())
