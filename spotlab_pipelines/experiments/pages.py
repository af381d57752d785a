"""Scorecards in MLflow, where people compare versions: a run per version for the whole fleet, and its model's pages.

The experiment `scorecards` has one run per version; its steps are hours since the version's first window there, one
point a window. The scorecard's figures also go to the version's LoggedModel with the dataset that they were taken on,
to the version's tags and to its description; windows of an account go to its run of the version in `evaluations`.
Nothing here is a record, and doing it again changes nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import Evaluation, TrackingRun
from spotlab_pipelines.experiments.judging import HORIZON_H, Judged
from spotlab_pipelines.experiments.labels import labelled
from spotlab_pipelines.experiments.page_text import (
    Page,
    above_card,
    description,
    digest_of,
    figures,
    finished_windows,
    parameters,
    tags,
)
from spotlab_pipelines.experiments.plots import Said, outcome_plots
from spotlab_pipelines.experiments.scorecards import (
    VersionScorecard,
    is_known,
    known,
    known_at,
    scorecard_of,
    version_values,
)
from spotlab_pipelines.experiments.tracking import METRICS_PER_BATCH
from spotlab_pipelines.inference.mlflow_store import experiment_id, mlflow_client, mlflow_errors, ui_page
from spotlab_pipelines.inference.versions import ServingVersion, select_versions
from spotlab_pipelines.settings import HORIZONS_H

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from spotlab_pipelines.settings import Settings

EXPERIMENT = "scorecards"
FIRST_TAG, THROUGH_TAG, FIGURES_TAG = "spotlab.first_window", "spotlab.windows_through", "spotlab.figures"


def publish_scorecards(
    settings: Settings, engine: sa.Engine, verdicts: list[Judged], *, now: datetime
) -> tuple[list[VersionScorecard], dict[str, str]]:
    """Bring the scorecards of all approved versions that predicted within `scorecard_days` to MLflow.

    Returns:
        The scorecards at `HORIZON_H`, and the address of each version's run in MLflow's UI.

    Raises:
        StoreUnavailable: Postgres or MLflow's database does not answer; try again.
    """
    since = now - timedelta(days=settings.scorecard_days)
    with database_errors(), engine.begin() as connection:
        # Two at once would each make a run of the same version.
        lock(connection, "scorecards")
        pages = _pages(connection, engine, verdicts, since)
        client = mlflow_client(settings)
        experiment = experiment_id(client, settings, EXPERIMENT)
        links = {}
        for page in pages:
            with mlflow_errors():
                run_id = _run_of(client, experiment, page)
                _publish(client, settings, run_id, page, now=now)
                _publish_accounts(client, connection, page)
            links[page.version.version] = ui_page(settings, f"experiments/{experiment}/runs/{run_id}")
    return [page.cards[HORIZON_H] for page in pages], links


def _pages(connection: sa.Connection, engine: sa.Engine, verdicts: list[Judged], since: datetime) -> list[Page]:
    by_challenger = {each.challenger: each for each in verdicts}
    versions = [row for row in select_versions(connection) if row.status == "approved"]
    values = version_values(engine, [row.version for row in versions], horizon_h=HORIZON_H, since=since)
    pages = []
    for row in versions:
        rows = {hours: labelled(connection, row.version, horizon_h=hours, since=since) for hours in HORIZONS_H}
        cards = {hours: scorecard_of(each, row.version, hours) for hours, each in rows.items() if len(each)}
        if HORIZON_H in cards and cards[HORIZON_H].card is not None:
            value, verdict = values.get(row.version), by_challenger.get(row.version)
            pages.append(Page(row, cards, rows[HORIZON_H], value, verdict))
    return pages


def _run_of(client: MlflowClient, experiment: str, page: Page) -> str:
    from mlflow.entities import LoggedModelInput

    version = page.version
    found = client.search_runs([experiment], f"tags.`spotlab.version` = '{version.version}'", max_results=1)
    if found:
        return found[0].info.run_id
    named = {"spotlab.version": version.version, "spotlab.family": version.family, "spotlab.scope": "fleet"}
    named |= {FIRST_TAG: page.rows["window_start"].min().isoformat()}
    run_id = client.create_run(experiment, run_name=f"fleet {version.version}", tags=named).info.run_id
    model_id = _linkable(client, version)
    if model_id is not None:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    # Points are added for as long as the version is judged; a run left open would show as running for ever.
    client.set_terminated(run_id)
    return run_id


def _publish(client: MlflowClient, settings: Settings, run_id: str, page: Page, *, now: datetime) -> None:
    from mlflow.entities import Param, RunTag

    model_id = _linkable(client, page.version)
    known_tags = client.get_run(run_id).data.tags
    fit: dict[str, str] = {}
    with _unless_lost():
        fit = client.get_run(page.version.mlflow_run_id).data.params
    client.log_batch(run_id, params=[Param(name, value) for name, value in parameters(page, fit).items()])
    first = pd.Timestamp(known_tags[FIRST_TAG])
    windows = finished_windows(page.rows, since=known_tags.get(THROUGH_TAG))
    steps = [int((window - first) / timedelta(hours=1)) for window in windows.index]
    points = _window_metrics(windows, steps, run_id)
    # A run's page links no model of another experiment.
    family, number = page.version.family, str(page.version.number)
    way = f"[{page.version.version} in the model registry]({ui_page(settings, f'models/{family}/versions/{number}')})"
    shown = tags(page) | {"spotlab.role": page.version.role, "mlflow.note.content": f"{description(page)}\n\n{way}"}
    if len(windows):
        shown[THROUGH_TAG] = windows.index.max().isoformat()
    fingerprint = hashlib.sha256(repr((figures(page), digest_of(page.rows))).encode()).hexdigest()
    if fingerprint != known_tags.get(FIGURES_TAG):
        points += _figure_metrics(client, run_id, page, first, model_id=model_id, now=now)
        _draw(client, run_id, page)
        shown[FIGURES_TAG] = fingerprint
    _send(client, run_id, points, [RunTag(key, value) for key, value in shown.items()])
    with _unless_lost():
        for key, value in tags(page).items():
            client.set_model_version_tag(family, number, key, value)
        before = client.get_model_version(family, number).description or ""
        client.update_model_version(family, number, description=above_card(description(page), before))
    if model_id is not None:
        client.set_logged_model_tags(model_id, tags(page))


def _figure_metrics(
    client: MlflowClient, run_id: str, page: Page, first: pd.Timestamp, *, model_id: str | None, now: datetime
) -> list[Metric]:
    """The scorecard's figures, on the dataset of its rows.

    At the time of now: a model may have a metric once for a run, step and time, and the figures of the same windows
    change when an outcome becomes known.
    """
    from mlflow.entities import Dataset, DatasetInput, Metric

    name, digest = f"predictions with outcomes, {HORIZON_H} h", digest_of(page.rows)
    profile = f'{{"predictions": {len(page.rows)}, "with outcome": {int(is_known(page.rows).sum())}}}'
    dataset = Dataset(name, digest, "postgres", '{"view": "v_labelled_predictions"}', profile=profile)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset)])
    last = page.rows.loc[is_known(page.rows), "window_start"].max()
    at, step = round(now.timestamp() * 1000), int((last - first) / timedelta(hours=1))
    named = {"dataset_name": name, "dataset_digest": digest, "run_id": run_id}
    return [Metric(key, value, at, step, model_id=model_id, **named) for key, value in figures(page).items()]


def _publish_accounts(client: MlflowClient, connection: sa.Connection, page: Page) -> None:
    """Each account's windows, at the steps that they have in its run of the version."""
    from mlflow.entities import RunTag

    query = sa.select(TrackingRun.account_id, TrackingRun.mlflow_run_id)
    query = query.where(TrackingRun.model_version == page.version.version)
    for account, run_id in connection.execute(query).tuples():
        rows = page.rows[page.rows["account_id"] == account]
        on_run = None
        with _unless_lost():
            on_run = client.get_run(run_id).data.tags
        # A run that MLflow lost is made anew by the account's next evaluation.
        if on_run is None or rows.empty:
            continue
        windows = finished_windows(rows, since=on_run.get(THROUGH_TAG))
        if windows.empty:
            continue
        numbered = sa.select(Evaluation.window_start, Evaluation.step).where(Evaluation.account_id == account)
        found: dict[Any, int] = dict(connection.execute(numbered).tuples().all())
        steps = [found.get(window.to_pydatetime()) for window in windows.index]
        windows = windows[[step is not None for step in steps]]
        points = _window_metrics(windows, [step for step in steps if step], run_id)
        _send(client, run_id, points, [RunTag(THROUGH_TAG, windows.index.max().isoformat())] if points else [])


