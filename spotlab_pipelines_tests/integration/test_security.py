"""What docs/security.md promises beyond one room, and where it says that a promise ends; every test it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.settings import PROJECT_ROOT, Settings
from spotlab_pipelines_tests.accounts.registering import register, register_in_aws
from spotlab_pipelines_tests.database.own_logins import login_of_its_own
from spotlab_pipelines_tests.local_aws.server import LocalAws

TESTS = PROJECT_ROOT / "spotlab_pipelines_tests"
ACCOUNT = "111122223333"


def named_tests() -> list[str]:
    return re.findall(r"`([\w/]+\.py::\w+)`", (PROJECT_ROOT / "docs" / "security.md").read_text())


def test_every_test_that_the_page_names_exists_and_every_threat_names_one() -> None:
    named = named_tests()
    assert len(set(named)) > 40
    for name in named:
        path, _, function = name.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name
    rows = [line for line in (PROJECT_ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")]
    threats = [row for row in rows if not row.startswith("| threat ")]
    assert [row for row in threats if "::test_" not in row.split(" | ")[-1]] == []


def test_a_role_that_may_do_everything_changes_nothing_through_a_session_that_reads(
    engine: sa.Engine, local_aws: LocalAws
) -> None:
    register_in_aws(engine, local_aws, ACCOUNT)
    client = AccountSessions(engine).get_ec2_client(ACCOUNT, "us-east-1")
    reservations = client.describe_instances()["Reservations"]
    running = [instance.get("InstanceId", "") for held in reservations for instance in held.get("Instances", [])]
    assert running
    for change in (
        lambda: client.terminate_instances(InstanceIds=running),
        lambda: client.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, InstanceType="m5.large"),
        lambda: client.create_tags(Resources=running, Tags=[{"Key": "a", "Value": "b"}]),
    ):
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            change()


@pytest.fixture
def api_login(settings: Settings, engine: sa.Engine) -> Iterator[sa.Engine]:
    """The API with a login of its own, as the page advises, on a database with one account in it."""
    register(engine, ACCOUNT)
    with login_of_its_own(settings, "spotlab_api") as own:
        yield connect(own, role="api")


def won(engine: sa.Engine, leave: str, statement: str) -> int:
    """How many rows a statement gets after another one has tried to leave the role; 0 where it is not allowed."""
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select current_user")) == "spotlab_api"
        try:
            connection.execute(sa.text(leave))
            return len(connection.execute(sa.text(statement)).all())
        except ProgrammingError as error:
            if "permission denied" not in str(error):
                raise
            return 0


LEAVE = (
    "reset role",
    "set role none",
    "set role spotlab_pipeline",
    "set role spotlab",
    "set session authorization default",
)
STOLEN = ("select external_id from accounts", "select password_hash from users")


@pytest.mark.parametrize("leave", LEAVE)
def test_a_login_of_the_apis_own_wins_nothing_by_leaving_its_role(api_login: sa.Engine, leave: str) -> None:
    assert [won(api_login, leave, statement) for statement in STOLEN] == [0, 0]


def test_where_the_login_is_the_owner_leaving_the_role_wins_everything(settings: Settings, engine: sa.Engine) -> None:
    register(engine, ACCOUNT)
    api = connect(settings, role="api")
    assert [won(api, "set role none", statement) for statement in STOLEN] == [1, 1]
    assert [won(api, "reset role", statement) for statement in STOLEN] == [0, 0], "the role is the session's default"
