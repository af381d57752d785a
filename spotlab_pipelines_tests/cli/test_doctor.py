"""The doctor: a finding for every setting and store, what is wrong, what to do; and it changes nothing."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.database.migrate import downgrade, ensure_databases
from spotlab_pipelines.doctor import look
from spotlab_pipelines.local import status
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.conftest import new_directory
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID, fill
from spotlab_pipelines_tests.market.feeds import whole_feed

FEED = whole_feed({"us-east-1": {"Linux": {"m5.large": {"s": 60, "r": 1}}}})


class Feed(http.server.BaseHTTPRequestHandler):
    """Serves the Advisor's feed, whatever is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(FEED).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def feed() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Feed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/spot-advisor-data.json"
        server.shutdown()


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return candidate.getsockname()[1]


@pytest.fixture
def examine(
    spotlab: Spotlab, settings: Settings, feed: str, use: Callable[[Settings], None]
) -> Callable[..., dict[str, dict[str, Any]]]:
    """The findings by name, for the test's settings with changes; the exit code is under the name `code`."""

    def run(**changes: Any) -> dict[str, Any]:
        ports = {"dagster_port": free_port(), "mlflow_port": free_port()}
        use(Settings(**{**settings.model_dump(exclude_unset=True), "advisor_url": feed, **ports, **changes}))
        answer = spotlab("doctor", "--json")
        return {finding["check"]: finding for finding in answer.json} | {"code": answer.code}

    return run


def states(found: dict[str, Any]) -> dict[str, str]:
    return {name: finding["state"] for name, finding in found.items() if name != "code"}


def test_all_is_well_but_for_credentials(examine: Callable[..., dict[str, Any]], engine: sa.Engine) -> None:
    found = examine()
    assert states(found) == {
        "settings": "OK", "postgres": "OK", "dagster database": "WARN", "mlflow database": "WARN", "redis": "OK",
        "archive": "OK", "mlruns": "OK", "advisor": "OK", "catalogue account": "WARN", "products": "OK",
        "pricing region": "OK", "times to live": "OK", "dagster port": "OK", "mlflow port": "OK",
        "aws credentials": "FAIL",
    }  # fmt: skip
    assert found["code"] == 4
    assert "AWS_ACCESS_KEY_ID" in found["aws credentials"]["remedy"]


def test_embedded_stores_that_are_down_stay_down(examine: Callable[..., dict[str, Any]]) -> None:
    data_dir = new_directory() / "data"
    found = examine(data_dir=data_dir, database_url=None, redis_url=None)
    assert states(found)["postgres"] == states(found)["redis"] == "WARN"
    assert "spotlab up" in found["postgres"]["remedy"]
    assert states(found)["data directory"] == states(found)["programs"] == "OK"
    assert "Postgres" in found["programs"]["found"]
    assert "Redis" in found["programs"]["found"]
    assert not data_dir.exists()
    assert [store.state for store in status(Settings(data_dir=data_dir))] == ["stopped", "stopped"]


def test_what_is_wrong_with_postgres(
    examine: Callable[..., dict[str, Any]], settings: Settings, owner: sa.Engine
) -> None:
    with owner.begin() as connection:
        connection.execute(sa.text("alter table users add column shoe_size integer"))
    found = examine()["postgres"]
    assert (found["state"], "shoe_size" in found["found"]) == ("FAIL", True)
    with owner.begin() as connection:
        connection.execute(sa.text("alter table users drop column shoe_size"))
    downgrade(settings, "base")
    found = examine()["postgres"]
    assert (found["state"], "spotlab up" in found["remedy"]) == ("FAIL", True)
    found = examine(database_url="postgresql://me:hidden-word@127.0.0.1:1/spotlab")["postgres"]
    assert (found["state"], "hidden-word" in str(found)) == ("FAIL", False)


