"""Scorecards in MLflow, where people compare versions: a run per version for the whole fleet, and its model's pages.

The experiment `scorecards` has one run per version; its steps are hours since the version's first window there, a
point for the windows of each. The scorecard's figures also go to the version's LoggedModel with the dataset that they
were taken on, to the version's tags and to its description; an account's windows, and what was decided in them was
worth, go to its run of the version in `evaluations`. Nothing here is a record, and doing it again changes nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.locks import lock
from spotlab_pipelines.database.tables import Evaluation, TrackingRun
from spotlab_pipelines.experiments.decision_rows import decision_rows
from spotlab_pipelines.experiments.judging import HORIZON_H, Judged
from spotlab_pipelines.experiments.labels import labelled
from spotlab_pipelines.experiments.page_points import (
    account_points,
    dataset_of,
    earlier_points,
    figure_points,
    step_of,
    window_points,
)
from spotlab_pipelines.experiments.page_sending import NOTE_TAG, OURS, correct_others, send, send_to_model
from spotlab_pipelines.experiments.page_text import (
    Page,
    above_card,
    decision_figures,
    description,
    digest_of,
    figures,
    finished_windows,
    parameters,
    tags,
)
from spotlab_pipelines.experiments.plots import Said, outcome_plots
from spotlab_pipelines.experiments.scorecards import VersionScorecard, is_known, known, known_at
from spotlab_pipelines.inference.mlflow_store import (
    experiment_id,
    linkable_model,
    mlflow_client,
    mlflow_errors,
    ui_page,
    unless_lost,
)
from spotlab_pipelines.inference.versions import select_versions
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
        pages = _pages(connection, verdicts, since)
        client = mlflow_client(settings)
        experiment = experiment_id(client, settings, EXPERIMENT)
        links = {}
        for page in pages:
            with mlflow_errors():
                run_id = _run_of(client, experiment, page)
                _publish(client, settings, run_id, page, now=now)
                _publish_accounts(client, connection, page, now=now)
            links[page.version.version] = ui_page(settings, f"experiments/{experiment}/runs/{run_id}")
        with mlflow_errors():
            correct_others(client, experiment, connection, verdicts, shown=links.keys())
    return [page.cards[HORIZON_H] for page in pages], links


def _pages(connection: sa.Connection, verdicts: list[Judged], since: datetime) -> list[Page]:
    by_challenger = {each.challenger: each for each in verdicts}
    versions = [row for row in select_versions(connection) if row.status == "approved"]
    decided = decision_rows(connection, [row.version for row in versions], horizon_h=HORIZON_H, since=since)
    pages = []
    for row in versions:
        labels = {hours: labelled(connection, row.version, horizon_h=hours, since=since) for hours in HORIZONS_H}
        if is_known(labels[HORIZON_H]).any():
            labels = {hours: rows for hours, rows in labels.items() if len(rows)}
            own = decided[decided["model_version"] == row.version]
            pages.append(Page(row, labels, own, by_challenger.get(row.version)))
    return pages


def _run_of(client: MlflowClient, experiment: str, page: Page) -> str:
    from mlflow.entities import LoggedModelInput

    version = page.version
    wanted = f"{OURS} and tags.`spotlab.version` = '{version.version}'"
    found = client.search_runs([experiment], wanted, max_results=1)
    if found:
        return found[0].info.run_id
    named = {"spotlab.version": version.version, "spotlab.family": version.family, "spotlab.scope": "fleet"}
    named |= {FIRST_TAG: page.rows["window_start"].min().isoformat()}
    run_id = client.create_run(experiment, run_name=f"fleet {version.version}", tags=named).info.run_id
    model_id = linkable_model(client, version.mlflow_model_id)
    if model_id is not None:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    # Points are added for as long as the version is judged; a run left open would show as running for ever.
    client.set_terminated(run_id)
    return run_id


def _publish(client: MlflowClient, settings: Settings, run_id: str, page: Page, *, now: datetime) -> None:
    from mlflow.entities import DatasetInput, Param

    model_id = linkable_model(client, page.version.mlflow_model_id)
    there = client.get_run(run_id).data
    known_tags = there.tags
    fit: dict[str, str] = {}
    with unless_lost():
        fit = client.get_run(page.version.mlflow_run_id).data.params
    # MLflow refuses another value of a parameter: what an earlier release has sent stays as it is.
    lacking = {name: value for name, value in parameters(page, fit).items() if name not in there.params}
    client.log_batch(run_id, params=[Param(name, value) for name, value in lacking.items()])
    first = pd.Timestamp(known_tags[FIRST_TAG])
    # Several accounts' windows, and those of a short interval, begin within an hour: together they are its point.
    hourly = page.rows.assign(window_start=page.rows["window_start"].dt.floor("h"))
    windows = finished_windows(hourly, since=known_tags.get(THROUGH_TAG))
    # A run's page links no model of another experiment.
    family, number = page.version.family, str(page.version.number)
    way = f"[{page.version.version} in the model registry]({ui_page(settings, f'models/{family}/versions/{number}')})"
    shown = tags(page) | {"spotlab.role": page.version.role, NOTE_TAG: f"{description(page)}\n\n{way}"}
    points: list[Metric] = []
    fingerprint = hashlib.sha256(repr((figures(page), digest_of(page.rows))).encode()).hexdigest()
    if fingerprint != known_tags.get(FIGURES_TAG):
        dataset = dataset_of(page)
        client.log_inputs(run_id, datasets=[DatasetInput(dataset)])
        points += figure_points(page, first, run_id, model_id=model_id, dataset=dataset, now=now)
        _draw(client, run_id, page)
        shown[FIGURES_TAG] = fingerprint
    if len(windows):
        points += earlier_points(page, pd.DatetimeIndex(windows.index), first, run_id)
        points += window_points(windows, [step_of(window, first) for window in windows.index], run_id)
        shown[THROUGH_TAG] = windows.index.max().isoformat()
    send(client, run_id, points, shown)
    send_to_model(client, page.version, model_id, tags(page), partial(above_card, description(page)))


def _publish_accounts(client: MlflowClient, connection: sa.Connection, page: Page, *, now: datetime) -> None:
    """Each account's windows, at the steps that they have in its run of the version, and its decisions' worth."""
    query = sa.select(TrackingRun.account_id, TrackingRun.mlflow_run_id)
    query = query.where(TrackingRun.model_version == page.version.version)
    values = page.values_by_account()
    for account, run_id in connection.execute(query).tuples():
        rows = page.rows[page.rows["account_id"] == account]
        on_run = _tags_of(client, run_id)
        # A run that MLflow lost is made anew by the account's next evaluation.
        if on_run is None or not is_known(rows).any():
            continue
        numbered = sa.select(Evaluation.window_start, Evaluation.step).where(
            Evaluation.account_id == account, Evaluation.window_start >= rows["window_start"].min().to_pydatetime()
        )
        found = connection.execute(numbered).all()
        begun = pd.to_datetime([each.window_start for each in found], utc=True)
        steps = pd.Series([each.step for each in found], index=begun, dtype="int64")
        windows, done, points = finished_windows(rows, since=on_run.get(THROUGH_TAG)), {}, []
        worth = decision_figures(values.get(account))
        fingerprint = hashlib.sha256(repr(worth).encode()).hexdigest()
        of_known = steps[steps.index.isin(rows.loc[is_known(rows), "window_start"])]
        if worth and len(of_known) and fingerprint != on_run.get(FIGURES_TAG):
            points += account_points(worth, int(of_known.max()), run_id, now=now)
            done[FIGURES_TAG] = fingerprint
        windows = windows[windows.index.isin(steps.index)]
        if len(windows):
            points += window_points(windows, steps[windows.index].to_numpy().tolist(), run_id)
            done[THROUGH_TAG] = windows.index.max().isoformat()
        if points:
            send(client, run_id, points, done)


def _tags_of(client: MlflowClient, run_id: str) -> dict[str, str] | None:
    """The tags of a run; None where MLflow does not have it any more, or somebody has deleted it there."""
    with unless_lost():
        run = client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            return run.data.tags
    return None


def _draw(client: MlflowClient, run_id: str, page: Page) -> None:
    outcome, predicted, _ = known(page.rows)
    name = page.version.version
    said = {name: Said(outcome, predicted, known_at(page.rows))}
    with tempfile.TemporaryDirectory() as scratch:
        for picture, data in outcome_plots(said, title=f"{name} at {HORIZON_H} h").items():
            (Path(scratch) / f"{picture}.png").write_bytes(data)
        # Not in a folder: MLflow's page of two runs looks for what both have at the root alone.
        client.log_artifacts(run_id, scratch)
