"""A small log whose instances ended in ways that a test states, every time in hours after its first window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.partitions import ensure_partitions
from spotlab_pipelines.experiments.outcomes import OutcomesReport, resolve_outcomes
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHALLENGER, CHAMPION, SNAPSHOT, register

W = (datetime.now(UTC) - timedelta(days=9)).replace(microsecond=0)
"""Recent, since performance is that of the last days."""
LATER = W + timedelta(days=2)
POOL = "'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX'"
HORIZONS = (1, 6, 12)


def hours(value: float | None) -> datetime | None:
    return None if value is None else W + timedelta(hours=value)


@dataclass
class Log:
    """One account; every time is in hours after W, the start of the first window."""

    engine: sa.Engine

    @classmethod
    def begin(cls, engine: sa.Engine) -> Log:
        """Of a registered account, with room for its windows."""
        register(engine)
        ensure_partitions(engine, W)
        return cls(engine)

    def do(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), {"a": ACCOUNT, **values})

    def window(self, at: float, *instances: str, scored: float = 0, finished: float = 0.1, details: str = "{}") -> None:
        """A logged evaluation of two versions and three horizons, scored and finished so many hours after `at`."""
        self.do(
            "insert into evaluations (account_id, window_start, step, state, snapshot_id, started_at, finished_at, "
            "details) select :a, :w, 1 + count(*), 'logged', 's', :w, :f, :d from evaluations",
            w=hours(at), f=hours(at + finished), d=details,
        )  # fmt: skip
        self.do(
            "insert into experiment_logs (window_start, account_id, instance_id, model_version, horizon_h, model_role, "
            "acting, shadow, pipeline_mode, p_current, decision, reason, region, from_pool, candidates_considered, "
            "snapshot_id, scored_at, timings_ms) select :w, :a, i, v, h, 'none', v = :champion, false, 'LINEAR', "
            "case when v = :skipped then null else 0.1 end, 'STAY', 'x', 'us-east-1', 'm5.large:use1-az1:Linux/UNIX', "
            "1, :s, :scored, '{}' from unnest(cast(:i as text[])) i, unnest(cast(:v as text[])) v, "
            "unnest(array[1,6,12]) h",
            w=hours(at), i=list(instances), v=[CHAMPION, CHALLENGER], champion=CHAMPION, skipped="none", s=SNAPSHOT,
            scored=hours(at + scored),
        )  # fmt: skip

    def instance(
        self, name: str, *, running: float | None = None, launched: float = -5, ended: float | None = None,
        by: str | None = None, lifecycle: str = "spot",
    ) -> None:  # fmt: skip
        """An instance as last synced."""
        self.do(
            "insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, state, "
            f"launched_at, last_running_at, ended_at, ended_by, ended_source) values (:a, :i, {POOL}, :l, :state, "
            ":launched, :running, :ended, :by, :source) on conflict (account_id, instance_id) do update set "
            "state = excluded.state, launched_at = excluded.launched_at, last_running_at = excluded.last_running_at, "
            "ended_at = excluded.ended_at, ended_by = excluded.ended_by, ended_source = excluded.ended_source",
            i=name, l=lifecycle, state="running" if ended is None else "terminated", launched=hours(launched),
            running=hours(running), ended=hours(ended), by=by, source=by and "spot_request",
        )  # fmt: skip

    def event(self, name: str, at: float, number: int = 1, source: str = "spot_request") -> None:
        """An interruption on record."""
        self.do(
            "insert into interruption_events (account_id, instance_id, region, az_id, instance_type, product, source, "
            f"status_code, occurred_at, number) values (:a, :i, {POOL}, :s, 'x', :at, :n)",
            i=name, at=hours(at), n=number, s=source,
        )  # fmt: skip

    def read(self, at: float, *, error: str | None = None) -> None:
        """A reading of the account's interruptions."""
        self.do(
            "insert into scrapes (id, source, account_id, fetched_at, row_count, error) values (gen_random_uuid(), "
            "'pool_observations', :a, :at, 0, :e)", at=hours(at), e=error,
        )  # fmt: skip

    def resolve(self, now: datetime = LATER) -> OutcomesReport:
        return resolve_outcomes(self.engine, ACCOUNT, now)

    def labels(self, name: str, at: float = 0) -> str:
        """The outcomes of an instance and window at 1, 6 and 12 hours: i, s or c, in capitals where final."""
        frame = self.predictions(name, at)
        assert len(frame) == 6
        assert frame.groupby("horizon_h")["outcome"].nunique().max() == 1, "a label knows no version"
        rows = frame.drop_duplicates("horizon_h").sort_values("horizon_h")
        return "".join(o[0].upper() if final else o[0] for o, final in zip(rows["outcome"], rows["final"], strict=True))

    def predictions(self, name: str, at: float = 0) -> pd.DataFrame:
        query = sa.text("select * from v_labelled_predictions where instance_id = :i and window_start = :w")
        with self.engine.connect() as connection:
            return pd.read_sql(query, connection, params={"i": name, "w": hours(at)})
