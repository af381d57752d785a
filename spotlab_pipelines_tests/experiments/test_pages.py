"""What people find of a version in MLflow: its fleet's run, its model's page and its version's page."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from spotlab_pipelines.experiments import page_sending, pages
from spotlab_pipelines.experiments.judging import judge_challengers
from spotlab_pipelines.experiments.page_text import verdict_text
from spotlab_pipelines.experiments.pages import publish_scorecards
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import register as register_account
from spotlab_pipelines_tests.experiments.labelled_log import FIRST, write_days
from spotlab_pipelines_tests.inference.models import register_both

ACCOUNT, OTHER = "444455556666", "555566667777"
NOW = FIRST + timedelta(days=22)
HOUR = timedelta(hours=1)


@pytest.fixture
def registry(engine: sa.Engine, owner: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    registry = ModelRegistry(engine, settings)
    register_both(registry)
    register_account(engine, ACCOUNT)
    write_days(owner, 20, account_id=ACCOUNT)
    # Two days more, whose outcomes nobody knows yet.
    write_days(owner, 2, first=(FIRST + timedelta(days=20)).date(), account_id=ACCOUNT, resolved=False)
    number_windows(owner, ACCOUNT)
    return registry


def number_windows(owner: sa.Engine, account_id: str) -> None:
    """An evaluation for each of the account's windows in the log."""
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "insert into evaluations (account_id, window_start, step, state, snapshot_id) select account_id, "
            "window_start, row_number() over (order by window_start), 'logged', min(snapshot_id) from experiment_logs "
            f"where account_id = '{account_id}' group by account_id, window_start"
        )


def tracked(engine: sa.Engine, account_id: str, run_id: str) -> str:
    """A run, on record as the account's of logistic/1."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into tracking_runs (account_id, model_version, mlflow_run_id) "
            f"values ('{account_id}', 'logistic/1', '{run_id}')"
        )
    return run_id


def two_accounts(engine: sa.Engine, owner: sa.Engine, settings: Settings) -> dict[str, str]:
    """By account its run of logistic/1: another beside the first, with windows at the same times as some of its and
    outcomes of its own.
    """
    register_account(engine, OTHER)
    write_days(owner, 3, first=(FIRST + timedelta(days=5)).date(), account_id=OTHER, seed=9)
    number_windows(owner, OTHER)
    client = mlflow_client(settings)
    return {account: tracked(engine, account, client.create_run("0").info.run_id) for account in (ACCOUNT, OTHER)}


def run_of(link: str) -> str:
    """The run that a link shows, in MLflow's mode for trained models."""
    assert link.endswith("?workflowType=machine_learning"), link
    return link.partition("?")[0].rsplit("/", 1)[1]


