"""How much each store holds, counted, so that what a run wrote is the difference of two counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import pyarrow.fs as pafs
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors, database_url, engine_for
from spotlab_pipelines.database.redis import connect_redis, redis_errors
from spotlab_pipelines.experiments.queries import row_counts
from spotlab_pipelines.settings import Settings

MLFLOW_TABLES = {
    "runs": "runs",
    "metrics": "logged metrics",
    "registered_models": "models",
    "model_versions": "versions",
}


@dataclass(frozen=True)
class Holdings:
    """Counts by kind of thing. `redis_writes` counts SET commands since the server started: a key may be replaced."""

    postgres: dict[str, int]
    redis: dict[str, int]
    redis_writes: int
    archive: dict[str, int]
    archive_bytes: int
    mlflow: dict[str, int]


def holdings(settings: Settings, engine: sa.Engine) -> Holdings:
    """Count what every store holds now."""
    with redis_errors():
        client = connect_redis(settings)
        keys = Counter(key.partition(b":")[0].decode() for key in client.scan_iter(count=1000))
        commands = cast("dict[str, Any]", client.info("commandstats"))
    files = _files(settings.archive_location)
    return Holdings(
        postgres=row_counts(engine),
        redis=dict(sorted(keys.items())),
        redis_writes=commands.get("cmdstat_set", {}).get("calls", 0),
        archive=dict(sorted(Counter(path.partition("/")[0] for path in files).items())),
        archive_bytes=sum(files.values()),
        mlflow=_mlflow(settings) | {"artifact files": _artifacts(settings)},
    )


def _files(location: str) -> dict[str, int]:
    """Size in bytes of each Parquet file of the archive, a folder or an s3:// URL, by its path below the root."""
    if location.startswith("s3://"):
        filesystem, root = pafs.FileSystem.from_uri(location)
    else:
        filesystem, root = pafs.LocalFileSystem(), location
    found = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    prefix = root.rstrip("/") + "/"
    return {
        info.path.removeprefix(prefix): info.size or 0
        for info in found
        if info.type == pafs.FileType.File and info.path.endswith(".parquet")
    }


def _mlflow(settings: Settings) -> dict[str, int]:
    """Rows of MLflow's tables, which MLflow makes when it is first used."""
    with database_errors(), engine_for(database_url(settings, "mlflow"), pool_size=1).connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
        return {
            shown: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0
            if table in there
            else 0
            for table, shown in MLFLOW_TABLES.items()
        }


def _artifacts(settings: Settings) -> int:
    return sum(path.is_file() and path.name != "README.md" for path in settings.mlruns_dir.rglob("*"))
