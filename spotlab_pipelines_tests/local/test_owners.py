"""Who may run the stores, and where: root drops to an unprivileged user, others run them as themselves."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import spotlab_pipelines.local.directories as directories
from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local import binaries, down, status, up
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.conftest import FAST_POSTGRES, environment_of, new_directory

MakeSettings = Callable[..., Settings]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
UID = 65534


def shut() -> bool:
    """Whether others cannot go where the wheels lie, such as a checkout in root's home: they run nothing from there."""
    return any(not folder.stat().st_mode & stat.S_IXOTH for folder in Path(sys.prefix).resolve().parents)


def run_as_nobody(code: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment_of(settings) | {"HOME": "/nonexistent"}, cwd=PROJECT_ROOT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# The interpreter may lie in root's home, so everything is imported before the change of user.
UP = f"""
import encodings.idna, os
from spotlab_pipelines.errors import SpotLabError
from spotlab_pipelines.local import down, status, up
from spotlab_pipelines.settings import get_settings
os.setgroups([]), os.setgid({UID}), os.setuid({UID})
try:
    print(*up(get_settings()).started)
    print(*(store.state for store in status(get_settings())))
    print(*down(get_settings()))
except SpotLabError as error:
    print(type(error).__name__, error)
"""


@as_root
@pytest.mark.skipif(shut(), reason="this checkout is open to its owner alone")
@pytest.mark.parametrize("source", ["machine-first", "wheels"])
def test_an_ordinary_user_runs_them_alone(source: str, local_settings: MakeSettings) -> None:
    settings = local_settings(local_binaries=source)
    os.chown(settings.data_dir.parent, UID, UID)
    done = run_as_nobody(UP, settings)
    assert done.stdout.splitlines() == ["postgres redis", "running running", "postgres redis"], done.stderr
    assert {path.stat().st_uid for path in settings.data_dir.rglob("*")} == {UID}
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700


@as_root
def test_a_directory_that_may_not_be_written(local_settings: MakeSettings) -> None:
    settings = local_settings()
    settings.data_dir.mkdir(mode=0o755)
    done = run_as_nobody(UP, settings)
    assert done.stdout.startswith(f"LocalStackError The data directory {settings.data_dir} cannot be used"), done.stderr
    assert "SPOTLAB_DATA_DIR" in done.stdout
    assert list(settings.data_dir.iterdir()) == []


@as_root
def test_stores_of_another_user_are_refused_by_name(local_settings: MakeSettings) -> None:
    settings = local_settings()
    up(settings, postgres_options=FAST_POSTGRES)
    settings.data_dir.chmod(0o777)
    done = run_as_nobody(UP, settings)
    assert done.stdout.startswith("LocalStackError"), done.stderr
    assert "another user" in done.stdout
    assert [store.state for store in status(settings)] == ["running", "running"]


@as_root
def test_a_closed_parent_is_named_and_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    parents = {path: path.stat().st_mode for path in (closed, *closed.parents)}
    first_closed = next(path for path in reversed(list(parents)) if not path.stat().st_mode & stat.S_IXOTH)
    with pytest.raises(LocalStackError, match=rf"cannot enter {first_closed}\. Set SPOTLAB_DATA_DIR"):
        up(Settings(data_dir=closed / "data"))
    assert {path: path.stat().st_mode for path in parents} == parents


@as_root
def test_new_parents_let_the_stores_user_through_but_list_nothing(local_settings: MakeSettings) -> None:
    settings = local_settings()
    deep = settings.model_copy(update={"data_dir": settings.data_dir / "one" / "two"})
    old_mask = os.umask(0o077)
    try:
        up(deep, postgres_options=FAST_POSTGRES)
    finally:
        os.umask(old_mask)
        down(deep)
    for path in (settings.data_dir, settings.data_dir / "one", deep.data_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o711


@as_root
def test_programs_in_a_closed_checkout_are_copied(
    local_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = new_directory()
    site = closed / "site-packages"
    for name in binaries.WHEELS:
        package = binaries.wheel_folders(name)[0]
        for source in (package, package.with_name(f"{name}.libs")):
            if source.exists():
                shutil.copytree(source, site / source.name, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(binaries, "wheel_folders", lambda name: (site / name,))
    settings = local_settings(local_binaries="wheels")
    try:
        assert up(settings, postgres_options=FAST_POSTGRES).started == ("postgres", "redis")
        assert len(list((settings.data_dir / "programs").iterdir())) == 2
        down(settings)
        assert up(settings).started == ("postgres", "redis")
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        down(settings)
        shutil.rmtree(closed)


@as_root
def test_without_the_right_to_change_users(local_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "UNPRIVILEGED", ("no-such-user",))
    with pytest.raises(LocalStackError, match="no user no-such-user to run them"):
        up(local_settings())
