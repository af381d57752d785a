"""The example of docs/models.md, built and installed as it stands: found, asked, registered, served; gone, refused."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from spotlab_pipelines.doctor import work
from spotlab_pipelines.doctor.findings import Doubt
from spotlab_pipelines.errors import InvalidInput, ModelError, NotFound
from spotlab_pipelines.inference import package_code
from spotlab_pipelines.inference.artifacts import load_estimator
from spotlab_pipelines.inference.conformance import probe
from spotlab_pipelines.inference.package_code import code_sha256
from spotlab_pipelines.inference.packages import adapter_class, make_model, package_of, packaged_models, trusted_type
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.inference.models import register_both

__all__ = ["spotlab", "use"]

MORE_ENTRIES = """quiet-hours = "quiet_hours:QuietHours"
halved = "quiet_hours:Halved"
made = "quiet_hours:made"
sneaky = "quiet_hours:Popen"
torn = "quiet_hours:Torn"
leaving = "quiet_hours:Leaving"
late = "quiet_hours:Late"
"""
MORE_CODE = """
import os
from subprocess import Popen

import quiet_tables

from spotlab_pipelines.inference.adapter import BaseModelAdapter


class Halved(BaseModelAdapter):
    feature_spec = "v2-history"
    make_estimator = QuietHours

    def predict_matrix(self, matrix):
        return super().predict_matrix(matrix) / 2


def made():
    return QuietHours(slopes=(-2.0, -1.0, -0.5))


class Torn(QuietHours):
    def predict(self, X):
        return super().predict(X) * np.nan


class Leaving(QuietHours):
    def predict(self, X):
        raise SystemExit(0)


