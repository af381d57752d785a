"""The whole Advisor, from its bytes to Redis: parsed, validated and published, against decoding and writing alone.

The floor decodes the same bytes with orjson and writes the very keys and values that the product writes, with the same
times to live, in one pipeline; it does not look at what it has decoded. The feed is the recorded one of 2024 (25
regions) where that is there, else one of the full feed's size: 33 regions, 895 types, 25,000 entries.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from spotlab_pipelines.database.redis import connect_redis
from spotlab_pipelines.local import down, up
from spotlab_pipelines.market.parse_advisor import RANGE_LABELS, parse_advisor
from spotlab_pipelines.market.publish import Envelope, publish_advisor
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.measure import Figure, best_of
from spotlab_pipelines_tests.recorded import RECORDED

ROUNDS = 9
TTL_S = 3600
FEED_2024 = RECORDED / "spot-advisor" / "spot-advisor-data_2024-02-28_25regions.json"
REGIONS, TYPES, ENTRIES = 33, 895, 25_000


def figures() -> list[Figure]:
    """The product's time against decoding and one pipelined write."""
    feeds = {"the full feed's size": generated()}
    if FEED_2024.exists():
        feeds["recorded, 2024"] = FEED_2024.read_bytes()
    folder = Path(tempfile.mkdtemp(prefix="spotlab-bench-"))
    folder.chmod(0o711)
    settings = Settings(data_dir=folder)
    try:
        up(settings)
        redis = connect_redis(settings)
        return [_figure(redis, name, feed) for name, feed in feeds.items()]
    finally:
        down(settings)
        shutil.rmtree(folder, ignore_errors=True)


def _figure(redis: Any, name: str, feed: bytes) -> Figure:
    envelope = Envelope("spot_advisor", "00000000-0000-0000-0000-000000000000", datetime.now(UTC))

    def product() -> None:
        publish_advisor(redis, parse_advisor(feed), envelope, ttl_s=TTL_S, regions=[])

    redis.flushall()
    product()
    keys = list(redis.scan_iter(count=10_000))
    values = dict(zip(keys, redis.mget(keys), strict=True))

    def floor() -> None:
        orjson.loads(feed)
        with redis.pipeline(transaction=True) as pipeline:
            for key, value in values.items():
                pipeline.set(key, value, ex=TTL_S)
            pipeline.execute()

    floor()
    product_s, floor_s = best_of(ROUNDS, product, floor)
    rows = parse_advisor(feed)
    note = f"{len(rows):,} entries, {rows['region'].nunique()} regions, {len(keys):,} keys"
    floor_name = "orjson.loads + one pipelined write of the same keys and values"
    return Figure(f"Advisor to Redis, {name}", product_s, floor_name, floor_s, 2.0, note)


def generated() -> bytes:
    """A feed of the size that the full one has in 2025, the same at every call."""
    rng = np.random.default_rng(2025)
    names = [f"m{number // 12}.{number % 12 + 1}xlarge" for number in range(TYPES)]
    offered = rng.random((REGIONS, 2, TYPES)).argsort(axis=None) < ENTRIES
    bucket, saving = rng.integers(0, 5, offered.size), rng.integers(-62, 92, offered.size)
    cells = zip(offered.tolist(), bucket.tolist(), saving.tolist(), strict=True)
    spot_advisor: dict[str, Any] = {}
    for region in range(REGIONS):
        for os in ("Linux", "Windows"):
            spot_advisor.setdefault(f"us-east-{region + 1}", {})[os] = {
                name: {"s": s, "r": r} for name, (there, r, s) in zip(names, cells, strict=False) if there
            }
    return orjson.dumps(
        {
            "global_rate": "<10%",
            "instance_types": {name: {"cores": 4, "ram_gb": 16.0, "emr": True} for name in names},
            "ranges": [{"index": n, "label": label, "dots": n, "max": 5} for n, label in enumerate(RANGE_LABELS)],
            "spot_advisor": spot_advisor,
        }
    )
