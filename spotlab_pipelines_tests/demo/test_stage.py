"""The stage of the demo: nothing of the user's AWS gets in, and each market has a place of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from spotlab_pipelines.accounts.sessions import own_account_id
from spotlab_pipelines.settings import Settings, get_settings
from spotlab_pipelines_tests.demo import stage
from spotlab_pipelines_tests.demo.__main__ import settings_for
from spotlab_pipelines_tests.local_aws.client import LocalAwsClient
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT
from spotlab_pipelines_tests.local_aws.server import LocalAws

OF_THE_USER = {
    "AWS_PROFILE": "work",
    "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_PRICING": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_CONFIG_FILE": "/home/ada/.aws/config",
    "AWS_ROLE_ARN": "arn:aws:iam::555566667777:role/mine",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/home/ada/token",
}


def test_nothing_of_the_users_aws_stays_in_the_environment() -> None:
    environment = {**OF_THE_USER, "HOME": "/home/ada", "NO_PROXY": "example.org"}
    aws = LocalAwsClient("http://127.0.0.1:5555")
    aws.enter(environment)
    left = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    assert left == {name: value for name, value in aws.environment().items() if name.startswith("AWS_")}
    assert left["AWS_CONFIG_FILE"] == left["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert environment["HOME"] == "/home/ada"
    assert environment["NO_PROXY"] == "example.org,127.0.0.1"
    aws.enter(environment)
    assert environment["NO_PROXY"] == "example.org,127.0.0.1"


def test_a_users_profile_and_endpoints_do_not_lead_past_the_local_aws(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OF_THE_USER.items():
        monkeypatch.setenv(name, value)
    environment = dict(os.environ)
    local_aws.enter(environment)
    for name in OF_THE_USER:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert own_account_id() == OWN_ACCOUNT


def test_two_recordings_of_the_same_name_share_nothing(
    tmp_path: Path, market_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Path(shutil.copytree(market_dir, tmp_path / parent / "rec")) for parent in ("a", "b"))
    monkeypatch.setenv("SPOTLAB_DATA_DIR", "as the tests found it")
    places = []
    for market in (one, other, one):
        monkeypatch.delenv("SPOTLAB_DATA_DIR")
        get_settings.cache_clear()
        places.append(settings_for(market).data_dir)
    get_settings.cache_clear()
    assert places[0] == places[2] != places[1]
    assert "-rec-" in places[0].name
    settings = Settings(data_dir=tmp_path / "data")
    for folder in (one, other, one):
        assert len(stage.fleets_of(settings, folder)) == len(stage.NAMES)
    assert len(list((settings.data_dir / "markets").glob("rec-*-fleets.json"))) == 2
