"""How a version's pages get into MLflow: points and tags to its run, tags and text to its version and its model.

Those of versions that have no page any more are corrected here. pages.py says what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from spotlab_pipelines.experiments.page_text import FIRST, NONE, VERDICT_TAG, standing_line, standing_tag, with_standing
from spotlab_pipelines.experiments.tracking import METRICS_PER_BATCH
from spotlab_pipelines.inference.mlflow_store import PAGE, all_pages, linkable_model, unless_lost
from spotlab_pipelines.inference.versions import ServingVersion, select_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from spotlab_pipelines.experiments.judging import Judged

NOTE_TAG = "mlflow.note.content"
OURS = "tags.`spotlab.scope` = 'fleet'"
"""The runs of scorecards, beside which people may keep runs of their own."""


def send(client: MlflowClient, run_id: str, points: list[Metric], done: dict[str, str]) -> None:
    """What versions are compared by first, as MLflow shows metrics as they lie in its database, and compares runs by
    the first one. The tags last: they say that the points before are there.
    """
    from mlflow.entities import RunTag

    leading = [each for each in points[: len(FIRST)] if each.key.startswith("card/")]
    for part in (leading, points[len(leading) :]):
        for start in range(0, len(part), METRICS_PER_BATCH):
            client.log_batch(run_id, metrics=part[start : start + METRICS_PER_BATCH])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in done.items()])


def send_to_model(
    client: MlflowClient,
    version: ServingVersion,
    model_id: str | None,
    shown: dict[str, str],
    text: Callable[[str], str],
) -> None:
    """The tags of the version and of its model, and the version's description made of the one that is there."""
    family, number = version.family, str(version.number)
    with unless_lost():
        for key, value in shown.items():
            client.set_model_version_tag(family, number, key, value)
        before = client.get_model_version(family, number).description or ""
        client.update_model_version(family, number, description=text(before))
    if model_id is not None:
        client.set_logged_model_tags(model_id, shown)


def correct_others(
    client: MlflowClient, experiment: str, connection: sa.Connection, verdicts: list[Judged], *, shown: Collection[str]
) -> None:
    """Versions that have no page any more must not go on showing the role and the verdict that they had.

    Args:
        shown: the versions that have one.
    """
    versions = {row.version: row for row in select_versions(connection)}
    by_challenger = {each.challenger: each for each in verdicts}
    for run in all_pages(lambda token: client.search_runs([experiment], OURS, max_results=PAGE, page_token=token)):
        before = run.data.tags
        # Nobody is kept from tagging a run of their own as one of ours.
        name = before.get("spotlab.version")
        if name is None or name in shown:
            continue
        version, verdict = versions.get(name), by_challenger.get(name)
        role = NONE if version is None else version.role
        line, standing = standing_line(role, verdict), {VERDICT_TAG: standing_tag(role, verdict)}
        done = standing | {"spotlab.role": role, NOTE_TAG: with_standing(before.get(NOTE_TAG, ""), line)}
        if done.items() <= before.items():
            continue
        if version is not None:
            model_id = linkable_model(client, version.mlflow_model_id)
            send_to_model(client, version, model_id, standing, partial(with_standing, line=line))
        send(client, run.info.run_id, [], done)
