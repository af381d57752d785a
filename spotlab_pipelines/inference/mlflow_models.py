"""MLflow's side of the registry: a version's files, run and page, and the roles that people see there.

Nothing is served from here: registry.py reads Postgres and the files.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from spotlab_pipelines.inference.artifacts import TRUSTED_TYPES
from spotlab_pipelines.inference.card import description
from spotlab_pipelines.inference.mlflow_store import PAGE, all_pages, experiment_id, log_dataset, ui_page

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from spotlab_pipelines.inference.estimators import HorizonEstimator
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.settings import Settings

EXPERIMENT = "models"
CHAMPION_ALIAS = "champion"
ROLE_TAG, STATUS_TAG = "spotlab.role", "spotlab.status"
REFERENCE_FILE = "reference.json"
CARD_FILE = "README.md"
FAMILIES = {
    "base-rate": "The share that was interrupted in the examples, the same for every pool: what a model has to beat.",
    "advisor-rate": "AWS's Spot Advisor: its monthly rate of an instance type in a region, as a constant hazard.",
    "time-in-state": "How long a pool has been available or has failed, as hazards counted in the examples.",
    "logistic": "A logistic regression over the features of a pool, one for each horizon.",
    "boosting": "Gradient boosted trees over the features of a pool, one model for each horizon.",
}
"""What a family is, for MLflow's page of it. From then on that text is people's, who may edit it there."""
# Stated, because finding them out takes MLflow three seconds a model.
PIP_REQUIREMENTS = ["scikit-learn>=1.9,<1.10", "skops>=0.16,<0.17", "numpy>=2.4,<2.5", "spotlab-pipelines"]


@dataclass(frozen=True)
class KeptModel:
    """What MLflow made of a model: its version number in the family, run, logged model, and its folder of files."""

    number: int
    run_id: str
    model_id: str
    folder: Path


def keep_model(
    client: MlflowClient,
    settings: Settings,
    estimator: HorizonEstimator,
    *,
    family: str,
    feature_spec: str,
    example: pd.DataFrame,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    card: str,
    files: Mapping[str, bytes],
    training_sha256: str | None = None,
    more_types: Sequence[str] = (),
    taken: int = 0,
) -> KeptModel:
    """Log a fitted estimator as a run, a logged model and the next version of the registered model `family`.

    Args:
        card: becomes README.md of its files and the version's description.
        files: more of its files by name; all are part of the hash it is pinned by.
        more_types: the types of a user's package that it holds.
        taken: the family's highest number so far; one that has lost versions in MLflow does not begin again below it.
    """
    from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

    experiment = experiment_id(client, settings, EXPERIMENT)
    tags = {
        "spotlab.feature_spec": feature_spec,
        "spotlab.horizons_h": ",".join(str(int(horizon)) for horizon in estimator.horizons_h),
    }
    if training_sha256 is not None:
        tags["spotlab.training_sha256"] = training_sha256
    texts = {name: str(value) for name, value in params.items()}
    run = client.create_run(experiment, run_name=f"fit {family}", tags=tags)
    run_id = run.info.run_id
    model = client.create_logged_model(
        experiment, name=family, source_run_id=run_id, tags=tags, params=texts, model_type="interruption"
    )
    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id,
        tags=[RunTag("mlflow.note.content", description(card))],
        metrics=[Metric(name, float(value), now_ms, 0, model_id=model.model_id) for name, value in metrics.items()],
        params=[Param(name, value) for name, value in texts.items()],
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        types = [*TRUSTED_TYPES, *more_types]
        _save(estimator, folder, example, run_id=run_id, model_id=model.model_id, types=types)
        for name, content in {CARD_FILE: card.encode(), **files}.items():
            (folder / name).write_bytes(content)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    if training_sha256 is not None:
        log_dataset(client, run_id, str(params.get("source", "training data")), training_sha256)
    _create_family(client, family, estimator)

    def create() -> ModelVersion:
        return client.create_model_version(
            family,
            source=str(model.artifact_location),
            run_id=run_id,
            tags=tags | {ROLE_TAG: "none", STATUS_TAG: "candidate"},
            description=description(card),
            model_id=model.model_id,
        )

    version = create()
    # MLflow gives the numbers, and none twice that it has had.
    while int(version.version) <= taken:
        client.delete_model_version(family, version.version)
        version = create()
    # As MLflow's own way of registering does: its list of models names the version by this tag.
    shown = [{"name": family, "version": str(version.version)}]
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(shown)})
    # Which version it is was not known when the run began; a chart of several fits names them by it.
    client.update_run(run_id, name=f"{family}/{version.version}")
    client.set_terminated(run_id)
    return KeptModel(
        number=int(version.version),
        run_id=run_id,
        model_id=model.model_id,
        folder=Path(unquote(urlsplit(client.get_logged_model(model.model_id).artifact_location).path)),
    )


def fit_params(client: MlflowClient, rows: Sequence[ServingVersion]) -> dict[str, dict[str, str]]:
    """The parameters of versions' fits, by version, of all in one query; nothing of one whose run MLflow has lost."""
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(EXPERIMENT) if rows else None
    if experiment is None:
        return {}
    versions = {row.mlflow_run_id: row.version for row in rows}
    wanted = ", ".join(f"'{run_id}'" for run_id in versions)
    found = all_pages(
        lambda token: client.search_runs(
            [experiment.experiment_id], f"attributes.run_id IN ({wanted})", run_view_type=ViewType.ALL,
            max_results=PAGE, page_token=token,
        )
    )  # fmt: skip
    return {versions[run.info.run_id]: run.data.params for run in found}


