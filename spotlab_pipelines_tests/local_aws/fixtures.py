"""Fixtures of the local AWS, loaded by conftest.py as a plugin.

One market and one server per session (moto's state belongs to the process); accounts, sessions, faults and injected
prices are forgotten after every test. While a test holds `local_aws`, the environment points botocore at it, so that
production code sees AWS_ENDPOINT_URL and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from spotlab_pipelines_tests.local_aws.recording import Recording
    from spotlab_pipelines_tests.local_aws.server import LocalAws


@pytest.fixture(scope="session")
def market_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default generated market."""
    from spotlab_pipelines_tests.local_aws.generator import generate

    return generate(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def market(market_dir: Path) -> Recording:
    """The default market in memory, moved to the present exactly as `local_aws` serves it."""
    from spotlab_pipelines_tests.local_aws.recording import load_recording

    return load_recording(market_dir)


@pytest.fixture(scope="session")
def local_aws_server(market: Recording) -> Iterator[LocalAws]:
    """The session's server; tests use `local_aws`."""
    from spotlab_pipelines_tests.local_aws.server import LocalAws

    with LocalAws(market) as server:
        yield server


@pytest.fixture
def local_aws(local_aws_server: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """A local AWS without accounts or faults, to which this process's environment points."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in local_aws_server.environment().items():
        monkeypatch.setenv(name, value)
    yield local_aws_server
    local_aws_server.reset()


@pytest.fixture
def own_profiles(local_aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Profiles with SpotLab's own keys, by partition; the environment holds those of aws alone."""
    from spotlab_pipelines_tests.local_aws.credentials import OWN_KEYS

    profiles = {partition: f"spotlab-{partition}" for partition in OWN_KEYS.values() if partition != "aws"}
    lines = [
        f"[{profiles[partition]}]\naws_access_key_id = {key}\naws_secret_access_key = only-for-the-local-aws\n"
        for key, partition in OWN_KEYS.items()
        if partition in profiles
    ]
    (tmp_path / "aws-credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    return profiles
