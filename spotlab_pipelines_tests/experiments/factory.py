"""Evaluations to log, without the rooms that would compute them: registered accounts, versions and decided tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import engine_for
from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation
from spotlab_pipelines.database.tables import Account, ModelVersion, User
from spotlab_pipelines.experiments.frames import PROBABILITIES
from spotlab_pipelines.market.archive import Archive

ACCOUNT = "210000000001"
WINDOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
KEY = EvaluationKey(ACCOUNT, WINDOW)
SNAPSHOT = "5" * 64
CHAMPION, CHALLENGER = "advisor-rate/1", "logistic/1"


def as_owner(engine: sa.Engine) -> sa.Engine:
    """The engine of the tables' owner, who alone says which versions are served."""
    return engine_for(engine.url.render_as_string(hide_password=False), pool_size=2, role="owner")


def register(engine: sa.Engine, *accounts: str, interval_s: int = 1800, state: str = "active") -> None:
    """Register accounts, and the two versions that serve them."""
    with as_owner(engine).begin() as connection:
        owner = connection.scalar(sa.select(User.id).where(User.email == "owner@example.com"))
        if owner is None:
            owner = connection.scalar(sa.insert(User).values(email="owner@example.com").returning(User.id))
            versions = [_version(CHAMPION, "champion"), _version(CHALLENGER, "challenger")]
            connection.execute(sa.insert(ModelVersion), versions)
        for account in accounts or (ACCOUNT,):
            connection.execute(
                sa.insert(Account).values(
                    account_id=account,
                    name=f"account {account}",
                    owner_id=owner,
                    role_arn=f"arn:aws:iam::{account}:role/spotlab",
                    external_id=f"external-id-of-{account}-000",
                    regions=["us-east-1"],
                    evaluation_interval_s=interval_s,
                    interruption_cost_usd=1.0,
                    state=state,
                )
            )


def decisions(instances: int = 3, *, account_id: str = ACCOUNT, seed: int = 7) -> pd.DataFrame:
    """Decisions of two versions on `instances` instances: STAY, SWITCH, FALLBACK_ON_DEMAND and SKIP in turn."""
    rng = np.random.default_rng(seed)
    n = 2 * instances
    number = np.repeat(np.arange(instances), 2)
    champion = np.tile([True, False], instances)
    kinds = np.array(["STAY", "SWITCH", "FALLBACK_ON_DEMAND", "SKIP"])[number % 4]
    skipped, switched = kinds == "SKIP", kinds == "SWITCH"
    amounts = rng.random((n, 5)) / 3
    probabilities = np.sort(rng.random((n, 2, 3)), axis=2).reshape(n, 6)
    probabilities[:, 3:][~switched] = np.nan
    probabilities[skipped] = np.nan
    frame = pd.DataFrame(
        {
            "account_id": account_id,
            "instance_id": [f"i-{i:017x}" for i in number],
            "region": "us-east-1",
            "model_version": np.where(champion, CHAMPION, CHALLENGER),
            "model_role": np.where(champion, "champion", "challenger"),
            "acting": champion,
            "shadow": ~champion,
            "pipeline_mode": "LINEAR",
            "from_pool": "m5.large:use1-az1:Linux/UNIX",
            "to_pool": pd.Series("m5a.large:use1-az2:Linux/UNIX", index=range(n), dtype="str").where(switched),
            "from_price_usd_per_hour": amounts[:, 0],
            "to_price_usd_per_hour": np.where(switched, amounts[:, 1], np.nan),
            "from_cost_usd_per_hour": np.where(skipped, np.nan, amounts[:, 2]),
            "to_cost_usd_per_hour": np.where(switched, amounts[:, 3], np.nan),
            "gain": np.where(skipped, np.nan, amounts[:, 4]),
            "candidates_considered": np.where(skipped, 0, 12),
            "decision": kinds,
            "reason": np.where(skipped, "its pool has no prediction", 'a "reason", with\na comma and a line'),
        }
    )
    frame[list(PROBABILITIES)] = probabilities
    features = [{"price_position": float(p), "discount_depth": 0.7} for p in rng.random(n)]
    frame["features"] = pd.Series(
        [None if skip else each for skip, each in zip(skipped, features, strict=True)], dtype=object
    )
    return frame


def decided(
    engine: sa.Engine,
    archive: Archive,
    *,
    key: EvaluationKey = KEY,
    frame: pd.DataFrame | None = None,
    snapshot_id: str = SNAPSHOT,
    scored_at: datetime | None = None,
) -> pd.DataFrame:
    """Begin an evaluation and leave its tables in the archive, as the rooms before the log do; return its decisions.

    Scored when it is logged, long after its window, unless `scored_at` says otherwise.
    """
    begin_evaluation(engine, key, "a-run")
    frame = decisions(account_id=key.account_id) if frame is None else frame
    pools = pd.DataFrame(
        {
            "instance_type": ["m5.large", "m5a.large", "c5.large"],
            "az_id": "use1-az1",
            "product": "Linux/UNIX",
            "on_demand_usd_per_hour": [0.096, 0.086, np.nan],
        }
    )
    excluded = pd.DataFrame({"instance_type": ["t3.large"], "reason": ["on-demand price is missing"]})
    written = {"features": pools, "predictions": pools, "decisions": frame}
    for number, (table, rows) in enumerate(written.items()):
        metadata: dict[str, Any] = {"snapshot_id": snapshot_id, "timings_ms": {table: 1.5 + number}}
        if table == "predictions" and scored_at is not None:
            metadata["scored_at"] = scored_at.isoformat()
        archive.write_table(table, key, rows, metadata)
    archive.write_table("pools", key, pools)
    archive.write_table("exclusions", key, excluded)
    return frame


def _version(version: str, role: str) -> dict[str, object]:
    family, number = version.split("/")
    return {
        "version": version,
        "family": family,
        "number": int(number),
        "feature_spec": "v1",
        "horizons_h": [1, 6, 12],
        "artifact_uri": "file:///nowhere",
        "artifact_sha256": "a" * 64,
        "mlflow_run_id": "0" * 32,
        "status": "approved",
        "role": role,
        "registered_by": "tests",
    }
