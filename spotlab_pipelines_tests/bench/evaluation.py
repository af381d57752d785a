"""One account's evaluation from Redis to committed rows, against the sum of its bare parts in the same run.

500 instances × 600 pools that all fit each other = 300,000 (instance, pool) pairs, two versions. The bare parts do the
same reading, arithmetic, predicting and writing on the same values, and nothing else: no snapshot, no checks, no
tables in the archive, no candidates, no reasons.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import redis as redis_client
import sqlalchemy as sa

from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.database.evaluations import EvaluationKey
from spotlab_pipelines.database.migrate import ensure_databases, upgrade
from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines.database.redis import connect_redis
from spotlab_pipelines.experiments.log import COPY, CREATE, INSERT, log_evaluation, to_csv
from spotlab_pipelines.features.snapshot import freeze_snapshot
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.inference.scoring import score_evaluation
from spotlab_pipelines.local import down, up
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.placement.decide import decide_evaluation
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.measure import Figure, best_of
from spotlab_pipelines_tests.features.seeded import ACCOUNT, SeededMarket, begun, publish, seed_account, seeded_market
from spotlab_pipelines_tests.inference.models import register_both

ROUNDS = 25
"""Both sides wait for Postgres for half of their time: with a few rounds the ratio varies by a tenth."""
INSTANCES = 500
FAMILIES, SIZES, ZONES = 20, 5, 6
CHANGES_PER_POOL = 20


@dataclass(frozen=True)
class World:
    """A seeded laboratory; `windows` gives each evaluation a window of its own."""

    market: SeededMarket
    settings: Settings
    engine: sa.Engine
    redis: redis_client.Redis
    archive: Archive
    registry: ModelRegistry
    windows: Iterator[datetime]

    def begin(self) -> EvaluationKey:
        """Begin a new evaluation, as the fleet's step does."""
        return begun(self.engine, next(self.windows))

    def scrape_anew(self) -> None:
        """Publish the market as a new scrape: of values seen before, an evaluation would find the snapshot there."""
        publish(self.redis, self.settings, self.market, fetched_at=datetime.now(UTC))


def figures() -> list[Figure]:
    """The product's time against its bare parts'."""
    with world() as seeded:
        # The first evaluation warms both sides up and gives the bare side its matrix and rows.
        reference = seeded.begin()
        evaluate(seeded, reference)
        bare = BareParts(seeded, reference)
        bare.run()
        begun_keys: list[EvaluationKey] = []

        def before() -> None:
            seeded.scrape_anew()
            begun_keys.append(seeded.begin())

        measured_s, floor_s = best_of(ROUNDS, lambda: evaluate(seeded, begun_keys[-1]), bare.run, before=before)
        parts = ", ".join(f"{name} {1000 * spent:.1f}" for name, spent in bare.spent.items())
    pools = FAMILIES * SIZES * ZONES
    name = (
        f"evaluation from Redis to committed rows: {INSTANCES} instances, {INSTANCES * pools:,} (instance, pool) pairs"
    )
    return [Figure(name, measured_s, "its bare parts", floor_s, 2.0, f"bare parts of the last round, ms: {parts}")]


@contextmanager
def world() -> Iterator[World]:
    """Embedded stores of our own in a scratch folder, a market in Redis, a fleet and two versions in Postgres."""
    folder = Path(tempfile.mkdtemp(prefix="spotlab-bench-"))
    folder.chmod(0o711)
    settings = Settings(data_dir=folder, mlruns_dir=folder / "mlruns")
    try:
        up(settings)
        ensure_databases(settings)
        upgrade(settings)
        now = datetime.now(UTC)
        market = _market(now)
        engine, redis = connect(settings), connect_redis(settings)
        publish(redis, settings, market, fetched_at=now)
        seed_account(engine, market, instances=INSTANCES)
        registry = ModelRegistry(engine, settings)
        register_both(registry)
        ensure_partitions(engine, now)
        windows = (now + timedelta(milliseconds=number) for number in itertools.count())
        yield World(market, settings, engine, redis, Archive(settings.archive_location), registry, windows)
    finally:
        down(settings)
        shutil.rmtree(folder, ignore_errors=True)