def test_versions_can_be_compared_in_mlflow(registry: ModelRegistry, engine: sa.Engine, settings: Settings) -> None:
    client = mlflow_client(settings)
    account_run = tracked(engine, ACCOUNT, client.create_run("0").info.run_id)
    verdicts = judge_challengers(engine, now=NOW)
    card_before = str(client.get_model_version("logistic", "1").description)
    publish_scorecards(settings, engine, verdicts, now=NOW)
    cards, links = publish_scorecards(settings, engine, verdicts, now=NOW)
    assert [card.version for card in cards] == ["advisor-rate/1", "logistic/1"]
    run_ids = {version: run_of(link) for version, link in links.items()}
    run = client.get_run(run_ids["logistic/1"])
    assert run.info.run_name == "fleet logistic/1"
    assert run.data.metrics["card/brier_skill_6h"] == pytest.approx(cards[1].row()["brier_skill"])
    assert run.data.metrics["card/brier_skill_low_6h"] < run.data.metrics["card/brier_skill_6h"]
    assert {"rows/n_1h", "card/ece_12h", "decisions/instance_days"} <= set(run.data.metrics)
    names = list(run.data.metrics)
    assert [names[0], names[-1].partition("/")[0]] == ["card/brier_skill_6h", "outcome"], "compared by the first one"
    expected = {"version": "logistic/1", "family": "logistic", "feature_spec": "v1", "horizon_h": "6"}
    assert expected.items() <= run.data.params.items()
    assert run.data.params["data_fingerprint"] == registry.get("logistic/1").training_sha256
    advisor = client.get_run(run_ids["advisor-rate/1"]).data.params
    assert (advisor["data_fingerprint"], advisor["fitted_on"]) == ("none", "no data")
    assert f"({settings.mlflow_ui}/#/models/logistic/versions/1?" in run.data.tags["mlflow.note.content"]
    # A point for each window whose outcomes are known, hours after the first.
    points = client.get_metric_history(run_ids["logistic/1"], "outcome/brier_6h")
    assert sorted(point.step for point in points) == [24 * day for day in range(20)]
    # The scorecard too has a point for each day, as it was then by what is known now.
    growing = client.get_metric_history(run_ids["logistic/1"], "rows/n_6h")
    assert {point.step: point.value for point in growing} == {24 * day: 60.0 * (day + 1) for day in range(20)}
    # An account's windows have the steps of their evaluations.
    of_account = client.get_metric_history(account_run, "outcome/share_interrupted_6h")
    assert sorted(point.step for point in of_account) == list(range(1, 21))
    plots = {each.path for each in client.list_artifacts(run_ids["logistic/1"])}
    named = ("calibration_over_time", "precision_recall", "reliability", "roc")
    assert plots == {f"{name}.png" for name in named}
    # Judged on the same rows, they share their dataset, so that the models' pages put them side by side.
    inputs = [client.get_run(run_id).inputs for run_id in run_ids.values()]
    datasets = {each.dataset.digest for found in inputs if found for each in found.dataset_inputs}
    assert len(datasets) == 1
    model = client.get_logged_model(str(registry.get("logistic/1").mlflow_model_id))
    mine = [metric for metric in model.metrics or [] if metric.key == "card/roc_auc_6h"]
    assert [metric.dataset_digest for metric in mine] == list(datasets), "the latest alone, on its dataset"
    other = [metric for metric in model.metrics or [] if metric.key == "card/brier_1h"]
    assert [metric.dataset_digest for metric in other] == [None], "other predictions have an outcome at 1 h"
    assert model.tags["spotlab.verdict"] == verdicts[0].verdict
    version = client.get_model_version("logistic", "1")
    scorecard, _, card = str(version.description).partition("\n\n---\n\n")
    assert re.match(
        r"Scorecard at 6 h: [\d,]+ predictions with an outcome, \d+ interrupted, Brier skill 0\.\d+ \(", scorecard
    )
    assert card == card_before != "", "the model card stays below it"
    assert {model.model_id for found in inputs if found for model in found.model_inputs} == {
        str(registry.get(each).mlflow_model_id) for each in run_ids
    }
    assert f"**Verdict** against advisor-rate/1: {verdicts[0].verdict}, on " in str(version.description)
    assert "It is the champion." in str(client.get_model_version("advisor-rate", "1").description)
    assert float(version.tags["spotlab.events"]) == cards[1].row()["events"]


def test_an_accounts_run_shows_its_own_windows_alone(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, settings: Settings
) -> None:
    client, runs = mlflow_client(settings), two_accounts(engine, owner, settings)
    publish_scorecards(settings, engine, [], now=NOW)
    for account, windows in ((ACCOUNT, 20), (OTHER, 3)):
        points = client.get_metric_history(runs[account], "outcome/share_interrupted_6h")
        with owner.connect() as connection:
            shares = connection.exec_driver_sql(
                "select avg((interrupted_at is not null)::int)::float8 from interruption_outcomes "
                f"where account_id = '{account}' group by window_start order by window_start"
            ).scalars()
            expected = dict(enumerate(shares, start=1))
        assert len(points) == len(expected) == windows
        assert {point.step: point.value for point in points} == pytest.approx(expected)


def test_an_accounts_run_says_what_its_own_decisions_were_worth(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, settings: Settings
) -> None:
    client, runs = mlflow_client(settings), two_accounts(engine, owner, settings)
    _, links = publish_scorecards(settings, engine, [], now=NOW)
    fleet = client.get_run(run_of(links["logistic/1"])).data.metrics
    found = {account: client.get_run(run_id).data.metrics for account, run_id in runs.items()}
    assert [found[account]["decisions/decisions"] for account in (ACCOUNT, OTHER)] == [20 * 60, 3 * 60]
    for figure in ("decisions/decisions", "decisions/instance_days", "decisions/switches"):
        assert sum(each[figure] for each in found.values()) == pytest.approx(fleet[figure])
    assert {name for name in fleet if name.startswith("decisions/")} == {
        name for name in found[OTHER] if name.startswith("decisions/")
    }
    publish_scorecards(settings, engine, [], now=NOW + HOUR)
    [point] = client.get_metric_history(runs[OTHER], "decisions/instance_days")
    assert point.step == 3, "once, at its last window"


