"""The recorded public traces are read with the options that `spotlab outcomes import --help` shows for each kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from spotlab_pipelines.market.trace_files import read_rows
from spotlab_pipelines.market.trace_statement import TraceStatement, observations_from
from spotlab_pipelines_tests.market.trace_examples import CONSTANT, OF_EVENTS, STATEMENT
from spotlab_pipelines_tests.recorded import RECORDED, needs_recorded_data

pytestmark = needs_recorded_data
NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2023, 4, 22, tzinfo=UTC)
TICKS = replace(CONSTANT, time="#", time_unit="32s", start=START, available=(("data", "1"),), failed=(("data", "0"),))
NODES = replace(
    CONSTANT, time="ms", time_unit="ms", start=START, available=(("event", "add"),), failed=(("event", "remove"),)
)


@pytest.mark.parametrize(
    ("file", "statement", "columns", "pools", "rows", "failed"),
    [
        ("launch-probes_us-west-2_2022-10-26_2023-01-05.parquet", STATEMENT, (), 8, 74_712, None),
        ("instance-events_us-east-1_2020-03-15_17.csv", OF_EVENTS, (), 8, None, 32),
        ("spot-traces/preemption/1-node/aws-04-22-2023/us-west-2b_v100_1.json", TICKS, (), 1, 19_961, None),
        ("bamboo/p3-trace.csv", NODES, ("ms", "event", "node"), 1, None, None),
        ("bamboo/g4dn-trace.csv", NODES, ("ms", "event", "node"), 1, None, None),
    ],
)
def test_each_kind_of_trace_is_read(
    file: str, statement: TraceStatement, columns: tuple[str, ...], pools: int, rows: int | None, failed: int | None
) -> None:
    read = read_rows(RECORDED / "traces" / file, columns=columns)
    frame = observations_from(read, statement, name="x", now=NOW)
    assert frame[["az_id", "instance_type"]].drop_duplicates().shape[0] == pools
    assert rows is None or len(frame) == rows
    assert failed is None or int((~frame["available"]).sum()) == failed
    assert 0 < frame["available"].mean() < 1
