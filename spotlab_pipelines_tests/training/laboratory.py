"""A laboratory with a trace, and the commands that bring another and train a version."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.training.traces import generated_trace

UNTIL = "2023-03-13"


@pytest.fixture
def laboratory(spotlab: Spotlab, engine: sa.Engine, mlflow_database: str, tmp_path: Path) -> Spotlab:
    """A laboratory into which a generated trace was imported."""
    bring(spotlab, "generated", tmp_path)
    return spotlab


def bring(
    laboratory: Spotlab, name: str, folder: Path, *, region: str = "us-west-2", rows: slice = slice(None),
    **generated: int,
) -> None:  # fmt: skip
    """Import some rows of a generated trace under a name."""
    file = folder / f"{name}.parquet"
    trace = generated_trace(every_min=60, **generated).assign(region=region).iloc[rows]
    trace.assign(available=trace["available"].astype(int)).to_parquet(file)
    answer = laboratory(
        "outcomes", "import", str(file), "--name", name, "--time-column", "observed_at",
        "--region-column", "region", "--zone-column", "az_id", "--type-column", "instance_type",
        "--product-column", "product",
        "--available-when", "available=1", "--failed-when", "available=0",
    )  # fmt: skip
    assert answer.code == 0, answer.err


def train(laboratory: Spotlab, *more: str, family: str = "time-in-state") -> dict:
    """Train a version on that trace; what the command says of it."""
    answer = laboratory("models", "train", family, "--trace", "generated", *more, "--json")
    assert answer.code == 0, answer.err
    return answer.json[0]
