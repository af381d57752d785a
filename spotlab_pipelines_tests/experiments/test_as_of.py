"""Windows of the past: what was known then and no more, the fleet of then, logged once, marked as retrospective."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.errors import InvalidInput, NotFound
from spotlab_pipelines.experiments.as_of import PastEvaluation, evaluate_past
from spotlab_pipelines.experiments.queries import evaluation_row, latest_decisions, row_counts
from spotlab_pipelines.experiments.replay import replay_evaluation
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.features.windows import price_windows
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.past import PastMarkets
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.features.seeded import (
    ACCOUNT,
    SeededMarket,
    archived,
    begun,
    publish,
    seed_account,
    seeded_market,
)
from spotlab_pipelines_tests.inference.models import register_both

__all__ = ["spotlab", "use"]

HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Past:
    """An account that was connected at `now`: its first scrapes are of then, its prices of the ten days before."""

    settings: Settings
    engine: sa.Engine
    archive: Archive
    registry: ModelRegistry
    market: SeededMarket
    now: datetime

    def evaluate(self, *hours_ago: float, first_known: bool = True) -> list[PastEvaluation]:
        instants = [self.now - hours * HOUR for hours in hours_ago]
        return evaluate_past(
            self.settings, self.engine, self.archive, self.registry, [ACCOUNT], instants, first_known=first_known
        )

    def key(self, hours_ago: float) -> EvaluationKey:
        return EvaluationKey(ACCOUNT, self.now - hours_ago * HOUR)

    def features(self, hours_ago: float) -> pd.DataFrame:
        return self.archive.read_table("features", self.key(hours_ago))


@pytest.fixture
def past(settings: Settings, engine: sa.Engine, owner: sa.Engine, mlflow_database: str) -> Past:
    now, registry, archive = datetime.now(UTC), ModelRegistry(engine, settings), Archive(settings.archive_location)
    market = seeded_market(now=now)
    seed_account(engine, market, instances=4)
    register_both(registry)
    with owner.begin() as connection:
        connection.execute(sa.text("update instances set launched_at = :at"), {"at": now - timedelta(days=20)})
        ended = "update instances set state = 'terminated', ended_at = :at where right(instance_id, 1) = '3'"
        connection.execute(sa.text(ended), {"at": now - 9 * HOUR})
    archived(archive, market, fetched_at=now)
    return Past(settings, engine, archive, registry, market, now)


def test_a_window_before_the_first_scrape_has_its_own_prices_and_fleet_and_says_what_stood_in(past: Past) -> None:
    late, early = past.evaluate(6, 12)[::-1]
    assert (early.instances, late.instances) == (4, 3), "one ended nine hours ago"
    assert (early.rows_written, late.rows_written) == (24, 18)
    for hours in (6, 12):
        expected = price_windows(past.market.changes, past.now - hours * HOUR, WEEK)
        found = past.features(hours)["spot_price_usd_per_hour"]
        pd.testing.assert_series_equal(found, expected["spot_price_usd_per_hour"], check_exact=True)
    marks = {"retrospective": True, "first_known": ["instance_catalogue", "spot_advisor"], "backfilled": True}
    row = evaluation_row(past.engine, ACCOUNT, past.key(12).window_start)
    assert {name: row["details"][name] for name in marks} == marks
    _, metadata = past.archive.read_snapshot(row["snapshot_id"])
    assert {name: metadata[name] for name in marks} == marks
    assert metadata["as_of"] == past.key(12).window_start.isoformat()
    decisions = latest_decisions(past.engine, ACCOUNT, past.key(12).window_start)
    assert decisions["shadow"].all(), "nothing acts on a decision about the past"
    assert {each.verdict for each in replay_evaluation(past.engine, past.archive, past.registry, past.key(12))} == {
        "identical"
    }


def test_what_was_not_known_then_is_an_error_by_name_unless_it_may_stand_in(past: Past) -> None:
    before = row_counts(past.engine)
    with pytest.raises(NotFound, match=r"no scrape of instance_catalogue .* the first one ran at .*--first-known"):
        past.evaluate(6, first_known=False)
    assert row_counts(past.engine) == before
    with pytest.raises(NotFound, match="no prices as old as"):
        past.evaluate(24 * 11)
    with pytest.raises(InvalidInput, match="up to now"):
        past.evaluate(6, -1)
    assert row_counts(past.engine) == before


def test_where_the_archive_was_being_written_only_what_it_had_counts(past: Past) -> None:
    archive = Archive(f"{past.archive.url}-of-its-own")
    # Two scrapes: what changed between them was known only to the second.
    archived(archive, past.market, fetched_at=past.now - 8 * HOUR)
    archived(archive, past.market, fetched_at=past.now)
    strict = Past(past.settings, past.engine, archive, past.registry, past.market, past.now)
    [found] = strict.evaluate(2, first_known=False)
    assert (found.first_known, found.backfilled) == ((), False)
    known = past.market.changes[past.market.changes["changed_at"] <= past.now - 8 * HOUR]
    expected, since = (price_windows(changes, past.now - 2 * HOUR, WEEK) for changes in (known, past.market.changes))
    prices = strict.features(2)["spot_price_usd_per_hour"]
    pd.testing.assert_series_equal(prices, expected["spot_price_usd_per_hour"], check_exact=True)
    assert (prices.to_numpy() != since["spot_price_usd_per_hour"].to_numpy()).any()


def test_an_evaluation_of_now_and_one_as_of_then_see_the_same_to_the_last_bit(
    past: Past, redis: redis_py.Redis, owner: sa.Engine
) -> None:
    publish(redis, past.settings, past.market, fetched_at=past.now)
    key = begun(past.engine, past.now + timedelta(seconds=1))
    freeze_snapshot(past.settings, past.engine, redis, past.archive, key)
    [found] = past.evaluate(0, first_known=False)
    assert not found.first_known
    pd.testing.assert_frame_equal(past.features(0), past.archive.read_table("features", key), check_exact=True)


def test_many_windows_are_read_once_written_once_and_are_points_in_the_order_of_time(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    load = PastMarkets.load
    monkeypatch.setattr(PastMarkets, "load", lambda self, *a, **b: (reads.append(a), load(self, *a, **b))[1])
    hours = [6 * number for number in range(1, 5)]
    past.evaluate(*hours)
    assert len(reads) == 1
    client = mlflow_client(past.settings)
    with past.engine.connect() as connection:
        rows = connection.execute(sa.text("select model_version, mlflow_run_id from tracking_runs")).all()
    runs = {str(row.model_version): str(row.mlflow_run_id) for row in rows}
    name = "probability/current_mean_6h"
    points = {version: client.get_metric_history(run_id, name) for version, run_id in runs.items()}
    for version, run_id in runs.items():
        times = [round((past.now - each * HOUR).timestamp() * 1000) for each in reversed(hours)]
        assert [(point.step, point.timestamp) for point in points[version]] == list(enumerate(times, start=1))
        assert client.get_run(run_id).data.tags["spotlab.first_known"] == "instance_catalogue, spot_advisor"
    counts = row_counts(past.engine)
    again = past.evaluate(*hours)
    assert [each.already_logged for each in again] == [True] * 4
    assert row_counts(past.engine) == counts
    for version, run_id in runs.items():
        assert len(client.get_metric_history(run_id, name)) == len(points[version])


def test_by_hand(past: Past, spotlab: Spotlab) -> None:
    first = (past.now - 12 * HOUR).isoformat()
    arguments = ("evaluate", ACCOUNT, "--as-of", first, "--no-scrape")
    assert "--first-known" in spotlab(*arguments).err
    answer = spotlab(*arguments, "--every", "6h", "--count", "2", "--first-known", "--json")
    assert answer.code == 0, answer.err
    assert [row["rows_written"] for row in answer.json] == [24, 18]
    shown = spotlab("experiments", "show", ACCOUNT, "--window", first)
    assert "'first_known': ['instance_catalogue', 'spot_advisor']" in shown.out
    for wrong in (["--as-of", "yesterday"], ["--count", "3"], ["--as-of", first, "--every", "6 hours"]):
        assert spotlab("evaluate", ACCOUNT, *wrong).code == 2
    future = spotlab("evaluate", ACCOUNT, "--as-of", (past.now + HOUR).isoformat(), "--no-scrape")
    assert future.code == 1
    assert "up to now" in future.err
