"""The registry on a real Postgres and MLflow: what is served, what is refused unopened, and what MLflow shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sklearn.linear_model import LinearRegression

from spotlab_pipelines.accounts.acting import actor_of
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.errors import InvalidInput, ModelTampered, ModelUnknown, NotProven, StoreUnavailable
from spotlab_pipelines.inference import roles
from spotlab_pipelines.inference.artifacts import artifact_sha256, load_estimator
from spotlab_pipelines.inference.estimators import AdvisorRateModel
from spotlab_pipelines.inference.mlflow_differences import mlflow_differences
from spotlab_pipelines.inference.mlflow_models import show_role
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.inference.models import example, logistic, register, register_both


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    load_estimator.cache_clear()
    return ModelRegistry(engine, settings)


def test_without_a_champion_serving_says_what_to_run(registry: ModelRegistry):
    with pytest.raises(ModelUnknown, match="spotlab models bootstrap"):
        registry.serving()


def test_an_unknown_or_unapproved_version_is_refused(registry: ModelRegistry):
    with pytest.raises(ModelUnknown, match="'logistic/9'"):
        registry.load_model("logistic/9")
    candidate = register(registry, "logistic", logistic())
    assert (candidate.version, candidate.status, candidate.role) == ("logistic/1", "candidate", "none")
    with pytest.raises(ModelUnknown, match="candidate"):
        registry.load_model("logistic/1")
    with pytest.raises(ModelUnknown, match="candidate"):
        registry.promote("logistic/1")
    with pytest.raises(InvalidInput, match="promote"):
        registry.approve("logistic/1", role="champion")


def test_serving_gives_the_champion_first_and_loads_what_was_registered(registry: ModelRegistry):
    champion, challenger = register_both(registry)
    assert [(row.version, row.role) for row in registry.serving()] == [
        (champion, "champion"),
        (challenger, "challenger"),
    ]
    found = registry.load_model(challenger).predict_batch(example(), "v1")
    np.testing.assert_array_equal(found, np.maximum.accumulate(logistic().predict(example().to_numpy()), axis=1))
    assert registry.load_model(champion).horizons_h == (1, 6, 12)


def test_loaded_models_are_kept_by_version_and_hash(registry: ModelRegistry, engine: sa.Engine, settings: Settings):
    champion, _ = register_both(registry)
    first = registry.load_model(champion)
    again = ModelRegistry(engine, settings).load_model(champion)
    assert again._estimator is first._estimator


def test_mlflow_shows_the_same_and_is_ignored_by_serving(registry: ModelRegistry, settings: Settings):
    champion, challenger = register_both(registry)
    client = mlflow_client(settings)
    assert int(client.get_model_version_by_alias("advisor-rate", "champion").version) == 1
    version = client.get_model_version("logistic", "1")
    assert version.tags["spotlab.role"] == "challenger"
    assert version.tags["spotlab.feature_spec"] == "v1"
    model = client.get_logged_model(str(registry.get(challenger).mlflow_model_id))
    assert {metric.key: metric.value for metric in model.metrics or []} == {"auc_6h": 0.7}
    assert "mlflow.modelVersions" in model.tags, "the list of models names the version"
    client.set_registered_model_alias("logistic", "champion", "1")
    assert registry.serving()[0].version == champion


def test_promoting_moves_the_alias_and_keeps_the_old_champion_as_challenger(
    registry: ModelRegistry, settings: Settings
):
    register_both(registry)
    assert registry.promote("logistic/1", override="a test").role == "champion"
    assert [(row.version, row.role) for row in registry.serving()] == [
        ("logistic/1", "champion"),
        ("advisor-rate/1", "challenger"),
    ]
    client = mlflow_client(settings)
    assert list(client.get_registered_model("logistic").aliases) == ["champion"]
    assert client.get_registered_model("advisor-rate").aliases == {}
    assert client.get_model_version("advisor-rate", "1").tags["spotlab.role"] == "challenger"
    registry.retire("advisor-rate/1")
    assert [row.version for row in registry.serving()] == ["logistic/1"]
    with pytest.raises(ModelUnknown, match="retired"):
        registry.load_model("advisor-rate/1")


def test_a_second_version_gets_the_next_number(registry: ModelRegistry):
    assert register(registry, "logistic", logistic(0)).version == "logistic/1"
    assert register(registry, "logistic", logistic(1)).version == "logistic/2"


def test_an_altered_artifact_is_refused_unopened(registry: ModelRegistry):
    _, challenger = register_both(registry)
    folder = registry.artifact_folder(registry.get(challenger))
    # A file that would be opened without complaint, if only it were looked at.
    skops.io.dump(logistic(9), folder / "model.skops")
    with pytest.raises(ModelTampered, match="not opened"):
        registry.load_model(challenger)
    assert not registry.is_intact(registry.get(challenger))


def test_an_added_file_or_a_lost_folder_is_refused(registry: ModelRegistry):
    champion, challenger = register_both(registry)
    folder = registry.artifact_folder(registry.get(champion))
    (folder / "model.pkl").write_bytes(b"anything")
    with pytest.raises(ModelTampered):
        registry.load_model(champion)
    shutil.rmtree(registry.artifact_folder(registry.get(challenger)))
    with pytest.raises(ModelTampered, match="found 0 files"):
        registry.load_model(challenger)
    with pytest.raises(ModelTampered, match="spotlab models bootstrap"):
        registry.promote(challenger)


def test_a_type_that_we_did_not_list_is_refused_whatever_the_hash(tmp_path: Path):
    class_of_ours = LinearRegression()
    class_of_ours.extra = __import__("pathlib").PurePosixPath("/")  # type: ignore[attr-defined]
    skops.io.dump(class_of_ours, tmp_path / "model.skops")
    with pytest.raises(ModelTampered, match="trusted types"):
        load_estimator("logistic/1", artifact_sha256(tmp_path), tmp_path)


def test_the_hash_covers_names_and_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"3")
    first = artifact_sha256(tmp_path)
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"23")
    second = artifact_sha256(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, second, artifact_sha256(tmp_path)}) == 3
    (tmp_path / "d").symlink_to(tmp_path / "c")
    with pytest.raises(ModelTampered, match="link"):
        artifact_sha256(tmp_path)


def test_artifacts_move_with_their_folder(
    registry: ModelRegistry, engine: sa.Engine, settings: Settings, tmp_path: Path
):
    champion, _ = register_both(registry)
    row = registry.get(champion)
    assert not Path(row.artifact_uri).is_absolute()
    elsewhere = settings.model_copy(update={"mlruns_dir": tmp_path / "moved"})
    settings.mlruns_dir.rename(elsewhere.mlruns_dir)
    assert ModelRegistry(engine, elsewhere).is_intact(row)


def test_advisor_rate_is_kept_with_signature_and_example(registry: ModelRegistry):
    row = register(registry, "advisor-rate", AdvisorRateModel())
    kept = (registry.artifact_folder(row) / "MLmodel").read_text()
    assert "historic_interrupt_rate" in kept
    assert "signature" in kept
    assert "saved_input_example_info" in kept
    assert "skops" in kept


def test_who_approved_promoted_and_retired_what_is_on_record(registry: ModelRegistry, engine: sa.Engine):
    champion, challenger = register_both(registry)
    root = actor_of(add_user(engine, "root@example.com", "admin").id)
    before = len(audit_rows(engine))
    registry.promote(challenger, actor=root, override="a test")
    registry.retire(champion, actor=root)
    candidate = register(registry, "logistic", logistic(), actor=root)
    registry.approve(candidate.version, role="challenger", actor=root)
    rows = audit_rows(engine)[before:]
    assert [(row["action"], row["subject"]) for row in rows] == [
        ("promote_model", challenger), ("retire_model", champion),
        ("register_model", candidate.version), ("approve_model", candidate.version),
    ]  # fmt: skip
    assert {(row["actor"], row["outcome"]) for row in rows} == {(root, "done")}
    assert rows[0]["details"]["sha256"] == registry.get(challenger).artifact_sha256
    assert rows[0]["details"]["before"] == {"status": "approved", "role": "challenger"}
    assert rows[1]["details"]["after"] == {"status": "retired", "role": "none"}


def test_a_refused_approval_of_altered_files_is_on_record(registry: ModelRegistry, engine: sa.Engine):
    candidate = register(registry, "logistic", logistic())
    next(path for path in registry.artifact_folder(candidate).iterdir() if path.is_file()).write_bytes(b"poison")
    with pytest.raises(ModelTampered):
        registry.approve(candidate.version)
    (row,) = audit_rows(engine, "approve_model")
    assert (row["subject"], row["outcome"]) == ("logistic/1", "refused")
    assert "not the registered ones" in row["reason"]


def test_a_step_that_is_none_is_refused_by_name_changes_nothing_and_is_on_record(
    registry: ModelRegistry, engine: sa.Engine
):
    champion, challenger = register_both(registry)
    candidate = register(registry, "logistic", logistic(2)).version
    registry.retire(challenger)
    before, rows = registry.versions(), len(audit_rows(engine))
    tried = [
        (registry.approve, "logistic/9", ModelUnknown, "got 'logistic/9'"),
        (registry.promote, "logistic/9", ModelUnknown, "got 'logistic/9'"),
        (registry.retire, "logistic/9", ModelUnknown, "got 'logistic/9'"),
        (registry.approve, champion, InvalidInput, "not the champion yet"),
        (registry.promote, champion, InvalidInput, "not the champion yet"),
        (registry.retire, champion, InvalidInput, "Promote another first"),
        (registry.promote, candidate, ModelUnknown, f"Approve it first: `spotlab models approve {candidate}`"),
        (registry.promote, challenger, ModelUnknown, "is retired"),
        (registry.retire, challenger, InvalidInput, "retired already"),
    ]  # fmt: skip
    for step, version, error, said in tried:
        with pytest.raises(error, match=re.escape(said)):
            step(version)
    assert registry.versions() == before
    kept = [(row["action"], row["subject"], row["outcome"]) for row in audit_rows(engine)[rows:]]
    assert kept == [(f"{step.__name__}_model", version, "refused") for step, version, _, _ in tried]


def test_a_champion_that_cannot_be_opened_may_go_and_its_place_is_not_free_to_all(
    registry: ModelRegistry, engine: sa.Engine
):
    champion, challenger = register_both(registry)
    folder = registry.artifact_folder(registry.get(champion))
    shutil.rmtree(folder)
    registry.retire(champion)
    assert champion not in {row.version for row in registry.versions() if row.role != "none"}
    with pytest.raises(NotProven, match=f"{challenger} beats the champion {champion}; none was made yet"):
        registry.promote(challenger)
    assert registry.promote(challenger, override="its files are gone").role == "champion"
    assert audit_rows(engine)[-1]["details"]["override"] == "its files are gone"


def test_a_champion_that_comes_back_needs_no_verdict_against_itself(registry: ModelRegistry):
    champion, _ = register_both(registry)
    folder = registry.artifact_folder(registry.get(champion))
    away = folder.rename(folder.with_name("away"))
    registry.retire(champion)
    away.rename(folder)
    registry.approve(champion)
    assert registry.promote(champion).role == "champion"


@pytest.mark.parametrize("broken_at", [1, 3, 4, 6])
@pytest.mark.parametrize("family", ["advisor-rate", "logistic"])
def test_where_mlflow_fails_in_mid_promotion_it_shows_what_it_showed_before(
    registry: ModelRegistry, settings: Settings, monkeypatch: pytest.MonkeyPatch, family: str, broken_at: int
):
    register_both(registry)
    second = registry.approve(register(registry, family, AdvisorRateModel()).version).version
    calls = iter(range(1, 100))

    def failing(name: str):
        real = getattr(MlflowClient, name)

        def call(*arguments: object):
            if next(calls) == broken_at:
                raise MlflowException("lost", error_code=TEMPORARILY_UNAVAILABLE)
            return real(*arguments)

        return call

    for name in ("set_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias"):
        monkeypatch.setattr(MlflowClient, name, failing(name))
    with pytest.raises(StoreUnavailable):
        registry.promote(second, override="a test")
    monkeypatch.undo()
    assert registry.find(second).role == "none"
    assert mlflow_differences(settings, registry) == []


def test_where_postgres_goes_before_a_promotion_is_kept_mlflow_shows_what_it_showed_before(
    registry: ModelRegistry, settings: Settings, owner: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    champion, challenger = register_both(registry)

    def show_and_lose(*arguments: Any, **named: str) -> None:
        show_role(*arguments, **named)
        with owner.begin() as connection:
            connection.exec_driver_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and state = 'idle in transaction' and pid <> pg_backend_pid()"
            )

    monkeypatch.setattr(roles, "show_role", show_and_lose)
    with pytest.raises(StoreUnavailable):
        registry.promote(challenger, override="a test")
    monkeypatch.undo()
    assert registry.serving()[0].version == champion
    assert mlflow_differences(settings, registry) == []


def test_a_family_that_mlflow_has_lost_goes_on_with_a_number_of_its_own(registry: ModelRegistry, settings: Settings):
    for _ in range(2):
        register(registry, "advisor-rate", AdvisorRateModel())
    client = mlflow_client(settings)
    client.delete_registered_model("advisor-rate")
    row = register(registry, "advisor-rate", AdvisorRateModel())
    assert row.version == "advisor-rate/3"
    assert [int(version.version) for version in client.search_model_versions("name = 'advisor-rate'")] == [3]
    assert registry.approve(row.version).status == "approved"


@pytest.mark.parametrize("family", ["a/b", "../x", "x:y", "a b", "two ", "a\nb", "", "z" * 101])
def test_a_family_whose_name_is_none_is_refused_before_anything_is_kept(
    registry: ModelRegistry, settings: Settings, family: str
):
    with pytest.raises(InvalidInput, match="Expected a family of letters"):
        register(registry, family, AdvisorRateModel())
    assert registry.versions() == []
    assert mlflow_client(settings).get_experiment_by_name("models") is None
