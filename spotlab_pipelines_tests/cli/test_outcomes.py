"""`spotlab outcomes`: traces are imported as they are stated, by people who may."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.experiments.ended import Log, W
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, register
from spotlab_pipelines_tests.market.trace_examples import EVENTS, probes, probes_file

OF_PROBES = (
    "--name", "probes", "--time-column", "ts", "--region-column", "region", "--zone-column", "az",
    "--type-column", "instance_type", "--product", "Linux/UNIX",
)  # fmt: skip
POLARITY = ("--available-when", "available=1", "--failed-when", "available=0")


def test_a_trace_is_imported_as_stated_listed_and_refused_without_polarity(
    spotlab: Spotlab, owner: sa.Engine, tmp_path: Path
) -> None:
    path = str(probes_file(tmp_path))
    assert "No trace" in spotlab("outcomes", "traces").out
    assert spotlab("outcomes", "import", path, *OF_PROBES).code == 2, "polarity is never guessed"
    assert spotlab("outcomes", "import", path, *OF_PROBES, *POLARITY[:2]).code == 2
    partly = spotlab("outcomes", "import", path, *OF_PROBES, *POLARITY[:2], "--failed-when", "available=no")
    assert (partly.code, "'0' (2 rows, first row 9)" in partly.err) == (1, True)
    assert spotlab("outcomes", "import", path, *OF_PROBES, *POLARITY[:3], "available").code == 2
    for stored in (True, False):
        (told,) = spotlab("outcomes", "import", path, *OF_PROBES, *POLARITY, "--json").json
        assert (told["stored"], told["rows"], told["failed"]) == (stored, 12, 2)
    (listed,) = spotlab("outcomes", "traces", "--json").json
    assert (listed["trace"], listed["pools"], listed["content_id"]) == ("probes", 2, told["content_id"])
    add_user(owner, "ana@example.com")
    refused = spotlab("outcomes", "import", path, *OF_PROBES, *POLARITY, "--as", "ana@example.com")
    assert (refused.code, "role lab" in refused.err) == (1, True)


def test_what_an_import_says_fits_a_terminal_and_tells_what_to_look_at(
    spotlab: Spotlab, owner: sa.Engine, tmp_path: Path
) -> None:
    quiet = spotlab("outcomes", "import", str(probes_file(tmp_path)), *OF_PROBES, *POLARITY)
    assert (quiet.code, quiet.err) == (0, "")
    for word in ("12 ", "2022-10-26 22:05:00", "observations that found none"):
        assert word in quiet.out
    rows = probes(7)
    both = pd.concat([rows, rows.head(3).assign(available=0)])
    path = str(probes_file(tmp_path, both, "both.parquet"))
    turned = ("--available-when", "available=0", "--failed-when", "available=1")
    named = ("--name", "a-trace-of-a-longer-name")
    told = spotlab("outcomes", "import", path, *OF_PROBES, *named, *turned)
    assert "note: 3 times a pool is told to be available and to have failed at one instant; the failure" in told.err
    assert "note: 12 of 17 observations failed, more than half; see whether --available-when" in told.err
    for out in (quiet.out, told.out, spotlab("outcomes", "traces").out):
        assert max(map(len, out.splitlines())) <= 120


def test_a_trace_is_removed_by_who_says_yes_and_may(
    spotlab: Spotlab, owner: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spotlab("outcomes", "import", str(probes_file(tmp_path)), *OF_PROBES, *POLARITY).code == 0
    unknown = spotlab("outcomes", "remove", "other", "--yes")
    assert (unknown.code, "no trace 'other'; there are: probes" in unknown.err) == (1, True), unknown.err
    add_user(owner, "ana@example.com", "lab")
    refused = spotlab("outcomes", "remove", "probes", "--yes", "--as", "ana@example.com")
    assert (refused.code, "role admin" in refused.err) == (1, True), refused.err
    for said in ("n\n", "", "\n"):
        monkeypatch.setattr("sys.stdin", StringIO(said))
        kept = spotlab("outcomes", "remove", "probes")
        assert (kept.code, "Remove it for good?" in kept.err) == (1, True), kept.err
        assert [row["trace"] for row in spotlab("outcomes", "traces", "--json").json] == ["probes"]
    assert "probes: 12 rows of 2 pools, 2022-10-26 to 2022-10-26.\nFitted on it: no version.\n" in kept.err
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    removed = spotlab("outcomes", "remove", "probes", "--json")
    assert (removed.code, removed.json[0]["rows"], removed.json[0]["fitted_on_it"]) == (0, 12, [])
    assert spotlab("outcomes", "traces", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--region", "us-east-1"), "Give either --region or --region-column"),
        (("--zone", "use1-az1"), "Give either --zone or --zone-column"),
        (("--ignore-when", "available=1"), "'1' is stated more than once"),
        (("--kind", "guess"), "Correct --kind"),
        (("--kind", "2=launch"), "Correct --kind"),
        (("--kind", "launch", "--kind", "probe"), "one --kind for all rows"),
        (("--kind", "1=launch", "--kind", "1=probe"), "and one for each value"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage_before_the_file_is_looked_at(
    spotlab: Spotlab, arguments: tuple[str, ...], said: str
) -> None:
    answer = spotlab("outcomes", "import", "none.parquet", *OF_PROBES, *POLARITY, *arguments)
    assert (answer.code, said in answer.err) == (2, True), answer.err


def test_kinds_follow_the_values_that_tell_what_happened(spotlab: Spotlab, owner: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(EVENTS)
    (told,) = spotlab(
        "outcomes", "import", str(path), "--name", "events", "--time-column", "ts", "--region", "us-east-1",
        "--zone-column", "az", "--type-column", "instance_type", "--product", "Linux/UNIX",
        "--available-when", "event=created", "--available-when", "event=running", "--failed-when", "event=not_running",
        "--ignore-when", "event=create_failed", "--ignore-when", "event=deleted", "--kind", "running",
        "--kind", "created=launch", "--kind", "not_running=interruption", "--json",
    ).json  # fmt: skip
    assert (told["rows"], told["available"], told["failed"]) == (3, 2, 1)


def test_outcomes_are_resolved_and_listed_by_hand(spotlab: Spotlab, owner: sa.Engine) -> None:
    unknown = spotlab("outcomes", "list", "999999999999")
    assert (unknown.code, "999999999999" in unknown.err) == (1, True)
    register(owner)
    assert "Nothing is resolved yet" in spotlab("outcomes", "list", ACCOUNT).out
    ensure_partitions(owner, W)
    log = Log(owner)
    log.window(205, "i-1", "i-2", "i-3")
    log.instance("i-1", running=1)
    log.instance("i-2", running=205.5)
    log.event("i-2", 206)
    log.instance("i-3", running=205.5, ended=206, by="owner")
    (told,) = spotlab("outcomes", "resolve", ACCOUNT, "--no-read", "--json").json
    assert (told["labels"], told["events_read_until"]) == (3, None)
    listed = {row["instance_id"]: row for row in spotlab("outcomes", "list", ACCOUNT, "--json").json}
    assert (listed["i-1"]["interrupted_at"], listed["i-1"]["settled"]) == (None, False)
    shown = {line.split()[4]: line for line in spotlab("outcomes", "list", ACCOUNT).out.splitlines() if "i-" in line}
    assert [shown[each].split("│")[4].strip() for each in ("i-1", "i-2", "i-3")] == [
        "seen running", "interrupted", "ended by owner",
    ]  # fmt: skip
    assert spotlab("outcomes", "resolve", "999999999999", "--no-read").code == 1
