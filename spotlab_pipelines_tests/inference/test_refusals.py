"""What is opened: only what was registered and approved by somebody who may, unaltered, of types that we listed."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.accounts.acting import actor_of
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.database.tables import ModelVersion
from spotlab_pipelines.errors import InvalidInput, ModelNotConforming, ModelTampered, ModelUnknown, NotAllowed
from spotlab_pipelines.inference import artifacts
from spotlab_pipelines.inference.artifacts import LOADED_MAX, artifact_sha256, load_estimator
from spotlab_pipelines.inference.boosting import BoostingModel
from spotlab_pipelines.inference.calibration import CalibratedModel
from spotlab_pipelines.inference.card import Notes, description
from spotlab_pipelines.inference.estimators import AdvisorRateModel
from spotlab_pipelines.inference.fitted_on import NO_DATA
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.canonical import content_id
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.inference.models import example, invented, logistic, register, register_both


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    load_estimator.cache_clear()
    return ModelRegistry(engine, settings)


def poisoned_skops(mark: Path) -> bytes:
    """A true skops archive whose one node calls `Path.touch`, as skops itself would write it of a method."""
    state = io.BytesIO()
    with zipfile.ZipFile(state, "w") as archive:
        node = {
            "__class__": "touch", "__module__": "pathlib.Path", "__loader__": "FunctionNode", "__id__": 1,
            "content": {"module_path": "pathlib.Path", "function": "touch", "args": [str(mark)]},
            "protocol": 2, "_skops_version": "0.16",
        }  # fmt: skip
        archive.writestr("schema.json", json.dumps(node))
    return state.getvalue()


def test_a_pickle_in_the_place_of_a_model_is_never_read(tmp_path: Path):
    mark, folder = tmp_path / "ran", tmp_path / "model"
    folder.mkdir()
    (folder / "model.skops").write_bytes(pickle.dumps(Evil(mark)))
    # Pinned as it is: the hash alone would let it through.
    with pytest.raises(ModelTampered, match="list of trusted types"):
        load_estimator("logistic/1", artifact_sha256(folder), folder)
    assert not mark.exists()
    pickle.loads((folder / "model.skops").read_bytes())  # noqa: S301 - ours, to see that it is one
    assert mark.exists(), "it would have run"


def test_a_skops_file_that_would_run_code_is_refused(tmp_path: Path):
    mark, folder = tmp_path / "ran", tmp_path / "model"
    folder.mkdir()
    (folder / "model.skops").write_bytes(poisoned_skops(mark))
    with pytest.raises(ModelTampered, match="list of trusted types"):
        load_estimator("logistic/1", artifact_sha256(folder), folder)
    assert not mark.exists()


def test_what_is_opened_are_the_bytes_that_were_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Somebody who waits until the hash was found right, and writes then, is too late."""
    folder = tmp_path / "model"
    folder.mkdir()
    file, read = folder / "model.skops", Path.read_bytes
    skops.io.dump(AdvisorRateModel(horizons_h=[1]), file)
    pinned, another = artifact_sha256(folder), skops.io.dumps(AdvisorRateModel(horizons_h=[12]))

    def read_and_replaced(path: Path) -> bytes:
        content = read(path)
        file.write_bytes(another)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replaced)
    load_estimator.cache_clear()
    assert list(load_estimator("advisor-rate/1", pinned, folder).estimator.horizons_h) == [1]
    assert artifact_sha256(folder) != pinned, "it was replaced"


def test_what_mlflows_own_files_say_is_not_looked_at(registry: ModelRegistry, tmp_path: Path):
    champion, _ = register_both(registry)
    mark = tmp_path / "ran"
    folder = registry.artifact_folder(registry.get(champion))
    (folder / "model.pkl").write_bytes(pickle.dumps(Evil(mark)))
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n"
        "  sklearn:\n    pickled_model: model.pkl\n    serialization_format: pickle\n"
        "    skops_trusted_types: [pathlib.Path.touch]\n"
    )
    opened = load_estimator(champion, artifact_sha256(folder), folder)
    assert isinstance(opened.estimator, AdvisorRateModel)
    assert not mark.exists()