def test_windows_of_one_hour_are_one_point_of_the_fleets_run(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, settings: Settings
) -> None:
    client = mlflow_client(settings)
    register_account(engine, OTHER)
    write_days(owner, 3, account_id=OTHER, seed=9)
    with owner.begin() as connection:
        for table in ("experiment_logs", "interruption_outcomes"):
            connection.exec_driver_sql(
                f"update {table} set window_start = window_start + interval '20 minutes' where account_id = '{OTHER}'"
            )
    number_windows(owner, OTHER)
    _, links = publish_scorecards(settings, engine, [], now=NOW)
    points = client.get_metric_history(run_of(links["logistic/1"]), "outcome/predictions_6h")
    assert {point.step: point.value for point in points} == {24 * day: 120 if day < 3 else 60 for day in range(20)}
    assert len(points) == 20


def test_doing_it_again_adds_nothing_and_new_windows_their_points(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, settings: Settings
) -> None:
    client = mlflow_client(settings)
    _, first = publish_scorecards(settings, engine, [], now=NOW)
    run_id = run_of(first["logistic/1"])

    def points() -> dict[str, int]:
        keys = ("outcome/brier_6h", "card/brier_skill_6h", "decisions/instance_days")
        return {key: len(client.get_metric_history(run_id, key)) for key in keys}

    before = points()
    _, again = publish_scorecards(settings, engine, [], now=NOW + HOUR)
    assert (again, points()) == (first, before)
    # An outcome more of the windows that were shown already: other figures, and still the same last window.
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "update interruption_outcomes set watched_until = window_start + interval '1 hour', ended_by = 'owner' "
            "where instance_id = (select min(instance_id) from interruption_outcomes where interrupted_at is null)"
        )
    publish_scorecards(settings, engine, [], now=NOW + 2 * HOUR)
    assert points() == {key: n if key.startswith("outcome/") else n + 1 for key, n in before.items()}
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "insert into interruption_outcomes (account_id, window_start, instance_id, region, instance_type, az_id, "
            "product, watched_until, source, settled) select distinct account_id, window_start, instance_id, region, "
            "'m5.large', 'use1-az1', 'Linux/UNIX', window_start + interval '13 hours', 'fleet', true "
            f"from experiment_logs where window_start >= '{FIRST + timedelta(days=20)}'"
        )
    publish_scorecards(settings, engine, [], now=NOW + 3 * HOUR)
    assert points()["outcome/brier_6h"] == before["outcome/brier_6h"] + 2
    # The first of the two new days, and both: the figures of today.
    assert points()["card/brier_skill_6h"] == before["card/brier_skill_6h"] + 3
    assert next(iter(client.get_run(run_id).data.metrics)).startswith("card/brier_"), "and still compared by it"