class Late(QuietHours):
    def check_arrays(self):
        if "LATE" in os.environ:
            raise RuntimeError
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example was installed, with a few more entry points, by the installer itself."""
    page = (PROJECT_ROOT / "docs" / "models.md").read_text()
    [project] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    package, site = tmp_path_factory.mktemp("quiet-hours"), tmp_path_factory.mktemp("site")
    entry = 'quiet-hours = "quiet_hours:QuietHours"\n'
    assert entry in project
    (package / "pyproject.toml").write_text(project.replace(entry, MORE_ENTRIES))
    (package / "quiet_hours.py").write_text(code + MORE_CODE)
    options = ("--offline", "--no-deps", "--no-build-isolation", "--quiet", "--python", sys.executable)
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--target", str(site), str(package)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    # What it depends on is not pinned.
    (site / "quiet_tables.py").write_text("")
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_estimator.cache_clear()
    monkeypatch.syspath_prepend(str(site))
    yield
    _forget()


def _forget() -> None:
    """As in a new process."""
    for name in ("quiet_hours", "quiet_tables"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    load_estimator.cache_clear()


def test_a_package_is_found_asked_registered_and_served_while_it_is_installed(
    engine: sa.Engine,
    settings: Settings,
    mlflow_database: str,
    spotlab: Spotlab,
    site: Path,
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = ModelRegistry(engine, settings)
    register_both(registry)
    asked = spotlab("models", "conform", "quiet-hours")
    assert asked.code == 0, asked.out + asked.err
    everything = spotlab("models", "conform", "--json")
    assert everything.code == 1
    assert {row["model"] for row in everything.json if not row["passed"]} == {"sneaky", "torn", "leaving"}
    assert {"logistic/1", "quiet-hours", "halved", "made"} <= {row["model"] for row in everything.json}
    registered = spotlab("models", "register", "quiet-hours", "--data", "Launch probes of May, by hand.")
    assert registered.out == "quiet-hours/1 is a candidate.\n", registered.err
    assert spotlab("models", "approve", "quiet-hours/1", "--challenger").code == 0
    assert spotlab("models", "register", "halved").code == spotlab("models", "register", "made").code == 0
    refused = spotlab("models", "register", "torn")
    assert refused.code == 1
    assert "ModelNotConforming" not in refused.out
    assert "probabilities in [0, 1]" in refused.err

    refused = spotlab("models", "register", "leaving")
    assert (refused.code, "SystemExit, raised in quiet_hours.py" in refused.err) == (1, True), refused.err

    features = probe("v2-history")
    row = registry.get("quiet-hours/1")
    assert (row.feature_spec, row.role) == ("v2-history", "challenger")
    card = (registry.artifact_folder(row) / "README.md").read_text()
    assert "Launch probes of May, by hand. Its data have no fingerprint." in card
    listed = {each["version"]: each["learned_from"] for each in spotlab("models", "list", "--json").json}
    assert listed["advisor-rate/1"] == "no data"
    assert (listed["quiet-hours/1"], listed["halved/1"]) == ("Launch probes of May, by hand.", None)
    found = registry.load_model("quiet-hours/1").predict_batch(features, "v2-history")
    logits = np.array([-1.5, -0.5, 0.2]) + features[["log_hours_without_failure"]].to_numpy() * [-0.8, -0.7, -0.6]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-12)
    halved = registry.open(registry.find("halved/1"))
    np.testing.assert_array_equal(halved.predict_batch(features, "v2-history"), found / 2)
    assert not np.allclose(registry.open(registry.find("made/1")).predict_batch(features, "v2-history"), found)

    code = site / "quiet_hours.py"
    written = code.read_text()
    _forget()
    code.write_text(written + "\nraise SystemExit\n")
    with pytest.raises(ModelError, match=r"code of quiet-hours 1\.0 .* was not opened"):
        registry.load_model("quiet-hours/1")
    assert "quiet_hours" not in sys.modules, "it ran before it was refused"
    code.write_text(written)
    assert registry.load_model("quiet-hours/1")

    (site / "quiet_tables.py").rename(site / "elsewhere.py")
    _forget()
    refused = spotlab("models", "approve", "halved/1")
    assert (refused.code, "cannot be loaded: ModuleNotFoundError" in refused.err) == (1, True), refused.err
    (site / "elsewhere.py").rename(site / "quiet_tables.py")

    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(site)])
    _forget()
    gone = "Expected an installed package with the entry point"
    with pytest.raises(ModelError, match=gone):
        registry.load_model("quiet-hours/1")
    assert registry.load_model("logistic/1")
    for step in (("promote", "quiet-hours/1", "--override", "it looks good"), ("approve", "halved/1")):
        refused = spotlab("models", *step)
        assert (refused.code, gone in refused.err) == (1, True), refused.err
    listed = spotlab("models", "list")
    for version in ("quiet-hours/1", "halved/1", "made/1"):
        assert f"note: {version} cannot be opened. {gone}" in listed.err
    assert "logistic/1 cannot" not in listed.err
    with pytest.raises(Doubt, match=rf"quiet-hours/1 cannot be opened\. {gone}"):
        work.models(settings)
    told = spotlab("models", "show", "quiet-hours/1").out
    assert "they are the registered ones" in told
    assert f"problem         {gone}" in told


def test_a_champion_whose_package_raises_whatever_it_likes_is_told_and_gives_its_place_up(
    engine: sa.Engine,
    settings: Settings,
    mlflow_database: str,
    spotlab: Spotlab,
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for step in (("register", "late"), ("approve", "late/1"), ("promote", "late/1")):
        answer = spotlab("models", *step)
        assert answer.code == 0, answer.err
    monkeypatch.setenv("LATE", "1")
    load_estimator.cache_clear()
    failed = "late/1 failed: RuntimeError, raised in quiet_hours.py"
    with pytest.raises(ModelError, match=failed):
        ModelRegistry(engine, settings).load_model("late/1")
    listed = spotlab("models", "list")
    assert (listed.code, f"late/1 cannot be opened. {failed}" in listed.err) == (0, True), listed.err
    retired = spotlab("models", "retire", "late/1")
    assert retired.code == 0, retired.err


def test_only_estimators_that_the_declared_module_defines_are_trusted(installed: None) -> None:
    pinned = package_of(make_model("quiet-hours")[0], "quiet-hours")
    assert pinned is not None
    assert trusted_type(pinned) == pinned.type == "quiet_hours.QuietHours"
    for name, value, kind in (
        ("sneaky", "quiet_hours:Popen", "quiet_hours.Popen"),
        ("quiet-hours", "quiet_hours:QuietHours", "subprocess.Popen"),
        ("quiet-hours", "quiet_hours:QuietHours", "quiet_hours.np"),
        ("quiet-hours", "quiet_hours:QuietHours", "quiet_hours.HorizonEstimator"),
        ("quiet-hours", "quiet_hours:Other", "quiet_hours.QuietHours"),
        ("other", "quiet_hours:QuietHours", "quiet_hours.QuietHours"),
    ):
        with pytest.raises(ModelError):
            trusted_type(replace(pinned, name=name, value=value, type=kind))


def test_code_is_told_by_every_file_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "night_hours"
    (package / "inner" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/models.py", "rates.csv"):
        (package / name).write_text("")
    entry = EntryPoint("night-hours", "night_hours.inner.models:NightHours", "spotlab.models")
    seen = [code_sha256(entry)]
    for name in ("__init__.py", "inner/models.py", "rates.csv", "added.py"):
        (package / name).write_text("# changed")
        seen.append(code_sha256(entry))
    assert len(set(seen)) == len(seen)
    (package / "inner" / "__pycache__" / "models.cpython-311.pyc").write_bytes(b"compiled anew")
    assert code_sha256(entry) == seen[-1]
    assert "night_hours" not in sys.modules
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("packed_hours/__init__.py", "")
    monkeypatch.syspath_prepend(str(archive))
    (tmp_path / "spread_hours").mkdir()
    (tmp_path / "spread_hours" / "models.py").write_text("")
    for name in ("packed_hours", "spread_hours.models", "gone_hours"):
        with pytest.raises(ModelError, match=r"with an __init__\.py; there is none"):
            code_sha256(EntryPoint("any", f"{name}:Any", "spotlab.models"))
    (package / "more").symlink_to(tmp_path / "spread_hours")
    with pytest.raises(ModelError, match="no folder that is a link"):
        code_sha256(entry)


def test_a_process_that_imported_other_code_does_not_predict_by_it(site: Path, installed: None) -> None:
    code = site / "quiet_hours.py"
    written = code.read_text()
    estimator, _ = make_model("quiet-hours")
    pinned = package_of(estimator, "quiet-hours")
    assert pinned is not None
    code.write_text(written + "\nCHANGED = True\n")
    try:
        assert package_of(estimator, "quiet-hours") == pinned, "what was imported is pinned"
        newer = replace(pinned, code_sha256=code_sha256(EntryPoint("any", pinned.value, "spotlab.models")))
        with pytest.raises(ModelError, match="may have changed since this process imported it"):
            trusted_type(newer)
        with pytest.raises(ModelError, match="the version was registered with"):
            adapter_class(pinned)
        _forget()
        assert trusted_type(newer) == newer.type
    finally:
        code.write_text(written)


def test_code_that_somebody_else_imported_is_known_where_it_is_older_than_the_process(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("quiet_hours")
    with pytest.raises(ModelError, match="may have changed since this process imported it"):
        make_model("quiet-hours")
    monkeypatch.setattr(package_code, "CLOCKS_APART_S", -3600.0)
    assert make_model("quiet-hours")[1] == "v2-history"


def test_code_that_changes_while_it_is_imported_is_not_opened(site: Path, installed: None) -> None:
    code = site / "quiet_hours.py"
    written = code.read_text()
    code.write_text(written + "\nfrom pathlib import Path\nPath(__file__).write_text('CHANGED = True')\n")
    try:
        with pytest.raises(ModelError, match="may have changed since this process imported it"):
            make_model("quiet-hours")
    finally:
        code.write_text(written)


def test_what_nobody_declares_is_refused_by_name(installed: None) -> None:
    assert "quiet-hours" in {each.name for each in packaged_models()}
    with pytest.raises(NotFound, match=r"declared: .*quiet-hours"):
        make_model("loud-hours")
    estimator, spec = make_model("quiet-hours")
    assert spec == "v2-history"
    assert make_model("quiet-hours", "v2")[1] == "v2"
    with pytest.raises(InvalidInput, match="installed are halved, late, leaving, made, quiet-hours, sneaky, torn"):
        package_of(estimator)
    found = package_of(estimator, "quiet-hours")
    assert found is not None
    assert found.type == "quiet_hours.QuietHours"

    class Homeless(type(estimator)):  # type: ignore[misc]
        """Of a module that no entry point names."""

    with pytest.raises(InvalidInput, match="nobody could open it again"):
        package_of(Homeless())
