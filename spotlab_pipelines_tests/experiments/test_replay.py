"""Whatever was logged can be recomputed bit for bit from the archive and the pinned model, or it is said why not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.experiments.log import log_evaluation
from spotlab_pipelines.experiments.queries import row_counts
from spotlab_pipelines.experiments.replay import Difference, Replay, replay_evaluation
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.features.seeded import begun, publish, seed_account, seeded_market
from spotlab_pipelines_tests.inference.models import logistic, register, register_both

__all__ = ["spotlab", "use"]


@dataclass(frozen=True)
class Logged:
    """A logged evaluation of 20 instances under two versions, and all it was made of."""

    settings: Settings
    engine: sa.Engine
    owner: sa.Engine
    registry: ModelRegistry
    key: EvaluationKey
    snapshot: Path

    def replay(self) -> list[Replay]:
        """Replay the whole evaluation, as another process would: nothing is in this archive's memory."""
        return replay_evaluation(self.engine, Archive(self.settings.archive_location), self.registry, self.key)

    def change(self, statement: str, **values: Any) -> None:
        with self.owner.begin() as connection:
            connection.execute(sa.text(statement), values)

    def row(self, where: str) -> Any:
        with self.owner.connect() as connection:
            return connection.execute(sa.text(f"select * from experiment_logs where {where} limit 1")).one()


@pytest.fixture
def logged(
    settings: Settings, engine: sa.Engine, owner: sa.Engine, redis: redis_py.Redis, mlflow_database: str
) -> Logged:
    now, registry, archive = datetime.now(UTC), ModelRegistry(engine, settings), Archive(settings.archive_location)
    market = seeded_market(now=now)
    publish(redis, settings, market, fetched_at=now)
    seed_account(engine, market, instances=20)
    _, challenger = register_both(registry)
    with owner.begin() as connection:
        connection.execute(
            sa.text("update instances set assigned_version = :v where right(instance_id, 1) = '3'"), {"v": challenger}
        )
        # Of another pool than the market knows: its rows are SKIP.
        connection.execute(sa.text("update instances set az_id = 'use1-az6' where right(instance_id, 1) = '4'"))
    key = begun(engine, now)
    snapshot_id = freeze_snapshot(settings, engine, redis, archive, key).snapshot_id
    score_evaluation(registry, archive, key)
    decide_evaluation(settings, engine, archive, key)
    log_evaluation(engine, archive, key)
    snapshot = Path(settings.archive_location) / "snapshots" / snapshot_id
    return Logged(settings, engine, owner, registry, key, snapshot)