def test_what_an_earlier_release_said_of_a_version_stays_and_what_it_did_not_say_is_added(
    registry: ModelRegistry, engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(pages, "parameters", lambda *_: {"fitted_on": "fitted on no data"})
        publish_scorecards(settings, engine, judge_challengers(engine, now=NOW), now=NOW)
    _, links = publish_scorecards(settings, engine, judge_challengers(engine, now=NOW), now=NOW)
    for version, link in links.items():
        found = mlflow_client(settings).get_run(run_of(link)).data.params
        assert {"fitted_on": "fitted on no data", "version": version}.items() <= found.items()


def test_a_retired_version_does_not_go_on_as_what_it_was(
    registry: ModelRegistry, engine: sa.Engine, settings: Settings
) -> None:
    client = mlflow_client(settings)
    _, links = publish_scorecards(settings, engine, judge_challengers(engine, now=NOW), now=NOW)
    run_ids = {version: run_of(link) for version, link in links.items()}
    before = client.get_model_version("advisor-rate", "1").description or ""
    registry.promote("logistic/1", override="a test")
    registry.retire("advisor-rate/1")
    publish_scorecards(settings, engine, [], now=NOW + HOUR)
    shown = {version: client.get_run(run_id).data.tags for version, run_id in run_ids.items()}
    told = {version: (each["spotlab.role"], each["spotlab.verdict"]) for version, each in shown.items()}
    assert told == {"advisor-rate/1": ("none", "none"), "logistic/1": ("champion", "the champion")}
    assert verdicts_of(registry, settings) == {"advisor-rate/1": {"none"}, "logistic/1": {"the champion"}}
    text = client.get_model_version("advisor-rate", "1").description
    assert text == before.replace("\nIt is the champion.", "") != before, "the rest stays"
    assert "champion" not in shown["advisor-rate/1"]["mlflow.note.content"]


def test_a_version_without_recent_predictions_goes_on_under_its_latest_verdict(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, settings: Settings
) -> None:
    client = mlflow_client(settings)
    [verdict] = judge_challengers(engine, now=NOW)
    _, links = publish_scorecards(settings, engine, [verdict], now=NOW)
    later = NOW + timedelta(days=settings.scorecard_days + 1)
    changed = replace(verdict, verdict="reject", why="It is worse.")
    assert publish_scorecards(settings, engine, [changed], now=later) == ([], {})
    assert verdicts_of(registry, settings) == {"advisor-rate/1": {"the champion"}, "logistic/1": {"reject"}}
    line = f"\n**Verdict** {verdict_text(changed)}\n"
    for text in (client.get_model_version("logistic", "1").description, note_of(settings, links["logistic/1"])):
        assert line in str(text)
        assert str(text).count("**Verdict**") == 1
    assert "It is the champion." in str(client.get_model_version("advisor-rate", "1").description)
    registry.promote("logistic/1", override="a test")
    publish_scorecards(settings, engine, [], now=later)
    assert verdicts_of(registry, settings) == {"advisor-rate/1": {"none"}, "logistic/1": {"the champion"}}
    assert "It is the champion." in note_of(settings, links["logistic/1"])


def test_runs_that_people_keep_beside_the_scorecards_stay_as_they_are(
    registry: ModelRegistry, engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow_client(settings)
    _, links = publish_scorecards(settings, engine, [], now=NOW)
    experiment = client.get_run(run_of(links["logistic/1"])).info.experiment_id
    theirs = [
        client.create_run(experiment, tags=tags).info.run_id
        for tags in (
            {"spotlab.scope": "fleet", "spotlab.role": "champion"},
            {"spotlab.version": "logistic/1", "spotlab.role": "mine"},
            {"spotlab.version": "advisor-rate/1"},
        )
    ]
    before = [client.get_run(run_id).data.tags for run_id in theirs]
    registry.retire("logistic/1")
    # One run a page: that of the retired version is on one of the last.
    monkeypatch.setattr(page_sending, "PAGE", 1)
    _, again = publish_scorecards(settings, engine, [], now=NOW + HOUR)
    assert again == {"advisor-rate/1": links["advisor-rate/1"]}
    assert client.get_run(run_of(links["logistic/1"])).data.tags["spotlab.role"] == "none"
    assert [client.get_run(run_id).data.tags for run_id in theirs] == before


def verdicts_of(registry: ModelRegistry, settings: Settings) -> dict[str, set[str]]:
    """By version what its tags say of it, in the registry of models and on its model: one thing."""
    client = mlflow_client(settings)
    return {
        row.version: {
            client.get_model_version(row.family, str(row.number)).tags["spotlab.verdict"],
            client.get_logged_model(str(row.mlflow_model_id)).tags["spotlab.verdict"],
        }
        for row in registry.versions()
    }


def note_of(settings: Settings, link: str) -> str:
    """What a run's page says."""
    return mlflow_client(settings).get_run(run_of(link)).data.tags["mlflow.note.content"]


def test_what_mlflow_has_lost_is_passed_over(registry: ModelRegistry, engine: sa.Engine, settings: Settings) -> None:
    client = mlflow_client(settings)
    client.delete_logged_model(str(registry.get("logistic/1").mlflow_model_id))
    client.delete_model_version("logistic", "1")
    tracked(engine, ACCOUNT, "0" * 32)
    _, links = publish_scorecards(settings, engine, [], now=NOW)
    # An account's run that somebody deleted in the UI is there still, and takes nothing.
    deleted = client.create_run("0").info.run_id
    client.delete_run(deleted)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"update tracking_runs set mlflow_run_id = '{deleted}'")
    client.delete_run(run_of(links["logistic/1"]))
    _, again = publish_scorecards(settings, engine, [], now=NOW)
    assert again["logistic/1"] != links["logistic/1"]
