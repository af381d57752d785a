"""A model's files: their hash, and the only way they are opened. MLflow is not needed for it.

A file is opened only after its folder's hash was found equal to the pinned one, and then with our own fixed list of
types, never with what the file or its MLmodel says about itself. No pickle is read, ever. A model of a user's package
brings one type more, if packages.py finds it installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from spotlab_pipelines.errors import ModelTampered
from spotlab_pipelines.inference.hashing import SHOWN, sha256_of
from spotlab_pipelines.inference.packages import PackagedModel, trusted_type

if TYPE_CHECKING:
    from spotlab_pipelines.inference.estimators import HorizonEstimator

TRUSTED_TYPES = [
    "spotlab_pipelines.inference.boosting.BoostingModel",
    "spotlab_pipelines.inference.calibration.CalibratedModel",
    "spotlab_pipelines.inference.estimators.AdvisorRateModel",
    "spotlab_pipelines.inference.estimators.LogisticModel",
    "spotlab_pipelines.inference.rates.BaseRateModel",
    "spotlab_pipelines.inference.rates.HazardModel",
]
"""The only types beyond skops' own (numpy, scikit-learn) that an artifact may hold."""

MODEL_FILE = "model.skops"
LOADED_MAX = 32
"""Models kept in memory."""


@dataclass(frozen=True)
class Opened:
    """An artifact as it was opened: the estimator, and the package it came from if that is not ours."""

    estimator: HorizonEstimator
    package: PackagedModel | None


def artifact_sha256(folder: Path) -> str:
    """The hash of a folder: of every file's relative name, length and bytes, in the order of the names.

    Raises:
        ModelTampered: the folder is not there, is empty or holds a link.
    """
    return sha256_of(_read(folder))


def open_artifact(version: str, sha256: str, folder: Path) -> Opened:
    """Open a version's artifact, if it and its package are what was registered.

    Raises:
        ModelTampered: the files are not the ones that were registered; nothing was opened.
        ModelError: the package that it came from is not installed, or its code is another by now; nothing was opened.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    files = _read(folder)
    found = sha256_of(files)
    if found != sha256:
        raise ModelTampered(
            f"The files of {version} are not the registered ones: expected sha256 {sha256[:SHOWN]}, found"
            f" {found[:SHOWN]}. They were not opened.",
            remedy="Restore the files, or register the model anew.",
        )
    package = PackagedModel.of_files(files)
    trusted = TRUSTED_TYPES if package is None else [*TRUSTED_TYPES, trusted_type(package)]
    try:
        # The very bytes that were hashed, not the file, which may have changed since.
        estimator = skops.io.loads(files[MODEL_FILE], trusted=trusted)
        estimator.check_arrays()
        return Opened(estimator, package)
    except (UntrustedTypesFoundException, BadZipFile, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelTampered(
            f"The artifact of {version} cannot be opened with our list of trusted types: {error}."
        ) from error


load_estimator = lru_cache(maxsize=LOADED_MAX)(open_artifact)
"""`open_artifact`, kept in memory by version and hash."""


def _read(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    if not files or any(path.is_symlink() for path in (folder, *paths)):
        raise ModelTampered(
            f"Expected a model's files, and no links, in {Path(*folder.parts[-2:])}; found {len(files)} files.",
            remedy="Restore the folder, or register the model anew; `spotlab models bootstrap` does the first ones.",
        )
    return files