def pages_of(client: MlflowClient, settings: Settings, row: ServingVersion) -> dict[str, str]:
    """The addresses of a version's pages in MLflow's UI, by what they show."""
    found = {"version": ui_page(settings, f"models/{row.family}/versions/{row.number}")}
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        here = f"experiments/{experiment.experiment_id}"
        found["fit"] = ui_page(settings, f"{here}/runs/{row.mlflow_run_id}")
        if row.mlflow_model_id is not None:
            found["model"] = ui_page(settings, f"{here}/models/{row.mlflow_model_id}")
    return found


def show_role(client: MlflowClient, row: ServingVersion, *, status: str, role: str) -> None:
    """Let MLflow show a version's new status and role: tags on the version, and the alias of the champion.

    A version that MLflow has lost is not shown; what is served does not depend on it.

    Args:
        row: the version as it was before.
    """
    from mlflow.exceptions import MlflowException

    try:
        for tag, value in ((ROLE_TAG, role), (STATUS_TAG, status)):
            client.set_model_version_tag(row.family, str(row.number), tag, value)
        if role == "champion":
            client.set_registered_model_alias(row.family, CHAMPION_ALIAS, str(row.number))
        elif row.role == "champion":
            client.delete_registered_model_alias(row.family, CHAMPION_ALIAS)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _save(
    estimator: HorizonEstimator, folder: Path, example: pd.DataFrame, *, run_id: str, model_id: str, types: list[str]
) -> None:
    with warnings.catch_warnings():
        # MLflow warns of type hints of its own when it is imported, and compares columns with a range, which pandas 3.1
        # will treat otherwise some day: neither is news to anybody here.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        from mlflow import sklearn as mlflow_sklearn
        from mlflow.models import Model, infer_signature

        mlflow_sklearn.save_model(
            estimator,
            str(folder),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            serialization_format="skops",
            skops_trusted_types=types,
            signature=infer_signature(example, estimator.predict(example)),
            input_example=example,
            pip_requirements=PIP_REQUIREMENTS,
        )


def _create_family(client: MlflowClient, family: str, estimator: HorizonEstimator) -> None:
    from mlflow.exceptions import MlflowException

    kind = type(estimator)
    try:
        client.create_registered_model(
            family, description=FAMILIES.get(family, f"Models of the kind {kind.__module__}.{kind.__qualname__}.")
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
