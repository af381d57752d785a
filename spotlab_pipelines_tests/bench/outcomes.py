"""Resolving the outcomes of 1,000,000 logged predictions against 100,000 interruptions, against DuckDB's hash join.

Both sides begin with the same stored rows (predictions, instances, events, each in its own tables) and end with the
labels stored. DuckDB stores one label for each prediction. The product stores one for each instance and window, from
which the view gives each prediction its own; what reading all of them through the view takes besides is told too.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import sqlalchemy as sa

from spotlab_pipelines.database.engine import connect, disconnect
from spotlab_pipelines.database.migrate import ensure_databases, upgrade
from spotlab_pipelines.experiments.outcomes import resolve_outcomes
from spotlab_pipelines.local import down, up
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.measure import Figure, best_of
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, register
from spotlab_pipelines_tests.experiments.outcome_log import PREDICTIONS, fill, reset

ROUNDS = 5
COPIED = {
    "log": "select account_id, window_start, instance_id, model_version, horizon_h, p_current from experiment_logs",
    "instances": "select instance_id, region, instance_type, az_id, product, launched_at, last_running_at, ended_at, "
    "ended_by from instances",
    "events": "select instance_id, occurred_at, source from interruption_events",
}
JOIN = """
    create or replace table labels as
    select l.account_id, l.window_start, l.instance_id, l.model_version, l.horizon_h, e.source,
           case when e.occurred_at <= l.window_start + to_hours(l.horizon_h) then 'interrupted'
                when coalesce(e.occurred_at, i.last_running_at) > l.window_start + to_hours(l.horizon_h) then 'survived'
                else 'censored' end as outcome
    from log l join instances i on i.instance_id = l.instance_id
    left join events e on e.instance_id = l.instance_id and e.occurred_at > l.window_start
"""
COUNT = "select outcome, count(*) from {table} group by outcome order by outcome"


def figures() -> list[Figure]:
    """Resolving, the best of five, on stores of its own; the labels of both sides are the same."""
    folder = Path(tempfile.mkdtemp(prefix="spotlab-bench-"))
    folder.chmod(0o711)
    settings = Settings(data_dir=folder)
    try:
        up(settings)
        ensure_databases(settings)
        upgrade(settings)
        owner, pipeline = connect(settings, role="owner"), connect(settings)
        register(owner)
        fill(owner)
        floor = duckdb.connect(str(folder / "floor.duckdb"))
        _copy(owner, floor, folder)
        now = datetime.now(UTC)
        ours, theirs = best_of(
            ROUNDS,
            lambda: resolve_outcomes(pipeline, ACCOUNT, now),
            lambda: floor.execute(JOIN),
            before=lambda: reset(owner),
        )
        with pipeline.connect() as connection:
            query = sa.text(COUNT.format(table="v_labelled_predictions"))
            found = [tuple(row) for row in connection.execute(query)]
            read, read_there = best_of(
                2,
                lambda: connection.execute(query).all(),
                lambda: floor.execute(COUNT.format(table="labels")).fetchall(),
            )
        expected = floor.execute(COUNT.format(table="labels")).fetchall()
        if found != expected:
            raise AssertionError(f"The labels differ: {found}, DuckDB says {expected}.")
        disconnect(owner)
        disconnect(pipeline)
    finally:
        down(settings)
        shutil.rmtree(folder, ignore_errors=True)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in found)
    return [
        Figure(f"resolving {PREDICTIONS:,} predictions", ours, "hash join in DuckDB, labels stored", theirs, 2.0, told),
        Figure("counting all their labels through the view", read, "counting the stored labels", read_there, None),
    ]


def _copy(owner: sa.Engine, floor: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """The same rows as tables of DuckDB's own, with types of the same meaning."""
    floor.execute("set timezone = 'UTC'")
    for name, query in COPIED.items():
        path = folder / f"{name}.csv"
        with owner.connect() as connection, path.open("wb") as file:
            driver = connection.connection.driver_connection
            with driver.cursor().copy(f"copy ({query}) to stdout (format csv, header)") as copy:  # type: ignore[union-attr]
                for data in copy:
                    file.write(data)
        floor.execute(f"create table {name} as select * from read_csv('{path}', header = true, nullstr = '')")
        print(f"copied {name}: {floor.execute(f'describe {name}').fetchall()}", file=sys.stderr)