def evaluate(world: World, key: EvaluationKey) -> None:
    """What the assets do, one after the other, from features on; the fleet's step has begun the evaluation."""
    freeze_snapshot(world.settings, world.engine, world.redis, world.archive, key)
    score_evaluation(world.registry, world.archive, key)
    decide_evaluation(world.settings, world.engine, world.archive, key)
    log_evaluation(world.engine, world.archive, key)


class BareParts:
    """The same values read, computed, predicted and written by hand."""

    def __init__(self, world: World, reference: EvaluationKey) -> None:
        self.world = world
        self.spent: dict[str, float] = {}
        self.keys = sorted(
            key.decode() for kind in ("instance_metadata:", "spot_") for key in world.redis.scan_iter(f"{kind}*")
        )
        features = world.archive.read_table("features", reference)
        self.matrix = features[["price_position", "discount_depth", "family_stress_index", "historic_interrupt_rate"]]
        self.matrix = self.matrix.to_numpy()
        self.on_demand = features["on_demand_usd_per_hour"].to_numpy()
        self.rate_min, self.rate_max = (features[f"interrupt_rate_{end}"].to_numpy() for end in ("min", "max"))
        self.family = np.repeat(np.arange(FAMILIES), SIZES * ZONES)
        self.estimators = [world.registry.open(row)._estimator for row in world.registry.serving()]
        self.decisions = world.archive.read_table("decisions", reference)
        self.snapshot_id = world.archive.read_metadata("features", reference)["snapshot_id"]

    def run(self) -> None:
        """All parts once, each one's time kept in `spent`."""
        for part in (self.read, self.compute, self.predict, self.write):
            started = time.perf_counter()
            part()
            self.spent[part.__name__] = time.perf_counter() - started

    def read(self) -> None:
        """MGET and decode the same values."""
        values: Any = self.world.redis.mget(self.keys)
        documents = [orjson.loads(value) for value in values]
        self.histories = [document["changes"] for document in documents if "changes" in document]

    def compute(self) -> None:
        """The features' arithmetic over the same change points."""
        codes, offset = [], 0
        for history in self.histories:
            code = np.array(history["pool"])
            codes.append(code + offset)
            offset += int(code[-1]) + 1
        pool = np.concatenate(codes)
        changed = np.concatenate([np.array(history["changed_at_us"]) for history in self.histories])
        price = np.concatenate([np.array(history["spot_price_usd_per_hour"]) for history in self.histories])
        start = int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1e6)
        order = np.lexsort((changed, pool))
        pool, changed, price = pool[order], changed[order], price[order]
        last = np.r_[pool[1:] != pool[:-1], True]
        opening = (changed <= start) & np.r_[(changed[1:] > start) | last[:-1], True]
        kept = (changed > start) | opening
        pool, price = pool[kept], price[kept]
        first = np.flatnonzero(np.r_[True, pool[1:] != pool[:-1]])
        spot = price[np.r_[first[1:], len(price)] - 1]
        lowest, highest = np.minimum.reduceat(price, first), np.maximum.reduceat(price, first)
        position = (spot - lowest) / (highest - lowest)
        stress = (np.bincount(self.family, weights=position) / np.bincount(self.family))[self.family]
        rate = np.where(self.rate_min >= 0.2, 0.3, (self.rate_min + self.rate_max) / 2)
        np.column_stack([position, 1 - spot / self.on_demand, stress, rate])

    def predict(self) -> None:
        """Both models on the matrix."""
        advisor_rate, logistic = self.estimators
        advisor_rate.predict(self.matrix[:, 3:])
        logistic.predict(self.matrix)

    def write(self) -> None:
        """COPY the same rows to a temporary table, INSERT … SELECT and commit."""
        payload = to_csv(self.decisions)
        values = {
            "account_id": ACCOUNT,
            "window_start": next(self.world.windows),
            "snapshot_id": self.snapshot_id,
            "scored_at": None,
            "timings_ms": {},
        }
        with self.world.engine.begin() as connection:
            connection.exec_driver_sql(CREATE)
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(memoryview(payload))
            connection.execute(INSERT, values)


def _market(now: datetime) -> SeededMarket:
    return seeded_market(families=FAMILIES, sizes=SIZES, zones=ZONES, changes_per_pool=CHANGES_PER_POOL, now=now)