def test_a_redis_that_evicts(examine: Callable[..., dict[str, Any]], redis: redis_py.Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert examine()["redis"]["state"] == "WARN"
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert examine(redis_url="redis://127.0.0.1:1/0")["redis"]["state"] == "FAIL"


def test_an_unknown_variable_is_probably_misspelt(
    examine: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOTLAB_MINIMAL_GAIN", "0.1")
    found = examine()["settings"]
    assert (found["state"], "SPOTLAB_MINIMAL_GAIN" in found["found"]) == ("WARN", True)


def test_a_malformed_setting_ends_the_examination(
    examine: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, settings: Settings, spotlab: Spotlab
) -> None:
    monkeypatch.setenv("SPOTLAB_MINIMUM_GAIN", "plenty")
    answer = spotlab("doctor", "--json")
    assert [(finding["check"], finding["state"]) for finding in answer.json] == [("settings", "FAIL")]
    assert answer.code == 4


def test_places_that_cannot_be_written(examine: Callable[..., dict[str, Any]], tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    found = examine(archive_url=str(tmp_path / "file" / "archive"), mlruns_dir=tmp_path / "file")
    assert "SPOTLAB_ARCHIVE_URL" in found["archive"]["remedy"]
    assert "SPOTLAB_MLRUNS_DIR" in found["mlruns"]["remedy"]
    assert states(found)["archive"] == states(found)["mlruns"] == "FAIL"


def test_an_archive_that_is_there_is_tried_out(examine: Callable[..., dict[str, Any]], tmp_path: Any) -> None:
    (tmp_path / "archive").mkdir()
    assert examine()["archive"]["state"] == "OK"
    assert list((tmp_path / "archive").iterdir()) == []


def test_an_advisor_that_is_none(examine: Callable[..., dict[str, Any]]) -> None:
    assert "SourceUnavailable" in examine(advisor_url="http://127.0.0.1:1/feed.json")["advisor"]["found"]
    assert "SettingsError" in examine(advisor_url="ftp://example.org/feed.json")["advisor"]["found"]


def test_a_taken_port(examine: Callable[..., dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        found = examine(dagster_port=squatter.getsockname()[1])["dagster port"]
    assert (found["state"], "SPOTLAB_DAGSTER_PORT" in found["remedy"]) == ("WARN", True)


def test_the_text_says_the_same(spotlab: Spotlab, engine: sa.Engine, settings: Settings) -> None:
    answer = spotlab("doctor")
    assert "postgres: version" in answer.out
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().split(":")[2].split("@")[0] not in answer.out


def test_what_nobody_foresaw_fails_its_own_look_and_no_other(
    examine: Callable[..., dict[str, Any]], engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-nobody-wrote")
    found = examine()
    assert states(found)["aws credentials"] == "FAIL"
    assert states(found)["postgres"] == "OK"
    assert found["code"] == 4
    # Whatever an error of a library quotes, such as a password in a URL, is not repeated.
    finding = look("anything", lambda: str(int("hidden-word")))
    assert (finding.state, "ValueError" in finding.found) == ("FAIL", True)
    assert "hidden-word" not in str(finding)


def test_databases_of_dagster_and_mlflow(
    examine: Callable[..., dict[str, Any]], settings: Settings, engine: sa.Engine, mlflow_database: str
) -> None:
    found = examine()
    assert states(found)["mlflow database"] == "OK"
    assert "spotlab up" in found["dagster database"]["remedy"], "it is not there yet"
    ensure_databases(settings)
    assert "its tables come at the first use" in examine()["dagster database"]["found"]
    engine_of_mlflow = sa.create_engine(mlflow_database)
    with engine_of_mlflow.begin() as connection:
        connection.execute(sa.text("drop table alembic_version"))
    engine_of_mlflow.dispose()
    assert states(examine())["mlflow database"] == "WARN"


@pytest.mark.parametrize(
    ("account_id", "state", "said"),
    [("12345", "FAIL", "12 digits"), ("999999999999", "FAIL", "not registered"), (ACCOUNT_ID, "OK", ACCOUNT_ID)],
)
def test_the_account_that_reads_the_catalogue(
    examine: Callable[..., dict[str, Any]], engine: sa.Engine, owner: sa.Engine, account_id: str, state: str, said: str
) -> None:
    fill(owner)
    finding = examine(catalogue_account_id=account_id)["catalogue account"]
    assert (finding["state"], said in finding["found"]) == (state, True), finding
    if state == "FAIL":
        assert "SPOTLAB_CATALOGUE_ACCOUNT_ID" in finding["remedy"]


def test_products_and_the_region_of_prices(examine: Callable[..., dict[str, Any]], engine: sa.Engine) -> None:
    found = examine(products=("Linux/UNIX", "Lindows"), pricing_region="mars-north-1")
    assert "Lindows" in found["products"]["found"]
    assert "SPOTLAB_PRODUCTS" in found["products"]["remedy"]
    assert "SPOTLAB_PRICING_REGION" in found["pricing region"]["remedy"]
    assert states(found)["products"] == states(found)["pricing region"] == "FAIL"
    assert states(examine(pricing_region="eu-west-1"))["pricing region"] == "WARN"


def test_times_to_live_that_end_before_the_second_scrape(
    examine: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    assert states(examine(spot_risk_ttl_s=2400, instance_metadata_ttl_s=43200))["times to live"] == "OK"
    for changes in ({"spot_risk_ttl_s": 2399}, {"instance_metadata_ttl_s": 43199}):
        (name,) = changes
        finding = examine(**changes)["times to live"]
        assert finding["state"] == "WARN"
        assert f"SPOTLAB_{name.upper()}" in finding["remedy"]
