"""Models of a user's own package: found by the entry points it declares in the group `spotlab.models`.

An entry point names an estimator's class, a function that makes one, or a subclass of BaseModelAdapter whose
`make_estimator` does. Classes of another package are opened only while an entry point of the very module they are
defined in is installed, only those that the pinned artifact names, and only if the package's code is what it was when
the version was registered: a verdict is of arrays and code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import orjson

from spotlab_pipelines.errors import InvalidInput, ModelError, NotFound
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.hashing import SHOWN
from spotlab_pipelines.inference.package_code import (
    changed_since,
    code_sha256,
    distribution_of,
    imported_code,
    load_entry,
)

if TYPE_CHECKING:
    from spotlab_pipelines.inference.estimators import HorizonEstimator

GROUP = "spotlab.models"
PACKAGE_FILE = "package.json"
"""Of an artifact whose model is of another package: which entry point it came by, and its class."""
OURS = "spotlab_pipelines."


@dataclass(frozen=True)
class PackagedModel:
    """An entry point as an artifact pins it.

    Attributes:
        name, value: its name, and what it names (`module:object`).
        type: the estimator's class, with its module.
        distribution: of which installed distribution it was, with the version: for people to install it again.
        code_sha256: of the files of the module, or of the whole package that the module is in.
    """

    name: str
    value: str
    type: str
    distribution: str = ""
    code_sha256: str = ""

    def to_bytes(self) -> bytes:
        """As the artifact's file has it."""
        return orjson.dumps(vars(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> PackagedModel | None:
        """What an artifact's files say; None if the model is ours."""
        return None if PACKAGE_FILE not in files else cls(**orjson.loads(files[PACKAGE_FILE]))


def packaged_models() -> list[EntryPoint]:
    """The entry points that installed packages declare, by name."""
    return sorted(entry_points(group=GROUP), key=lambda each: each.name)


def make_model(name: str, feature_spec: str | None = None) -> tuple[HorizonEstimator, str]:
    """The estimator of the installed entry point of that name, and the feature spec that it declares or that is given.

    Raises:
        NotFound: no installed package declares it.
        ModelError: it cannot be loaded, or is nothing that SpotLab can serve.
        InvalidInput: nobody says which feature spec it reads.
    """
    found = [each for each in packaged_models() if each.name == name]
    if len(found) != 1:
        declared = ", ".join(each.name for each in packaged_models()) or "none"
        raise NotFound(
            f"Expected one installed package with the entry point {name!r} in {GROUP}, found {len(found)}"
            f" (declared: {declared}).",
            remedy="Install the package into SpotLab's environment.",
        )
    loaded = load_entry(found[0])
    make = loaded.make_estimator if _is_adapter(loaded) else loaded
    try:
        estimator = make()
    except (Exception, SystemExit) as error:
        raise ModelError(f"{found[0].value} gives no model: {type(error).__name__}.") from error
    spec = feature_spec or getattr(loaded, "feature_spec", None) or getattr(estimator, "feature_spec", None)
    if not isinstance(spec, str):
        raise InvalidInput(
            f"{found[0].value} does not say which feature spec it reads.",
            remedy='Give --spec, or declare feature_spec = "v2-history" on the class.',
        )
    return estimator, spec


def package_of(estimator: HorizonEstimator, entry_point: str | None = None) -> PackagedModel | None:
    """The installed entry point by which an estimator's class may be opened again; None if the class is ours.

    Args:
        entry_point: its name; by default the only one in the module that defines the class.

    Raises:
        InvalidInput: no installed package declares one there, or several are and none is named.
    """
    kind = type(estimator)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if named.startswith(OURS):
        return None
    there = [each for each in packaged_models() if each.module == kind.__module__]
    found = [each for each in there if entry_point in (None, each.name)]
    if len(found) == 1:
        [entry] = found
        return PackagedModel(
            entry.name, entry.value, named, distribution_of(entry), imported_code(entry) or code_sha256(entry)
        )
    raise InvalidInput(
        f"{named} is not ours: an entry point in {GROUP} must name its module {kind.__module__}, or nobody could open"
        f" it again; expected one{f' called {entry_point}' if entry_point else ''}, installed are"
        f" {', '.join(each.name for each in there) or 'none'}.",
        remedy="Declare it in the package that defines the class, install that, and name it if it has several.",
    )


def adapter_class(pinned: PackagedModel | None) -> type[BaseModelAdapter]:
    """The adapter that serves a version: the package's own, or ours.

    Raises:
        ModelError: as `trusted_type` does; the package may have changed since the version was opened last.
    """
    if pinned is None:
        return BaseModelAdapter
    _, loaded = _load(pinned)
    return loaded if _is_adapter(loaded) else BaseModelAdapter


def trusted_type(pinned: PackagedModel) -> str:
    """The one more type that an artifact may hold.

    Raises:
        ModelError: the package is not installed, its code is another by now, this process has imported another, or its
            module defines no such estimator.
    """
    from spotlab_pipelines.inference.estimators import HorizonEstimator

    entry, _ = _load(pinned)
    module, _, name = pinned.type.rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name, None) if module == entry.module else None
    # Defined there, not merely imported there: a module may well have imported subprocess.Popen.
    if not (isinstance(kind, type) and issubclass(kind, HorizonEstimator) and kind.__module__ == module):
        raise ModelError(
            f"Expected {pinned.type} to be an estimator that the module of the entry point {pinned.name} defines"
            f" ({entry.module}); it was not opened."
        )
    return pinned.type


def _load(pinned: PackagedModel) -> tuple[EntryPoint, Any]:
    """The installed entry point of a pinned model and what it names, if its code is what was pinned."""
    entry = _installed(pinned)
    # Before it is imported: that would run it.
    found = code_sha256(entry)
    if found != pinned.code_sha256:
        raise ModelError(
            f"Expected the code of {pinned.distribution or entry.module} that the version was registered with (sha256"
            f" {pinned.code_sha256[:SHOWN] or 'not on record'}); {distribution_of(entry)} has {found[:SHOWN]}. It was"
            " not opened.",
            remedy="Install that code again, or register the model anew with this one: `spotlab models register`.",
        )
    loaded = load_entry(entry)
    # Imported long ago, or changed a moment ago.
    if imported_code(entry) != found:
        raise changed_since(entry)
    return entry, loaded


def _installed(pinned: PackagedModel) -> EntryPoint:
    for each in packaged_models():
        if (each.name, each.value) == (pinned.name, pinned.value):
            return each
    raise ModelError(
        f"Expected an installed package with the entry point {pinned.name} = {pinned.value} in {GROUP}; there is none.",
        remedy="Install the package that the version was registered from.",
    )


def _is_adapter(loaded: Any) -> bool:
    return isinstance(loaded, type) and issubclass(loaded, BaseModelAdapter)
