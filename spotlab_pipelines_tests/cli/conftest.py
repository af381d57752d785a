"""The command line, run in this process with the settings of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis as redis_py

from spotlab_pipelines.cli import run
from spotlab_pipelines.settings import Settings, get_settings
from spotlab_pipelines_tests.conftest import environment_of


@dataclass(frozen=True)
class Answer:
    """What a command did: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Spotlab = Callable[..., Answer]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Settings], None]]:
    """Make these the settings that this process reads from its environment."""

    def change(settings: Settings) -> None:
        for name in Settings.model_fields:
            monkeypatch.delenv(f"SPOTLAB_{name.upper()}", raising=False)
        for name, value in environment_of(settings).items():
            if name.startswith("SPOTLAB_"):
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("SPOTLAB_PRODUCTS", ",".join(settings.products))
        get_settings.cache_clear()

    yield change
    get_settings.cache_clear()


@pytest.fixture
def spotlab(
    settings: Settings, redis: redis_py.Redis, use: Callable[[Settings], None], capsys: pytest.CaptureFixture[str]
) -> Spotlab:
    """Run a command line; the cache is empty before the test and after it."""
    use(settings)

    def command(*arguments: str) -> Answer:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return command
