"""The one way into MLflow's store: straight to its Postgres database, through a client with no global state.

`inference/registry.py`, `experiments/tracking.py` and `training/` take their client here and translate MLflow's errors
with `mlflow_errors`. What they log and register is theirs; MLflow's server is only for people who look.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from spotlab_pipelines.database.engine import database_errors, database_url
from spotlab_pipelines.errors import IntegrityError, StoreUnavailable
from spotlab_pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset

CONNECT_TIMEOUT_S = 5
DIGEST_LENGTH = 32
"""Of a fingerprint, as MLflow's digests of data sets have up to 36 characters."""
PAGE = 1000
"""How much is asked for at once."""
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Read while mlflow is imported: nothing is sent home, no pickle is opened, creating tables is no news."""
DESCRIPTIONS = {
    "models": "How versions were fitted and validated: parameters, metrics and plots of what each had not seen.",
    "evaluations": "What versions predicted and decided: a run per account and version, a step per evaluated window.",
    "backtests": "What versions would have said of imported traces that they were not fitted on: a run per version and "
    "backtest. Select some of the same data set, then Compare. Metrics: card/ is the version itself, recalibrated/ and "
    "recalibrated_daily/ what it would have said so, and constant/, trailing_share/, advisor_rate/ need no model.",
    "scorecards": "What versions are worth by what really happened: a run per version over the whole fleet. Select "
    "some, then Compare or the charts. Metrics: card/ is how good all predictions were, decisions/ what its decisions "
    "were worth, outcome/ each window, rows/ what it was judged on.",
}
"""What an experiment is, for whoever finds it in MLflow's UI."""

_prepared: set[tuple[int, str]] = set()
_preparing = threading.Lock()


def mlflow_url(settings: Settings) -> str:
    """MLflow's database as MLflow takes it (psycopg 2, on which MLflow is tested). Carries the password."""
    return database_url(settings, "mlflow", driver="psycopg2")


def mlflow_client(settings: Settings) -> MlflowClient:
    """A client on MLflow's database, whose tables are created if this is the first use of it, on any machine.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    url = mlflow_url(settings)
    with _preparing:
        if (os.getpid(), url) not in _prepared:
            with _first_use(url):
                MlflowClient(tracking_uri=url, registry_uri=url).search_registered_models(max_results=1)
            _prepared.add((os.getpid(), url))
    return MlflowClient(tracking_uri=url, registry_uri=url)


def ui_page(settings: Settings, page: str) -> str:
    """The address of a page of MLflow's UI such as `experiments/3/runs`.

    In its mode for trained models: by default it shows the traces and agents of language models, of which there are
    none.
    """
    return f"{settings.mlflow_ui}/#/{page}?workflowType=machine_learning"


def artifact_location(settings: Settings, folder: str) -> str:
    """The absolute file URI of a folder below `mlruns_dir`, for an experiment's artifacts."""
    return (settings.mlruns_dir.absolute() / folder).as_uri()


def experiment_id(client: MlflowClient, settings: Settings, name: str) -> str:
    """The id of the experiment called `name`, created with its artifacts below `mlruns_dir` where it is missing.

    From then on its description is people's, who may edit it in MLflow's UI.

    Two processes that create it at once get the same one.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_errors():
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                tags = {"mlflow.note.content": DESCRIPTIONS[name]}
                return client.create_experiment(name, artifact_location=artifact_location(settings, name), tags=tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(name)
    if found is None:
        raise IntegrityError(f"MLflow neither has nor creates the experiment {name!r}.")
    if found.lifecycle_stage == "deleted":
        raise IntegrityError(
            f"The MLflow experiment {name!r} was deleted.", remedy="Restore it in MLflow's UI, or purge it."
        )
    return found.experiment_id


def log_dataset(
    client: MlflowClient,
    run_id: str,
    name: str,
    fingerprint: str,
    *,
    context: str = "training",
    source: Mapping[str, str] | None = None,
) -> Dataset:
    """Say in MLflow's column of data sets what a run was fitted on, or judged on (context "evaluation"); what it says.

    Its digests are no longer than half of ours.

    Args:
        source: where in the archive it lies; by default under its fingerprint.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    lies = json.dumps(dict(source or {"fingerprint": fingerprint}))
    dataset = Dataset(name, fingerprint[:DIGEST_LENGTH], "archive", lies)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])])
    return dataset


def all_pages(page: Callable[[str | None], Any]) -> list[Any]:
    """All that a search finds, which answers page by page: the first for None, the next for the token of the last."""
    found, token = [], None
    while True:
        answer = page(token)
        found += answer
        token = answer.token
        if not token:
            return found


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Raise StoreUnavailable where MLflow's database stopped answering; anything else passes."""
    from mlflow.exceptions import MlflowException

    try:
        with database_errors():
            yield
    except MlflowException as error:
        cause = error.__cause__
        lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
        if lost or error.error_code == "TEMPORARILY_UNAVAILABLE":
            raise StoreUnavailable(
                "MLflow's database does not answer.", remedy="Start it with `spotlab up`, then try again."
            ) from error
        raise


@contextmanager
def unless_lost() -> Iterator[None]:
    """Pass over what MLflow does not have: it is no record, and nothing is served from it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def linkable_model(client: MlflowClient, model_id: str | None) -> str | None:
    """A version's LoggedModel, on whose page a run's metrics may be shown; None where MLflow does not have it.

    Anything logged for one that is lost fails. To answer, MLflow reads every point that was ever logged for the model.
    """
    found = None
    if model_id is not None:
        with unless_lost():
            found = client.get_logged_model(model_id).model_id
    return found


@contextmanager
def _first_use(url: str) -> Iterator[None]:
    """Hold a lock in MLflow's database while MLflow creates its tables: two processes that do so at once fail.

    The connection also finds out early that nothing answers, where MLflow itself would go on trying for 100 s.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    with mlflow_errors(), engine.connect() as connection:
        connection.execute(sa.text("select pg_advisory_lock(hashtextextended('spotlab/mlflow/schema', 0))"))
        yield
