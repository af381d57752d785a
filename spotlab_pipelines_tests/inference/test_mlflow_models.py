"""What MLflow's pages of families and versions say."""

from __future__ import annotations

import sqlalchemy as sa

from spotlab_pipelines.inference.mlflow_models import FAMILIES
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.training.families import FAMILIES as FITTED
from spotlab_pipelines_tests.inference.models import logistic, register


def test_a_family_says_what_it_is_and_a_candidate_that_it_is_one(
    engine: sa.Engine, settings: Settings, mlflow_database: str
) -> None:
    registry, client = ModelRegistry(engine, settings), mlflow_client(settings)
    for family in ("logistic", "own"):
        register(registry, family, logistic())
    assert client.get_registered_model("logistic").description == FAMILIES["logistic"]
    assert "LogisticModel" in str(client.get_registered_model("own").description)
    assert set(FAMILIES) == set(FITTED), "whatever can be fitted is explained"
    version = client.get_model_version("logistic", "1")
    assert (version.tags["spotlab.role"], version.tags["spotlab.status"]) == ("none", "candidate")
    assert str(version.description).startswith("Registered by a test; reads 4 features of spec v1.")
    registry.approve("logistic/1", role="challenger")
    tags = client.get_model_version("logistic", "1").tags
    assert (tags["spotlab.role"], tags["spotlab.status"]) == ("challenger", "approved")