def verdicts(replays: list[Replay]) -> dict[str, int]:
    found = [each.verdict for each in replays]
    return {verdict: found.count(verdict) for verdict in sorted(set(found))}


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def test_it_is_identical_whatever_has_changed_since_and_nothing_is_written(
    logged: Logged, redis: redis_py.Redis, spotlab: Spotlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = logged.settings
    redis.flushall()
    logged.change("update accounts set interruption_cost_usd = 50, environment = 'PROD'")
    logged.change("update instances set state = 'terminated', assigned_version = null, shadow = true")
    register(logged.registry, "logistic", logistic(5))
    logged.registry.approve("logistic/2")
    logged.registry.promote("logistic/2", override="a test")
    logged.registry.retire("advisor-rate/1")
    for name, value in {"minimum_gain": "0.9", "open_bucket_rate": "0.9", "price_window_days": "2"}.items():
        monkeypatch.setenv(f"SPOTLAB_{name.upper()}", value)
    before = row_counts(logged.engine), files(Path(settings.archive_location)), files(settings.mlruns_dir)

    answer = spotlab("replay", logged.key.account_id, logged.key.window_start.isoformat())

    assert answer.code == 0, answer.out + answer.err
    assert "120 rows: 120 identical, 0 differs, 0 cannot be replayed." in answer.out
    [evaluated] = {str(logged.row(f"decision = '{each}'").id) for each in ("SKIP",)}
    assert spotlab("replay", evaluated).out.strip().endswith(": identical")
    assert (row_counts(logged.engine), files(Path(settings.archive_location)), files(settings.mlruns_dir)) == before


def test_a_row_that_was_changed_is_told_by_its_field_to_the_last_bit(logged: Logged, spotlab: Spotlab) -> None:
    import math

    row = logged.row("p_current > 0 and horizon_h = 6 and gain is not null")
    other = logged.row("decision = 'STAY' and horizon_h = 1")
    altered = math.nextafter(row.p_current, 1.0)
    logged.change("update experiment_logs set p_current = :p where id = :id", p=altered, id=row.id)
    logged.change(
        "update experiment_logs set reason = 'because', features = features || '{\"price_position\": 0.123}'"
        " where id = :id", id=other.id,
    )  # fmt: skip
    gone = logged.row("decision = 'SKIP'")
    logged.change("delete from experiment_logs where id = :id", id=gone.id)

    replays = logged.replay()

    assert verdicts(replays) == {"differs": 3, "identical": 117}
    differing = {each.experiment_id: each.differences for each in replays if each.verdict == "differs"}
    assert differing[str(row.id)] == (Difference("p_current", altered, row.p_current),)
    assert [each.field for each in differing[str(other.id)]] == ["features", "reason"]
    assert differing[""] == (Difference("row", logged=False, recomputed=True),)
    answer = spotlab("replay", str(row.id))
    assert answer.code == 1
    assert f"p_current: logged {altered!r}, recomputed {row.p_current!r}" in answer.out
    assert spotlab("replay", str(row.id), "--json").json[0]["differences"][0]["field"] == "p_current"


@pytest.mark.parametrize("how", ["one float", "bytes", "gone"])
def test_a_snapshot_that_is_not_what_it_was_cannot_be_replayed(logged: Logged, spotlab: Spotlab, how: str) -> None:
    prices = logged.snapshot / "prices.parquet"
    if how == "one float":
        table = pq.read_table(prices)
        column = table["spot_price_usd_per_hour"].to_pylist()
        column[0] += 1e-12
        index = table.column_names.index("spot_price_usd_per_hour")
        pq.write_table(table.set_column(index, table.field(index), [column]), prices)
    elif how == "bytes":
        content = bytearray(prices.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        prices.write_bytes(content)
    else:
        shutil.rmtree(logged.snapshot)
    answer = spotlab("replay", str(logged.row("true").id))
    assert answer.code == 2
    said = "is not in the archive" if how == "gone" else "was changed after it was written"
    assert f"cannot be replayed: Snapshot {logged.snapshot.name} {said}" in answer.out


def test_a_version_whose_artifact_is_gone_cannot_be_replayed_and_the_others_can(
    logged: Logged, spotlab: Spotlab
) -> None:
    shutil.rmtree(logged.registry.artifact_folder(logged.registry.find("advisor-rate/1")))
    replays = logged.replay()
    assert verdicts(replays) == {"cannot be replayed": 60, "identical": 60}
    assert {each.model_version for each in replays if each.verdict == "identical"} == {"logistic/1"}
    assert all("The artifact of advisor-rate/1 is gone" in str(each.why) for each in replays if each.why)
    assert spotlab("replay", logged.key.account_id, logged.key.window_start.isoformat()).code == 2


def test_what_is_not_in_the_log_and_what_is_no_id_are_told_apart_from_a_difference(
    logged: Logged, spotlab: Spotlab
) -> None:
    unknown = spotlab("replay", "00000000-0000-0000-0000-000000000000")
    assert unknown.code == 2
    assert "The log has no row" in unknown.err
    assert spotlab("replay", "logistic/1").code == 2
    assert spotlab("replay", logged.key.account_id, "yesterday").code == 2
    shown = spotlab("experiments", "show", logged.key.account_id, "--json").json
    assert shown["evaluation"]["snapshot_id"] == logged.snapshot.name
    assert len(shown["rows"]) == 120
    assert spotlab("replay", shown["rows"][0]["id"]).code == 0
