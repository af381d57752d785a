"""Writing an evaluation into `experiment_logs`: once, whole, in one transaction, however often it is tried.

The archive holds decisions wide, one row per (instance, version); the log holds one row per (instance, version,
horizon). How the rows travel is `copying.py`'s, reading the log `queries.py`'s, MLflow `tracking.py`'s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from spotlab_pipelines.accounts.frames import check_frame
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.evaluations import EvaluationKey, lock_account
from spotlab_pipelines.database.partitions import ensure_partitions, missing_months
from spotlab_pipelines.errors import IntegrityError, NotFound
from spotlab_pipelines.experiments.copying import COPY, CREATE, INSERT, to_csv
from spotlab_pipelines.experiments.frames import decisions_schema
from spotlab_pipelines.placement.market import pool_id
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    import psycopg

    from spotlab_pipelines.market.archive import Archive

EVALUATED_TABLES = ("features", "predictions", "decisions")
"""The tables of an evaluation whose metadata names its snapshot and timings."""
DETAILS = ("failed_versions", "drift", "retrospective", "first_known", "backfilled")
"""What of that metadata the evaluation's row keeps, so that Postgres alone tells it."""
ON_DEMAND = "on_demand_usd_per_hour"
"""What `details` keeps besides: the on-demand price of each pool that a logged instance was in, by pool."""

FIND = sa.text("""
    select step, state, snapshot_id, counts from evaluations
    where account_id = :account_id and window_start = :window_start
""")
MARK_LOGGED = sa.text("""
    update evaluations
    set state = 'logged', snapshot_id = :snapshot_id, counts = :counts, details = :details, error = null,
        failed_at_step = null, finished_at = now()
    where account_id = :account_id and window_start = :window_start
""").bindparams(sa.bindparam("counts", type_=JSONB), sa.bindparam("details", type_=JSONB))


@dataclass(frozen=True)
class LogReport:
    """What `log_evaluation` did. An evaluation that was already logged has `written` 0 and its first snapshot."""

    account_id: str
    window_start: datetime
    step: int
    snapshot_id: str
    written: int
    already_logged: bool
    counts: dict[str, Any]


@dataclass(frozen=True)
class _Evaluated:
    """An evaluation as the archive holds it, ready to be sent."""

    payload: pa.Buffer
    rows: int
    snapshot_id: str
    scored_at: str | None
    timings_ms: dict[str, float]
    counts: dict[str, Any]
    details: dict[str, Any]


def log_evaluation(engine: sa.Engine, archive: Archive, key: EvaluationKey) -> LogReport:
    """Write an evaluation's decisions to `experiment_logs` and mark it logged, in one transaction.

    An evaluation that is already logged stays as it is: a retried, doubled or concurrent call writes nothing.

    Raises:
        NotFound: the evaluation was not begun, or its tables are not in the archive.
        SourceMalformed: the decisions do not have their shape; nothing is written.
        IntegrityError: the archive's tables stem from different snapshots, a version is not in the registry, or the
            log already has other rows of this evaluation; nothing is written.
        StoreUnavailable: Postgres or the archive does not answer; nothing is written.
    """
    try:
        with database_errors(), engine.connect() as connection:
            found = _find(connection, key)
            missing = missing_months(connection, key.window_start)
        if found.state == "logged":
            return _already_logged(key, found)
        evaluated = _read_evaluated(archive, key)
        if missing:
            ensure_partitions(engine, key.window_start)
        with database_errors(), engine.begin() as connection:
            lock_account(connection, key.account_id)
            found = _find(connection, key)
            if found.state == "logged":
                return _already_logged(key, found)
            written = _write(connection, key, evaluated)
            _mark_logged(connection, key, evaluated)
    except DatabaseIntegrityError as error:
        detail = getattr(getattr(error.orig, "diag", None), "message_primary", None)
        raise IntegrityError(
            f"Postgres refuses the log of evaluation {key}: {detail or type(error.orig).__name__}.",
            remedy="Nothing was written; evaluate the account again.",
        ) from error
    return LogReport(
        account_id=key.account_id,
        window_start=key.window_start,
        step=found.step,
        snapshot_id=evaluated.snapshot_id,
        written=written,
        already_logged=False,
        counts=evaluated.counts,
    )