def test_a_row_that_nobody_registered_is_neither_opened_nor_approved(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    champion, challenger = register_both(registry)
    person = actor_of(add_user(engine, "ana@example.com", "user").id)
    with pytest.raises(NotAllowed, match="the role lab or admin"):
        register(registry, "logistic", logistic(3), actor=person)
    row = vars(registry.get(challenger))
    smuggled = {name: row[name] for name in row if name not in ("acts", "reference", "role")} | {
        "version": "logistic/9", "number": 9, "registered_by": person, "status": "candidate",
    }  # fmt: skip
    with owner.begin() as connection:
        connection.execute(sa.insert(ModelVersion).values(**smuggled | {"horizons_h": [1, 6, 12]}))
    with pytest.raises(ModelUnknown, match="no register_model of it by anybody who may"):
        registry.approve("logistic/9")
    with owner.begin() as connection:
        connection.execute(sa.text("update model_registry set status = 'approved' where version = 'logistic/9'"))

    def read(folder: Path) -> dict[str, bytes]:
        raise AssertionError("its files were read")

    monkeypatch.setattr(artifacts, "_read", read)
    with pytest.raises(ModelUnknown, match=r"no register_model and no approve_model of it.*It was not opened"):
        registry.load_model("logistic/9")
    # A hash that was exchanged together with the files is not the one that is on record either.
    with owner.begin() as connection:
        connection.execute(sa.text("update model_registry set artifact_sha256 = repeat('a', 64)"))
    for version in (champion, challenger):
        with pytest.raises(ModelUnknown, match="It was not opened"):
            registry.load_model(version)
    monkeypatch.undo()
    # Nor can the champion be opened: it gives its place up.
    for version in ("logistic/9", champion):
        registry.retire(version)


def test_a_candidate_that_was_approved_by_hand_is_not_opened(registry: ModelRegistry, owner: sa.Engine):
    register_both(registry)
    register(registry, "logistic", logistic(4))
    with owner.begin() as connection:
        connection.execute(
            sa.text("update model_registry set status = 'approved', role = 'challenger' where version = 'logistic/2'")
        )
    with pytest.raises(ModelUnknown, match="has no approve_model of it"):
        registry.load_model("logistic/2")


@pytest.mark.parametrize("uri", ["../elsewhere", "{outside}"])
def test_a_row_that_leads_out_of_the_folder_of_models_is_not_opened(
    registry: ModelRegistry, owner: sa.Engine, settings: Settings, uri: str
):
    _, challenger = register_both(registry)
    outside = settings.mlruns_dir.parent / "elsewhere"
    shutil.copytree(registry.artifact_folder(registry.get(challenger)), outside)
    with owner.begin() as connection:
        row = sa.update(ModelVersion).where(ModelVersion.version == challenger)
        connection.execute(row.values(artifact_uri=uri.format(outside=outside)))
    with pytest.raises(ModelTampered, match="leads out of it"):
        registry.load_model(challenger)
    assert not registry.is_intact(registry.get(challenger))


def test_the_api_writes_no_version(registry: ModelRegistry, settings: Settings):
    register_both(registry)
    api = connect(settings, role="api")
    for statement in (
        "insert into model_registry select * from model_registry",
        "update model_registry set status = 'approved'",
        "delete from model_registry",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), api.begin() as connection:
            connection.execute(sa.text(statement))


def test_what_does_not_conform_is_not_registered_and_nothing_is_kept(
    registry: ModelRegistry, engine: sa.Engine, settings: Settings
):
    broken = logistic()
    broken.coef_ = broken.coef_ * float("nan")
    with pytest.raises(ModelNotConforming, match=r"probabilities in \[0, 1\]"):
        register(registry, "logistic", broken)
    with pytest.raises(ModelNotConforming, match="features declared"):
        register(registry, "logistic", AdvisorRateModel(horizons_h=[1, 6]))
    with pytest.raises(InvalidInput, match="64 hex digits"):
        register(registry, "logistic", logistic(), fingerprint="abc")
    assert registry.versions() == []
    assert list(mlflow_client(settings).search_registered_models()) == []
    assert not [row for row in audit_rows(engine, "register_model") if row["outcome"] == "done"]


def test_models_in_memory_are_bounded(registry: ModelRegistry):
    assert load_estimator.cache_parameters()["maxsize"] == LOADED_MAX
    champion, challenger = register_both(registry)
    for version in (champion, challenger, champion):
        registry.load_model(version)
    assert (load_estimator.cache_info().currsize, load_estimator.cache_info().misses) == (2, 2)


def test_a_version_keeps_the_fingerprint_of_its_data_and_a_card_as_file_and_description(
    registry: ModelRegistry, settings: Settings
):
    training = invented()
    row = register(registry, "logistic", logistic(), training=training, notes=Notes("Two weeks of probes.", ("GPUs.",)))
    assert row.training_sha256 == content_id({"training": training}, {})
    assert register(registry, "logistic", logistic(), fingerprint="f" * 64).training_sha256 == "f" * 64
    none = register(registry, "advisor-rate", AdvisorRateModel(), params={"source": NO_DATA})
    assert none.training_sha256 is None

    client = mlflow_client(settings)
    folder = registry.artifact_folder(row)
    card = (folder / "README.md").read_text()
    version = client.get_model_version("logistic", "1")
    assert version.description == description(card)
    assert version.tags["spotlab.training_sha256"] == row.training_sha256
    for said in ("# logistic\n", "Two weeks of probes. Fingerprint", f"`{row.training_sha256}`", "- GPUs.",
                 "| auc |  | 0.7 |  |", "| C | 1.0 |", "| price_position | [0, 1] |", "LogisticModel"):  # fmt: skip
        assert said in card
    assert "It was fitted on no data." in (registry.artifact_folder(none) / "README.md").read_text()
    # Part of the hash: a card that was made more beautiful is another artifact.
    (folder / "README.md").write_text(card.replace("0.7", "0.9"))
    assert not registry.is_intact(row)


def test_a_sound_file_is_opened_all_the_same(tmp_path: Path):
    skops.io.dump(logistic(), tmp_path / "model.skops")
    opened = load_estimator("logistic/1", artifact_sha256(tmp_path), tmp_path)
    assert opened.package is None
    assert opened.estimator.predict(example().to_numpy()).shape == (2, 3)


@pytest.mark.parametrize(("field", "value"), [("left", 0), ("right", 100_000_000), ("feature_idx", 9)])
def test_trees_that_lead_compiled_code_astray_are_not_opened(tmp_path: Path, field: str, value: int):
    matrix = np.random.default_rng(1).random((400, 2))
    labels = (matrix[:, :1] > 0.5).astype(float)
    boosting = BoostingModel(["discount_depth", "price_position"], [1], max_iter=3).fit(matrix, labels)
    model = CalibratedModel([boosting], [[]], ["discount_depth", "price_position"], [1])
    skops.io.dump(model, tmp_path / "model.skops")
    sound = load_estimator("boosting/1", artifact_sha256(tmp_path), tmp_path).estimator
    np.testing.assert_array_equal(sound.predict(matrix), model.predict(matrix))
    boosting.trees_[field][0] = value
    skops.io.dump(model, tmp_path / "model.skops")
    with pytest.raises(ModelTampered, match="lead to later ones; 1 do not"):
        load_estimator("boosting/1", artifact_sha256(tmp_path), tmp_path)