def _linkable(client: MlflowClient, version: ServingVersion) -> str | None:
    """The version's LoggedModel; None where MLflow does not have it."""
    found = None
    if version.mlflow_model_id is not None:
        with _unless_lost():
            found = client.get_logged_model(version.mlflow_model_id).model_id
    return found


@contextmanager
def _unless_lost() -> Iterator[None]:
    """Pass over what MLflow does not have: it is no record, and nothing is served from it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _window_metrics(windows: pd.DataFrame, steps: Any, run_id: str) -> list[Metric]:
    """On the run alone, which takes a window again where it was left half sent and has changed since."""
    from mlflow.entities import Metric

    return [
        Metric(f"outcome/{name}_{HORIZON_H}h", float(value), round(window.timestamp() * 1000), int(step), run_id=run_id)
        for name, column in windows.items()
        for window, step, value in zip(windows.index, steps, column, strict=True)
    ]  # fmt: skip


def _draw(client: MlflowClient, run_id: str, page: Page) -> None:
    outcome, predicted, _ = known(page.rows)
    name = page.version.version
    said = {name: Said(outcome, predicted, known_at(page.rows))}
    with tempfile.TemporaryDirectory() as scratch:
        for picture, data in outcome_plots(said, title=f"{name} at {HORIZON_H} h").items():
            (Path(scratch) / f"{picture}.png").write_bytes(data)
        # Not in a folder: MLflow's page of two runs looks for what both have at the root alone.
        client.log_artifacts(run_id, scratch)


def _send(client: MlflowClient, run_id: str, points: list[Metric], done: list[Any]) -> None:
    """The tags last: they say that the points before are there."""
    for start in range(0, len(points), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])
    client.log_batch(run_id, tags=done)