def _read_evaluated(archive: Archive, key: EvaluationKey) -> _Evaluated:
    decisions = check_frame(decisions_schema(), archive.read_table("decisions", key), f"Decisions of evaluation {key}")
    foreign = set(decisions["account_id"].unique()) - {key.account_id}
    if foreign:
        raise IntegrityError(f"The decisions of evaluation {key} hold rows of account {min(foreign)}.")
    metadata = [archive.read_metadata(table, key) for table in EVALUATED_TABLES]
    snapshots = {each["snapshot_id"] for each in metadata if "snapshot_id" in each}
    if len(snapshots) != 1:
        raise IntegrityError(
            f"The tables of evaluation {key} must stem from one snapshot; they name {sorted(snapshots) or 'none'}.",
            remedy="Evaluate the account again, from its features on.",
        )
    pools, exclusions = archive.read_table("pools", key), archive.read_table("exclusions", key)
    acting = decisions["decision"].array[decisions["acting"].to_numpy()]
    return _Evaluated(
        payload=to_csv(decisions),
        rows=len(decisions) * len(HORIZONS_H),
        snapshot_id=snapshots.pop(),
        scored_at=next((each["scored_at"] for each in metadata if "scored_at" in each), None),
        timings_ms={step: ms for each in metadata for step, ms in each.get("timings_ms", {}).items()},
        counts={
            "instances": decisions["instance_id"].nunique(),
            "versions": decisions["model_version"].nunique(),
            "pools": len(pools),
            "excluded": dict(Counter(exclusions["reason"]).most_common()),
            "decisions": dict(Counter(acting.tolist()).most_common()),
            "rows": len(decisions) * len(HORIZONS_H),
        },
        details={name: each[name] for each in metadata for name in DETAILS if name in each}
        | {ON_DEMAND: on_demand_prices(pools, decisions)},
    )


def on_demand_prices(pools: pd.DataFrame, decisions: pd.DataFrame) -> dict[str, float]:
    """The on-demand price in USD per hour of each pool that an instance was in; of one without a price nothing."""
    named = pools.set_index(pool_id(pools))[ON_DEMAND].dropna()
    here = named.index.isin(decisions["from_pool"].unique())
    return {str(pool): float(price) for pool, price in named[here].items()}


def _write(connection: sa.Connection, key: EvaluationKey, evaluated: _Evaluated) -> int:
    connection.exec_driver_sql(CREATE)
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.write(memoryview(evaluated.payload))
    written = connection.execute(
        INSERT,
        {
            "account_id": key.account_id,
            "window_start": key.window_start,
            "snapshot_id": evaluated.snapshot_id,
            "scored_at": evaluated.scored_at,
            "timings_ms": evaluated.timings_ms,
        },
    ).rowcount
    if written != evaluated.rows:
        raise IntegrityError(
            f"The log already has {evaluated.rows - written} of the {evaluated.rows} rows of evaluation {key}, which "
            "is not marked as logged.",
            remedy="Nothing was written; find out who wrote those rows.",
        )
    return written


def _mark_logged(connection: sa.Connection, key: EvaluationKey, evaluated: _Evaluated) -> None:
    values = {"snapshot_id": evaluated.snapshot_id, "counts": evaluated.counts, "details": evaluated.details}
    connection.execute(MARK_LOGGED, asdict(key) | values)


def _find(connection: sa.Connection, key: EvaluationKey) -> sa.Row[Any]:
    found = connection.execute(FIND, asdict(key)).one_or_none()
    if found is None:
        raise NotFound(f"There is no evaluation {key}.", remedy="Begin it with the first step of its account.")
    return found


def _already_logged(key: EvaluationKey, found: sa.Row[Any]) -> LogReport:
    return LogReport(
        account_id=key.account_id,
        window_start=key.window_start,
        step=found.step,
        snapshot_id=found.snapshot_id,
        written=0,
        already_logged=True,
        counts=found.counts,
    )
