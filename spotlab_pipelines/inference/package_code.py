"""The code of a user's package: its hash, and its import, which leaves no doubt about which code it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from spotlab_pipelines.errors import ModelError, SpotLabError, raised_in
from spotlab_pipelines.inference.hashing import sha256_of

IMPORTED = "__spotlab_sha256__"
"""Of a package's top module: the hash of the code that this process imported."""
AS_FILES = "Install it as pip does, as files in one folder."
CLOCKS_APART_S = 1.0
"""By how much the clock of files and that of processes may differ."""


def code_sha256(entry: EntryPoint) -> str:
    """The hash of what an entry point's import runs: every file of its top-level package, or its one module.

    Nothing is imported for it.

    Raises:
        ModelError: there is no such module, or not as files in one folder that can be read.
    """
    with _reading(entry):
        return sha256_of({name: path.read_bytes() for name, path in _files(entry).items()})


def load_entry(entry: EntryPoint) -> Any:
    """What an entry point names; its package's top module, imported for it, is marked with the hash of its code.

    Raises:
        ModelError: it cannot be imported, it is nothing to call, or nobody can tell which code was imported.
    """
    if imported_code(entry) is None:
        code = code_sha256(entry)
        # Imported by somebody else, a notebook say: it is today's code if that is older than the process.
        if _top(entry) in sys.modules and _newest(entry) > psutil.Process().create_time() - CLOCKS_APART_S:
            raise changed_since(entry)
        loaded = _import(entry)
        if code_sha256(entry) != code:
            raise changed_since(entry)
        # Said by the module itself: where it is imported anew, it is said anew.
        vars(sys.modules[_top(entry)])[IMPORTED] = code
    else:
        loaded = _import(entry)
    if not callable(loaded):
        raise ModelError(f"Expected {entry.value} to be a class or a function, got {type(loaded).__name__}.")
    return loaded


def imported_code(entry: EntryPoint) -> str | None:
    """The hash of the code as this process imported it; None if it has not, or not by `load_entry`."""
    module = sys.modules.get(_top(entry))
    return None if module is None else vars(module).get(IMPORTED)


def changed_since(entry: EntryPoint) -> ModelError:
    """The refusal of code of which this process may have imported another state."""
    return ModelError(
        f"The code of {distribution_of(entry)} may have changed since this process imported it. It was not opened.",
        remedy="Start the process anew.",
    )


@contextmanager
def package_errors(what: str) -> Iterator[None]:
    """Whatever a package's code raises, be it the end of the process, is a ModelError that says where.

    Our own errors, and those of files, which have a word of their own, stay what they are.
    """
    try:
        yield
    except (SpotLabError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{what} failed: {type(error).__name__}, {raised_in(error)}.",
            remedy="Mend its package, and register it anew.",
        ) from error


def distribution_of(entry: EntryPoint) -> str:
    """The installed distribution that declares an entry point, with its version, for people."""
    return "an unnamed distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _import(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"The entry point {entry.name} = {entry.value} cannot be loaded: {type(error).__name__}.",
            remedy="Mend the package; `spotlab --traceback models conform` shows where it fails.",
        ) from error


def _newest(entry: EntryPoint) -> float:
    """When the newest of the code's files came to be what it is, in seconds since 1970; nobody can set that back."""
    with _reading(entry):
        return max(path.stat().st_ctime for path in _files(entry).values())


def _files(entry: EntryPoint) -> dict[str, Path]:
    """The code's files by name."""
    place, spec = _place(entry), find_spec(_top(entry))
    root = Path(str(spec.origin)) if spec is not None and spec.has_location else None
    if root is None or not root.is_file():
        raise ModelError(f"Expected {place} to be installed, with an __init__.py; there is none.", remedy=AS_FILES)
    folder = root.parent if spec is not None and spec.submodule_search_locations else None
    paths = [root] if folder is None else [path for path in folder.rglob("*") if path.parent.name != "__pycache__"]
    if any(path.is_symlink() and path.is_dir() for path in paths):
        raise ModelError(f"Expected {place} to hold no folder that is a link.", remedy=AS_FILES)
    base = root.parent if folder is None else folder.parent
    return {path.relative_to(base).as_posix(): path for path in paths if not path.is_dir()}


@contextmanager
def _reading(entry: EntryPoint) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected {_place(entry)} as files that can be read: {error}.", remedy=AS_FILES) from error


def _place(entry: EntryPoint) -> str:
    return f"the package of {entry.name} = {entry.value}"


def _top(entry: EntryPoint) -> str:
    return entry.module.partition(".")[0]
