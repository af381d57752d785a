"""What a look of the doctor results in: a finding that is OK, a warning or a failure, whatever the look ran into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from spotlab_pipelines.errors import SpotLabError, raised_in

State = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, its state, what was found, and what to do where it is not OK."""

    check: str
    state: State
    found: str
    remedy: str | None = None


class Doubt(Exception):
    """A look found something that need not be wrong."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def look(check: str, what: Callable[[], str]) -> Finding:
    """The finding of one look: `what` returns its line, or raises a `Doubt` or any error."""
    try:
        return Finding(check, "OK", what())
    except Doubt as doubt:
        return Finding(check, "WARN", str(doubt), doubt.remedy)
    except Exception as error:
        return failed(check, error)


def failed(check: str, error: Exception) -> Finding:
    """The finding of a look that failed."""
    if isinstance(error, SpotLabError):
        found = str(error)
        if error.remedy is not None:
            found = found.removesuffix(error.remedy).strip()
        return Finding(check, "FAIL", f"{type(error).__name__}: {found}", error.remedy)
    # An error of a library may quote a URL with its password, so its text is not repeated: what broke, and where, is.
    return Finding(
        check,
        "FAIL",
        f"{type(error).__name__}: unforeseen, {raised_in(error)}.",
        "Look at what this line works with, and report it: it deserves an error of its own.",
    )
