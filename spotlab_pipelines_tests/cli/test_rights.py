"""Acting as somebody by the command line: the operator may all, a user what their role allows; all of it on record."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.inference.models import logistic, register, register_both

ONE, PEOPLE = "444455556666", {"bea@example.org": "user", "lee@example.org": "lab", "root@example.org": "admin"}
ADD: tuple[str, ...] = (
    "accounts", "add", "--no-validate", "--account-id", ONE, "--name", "Web shop in production", "--owner",
    "bea@example.org", "--role-arn", f"arn:aws:iam::{ONE}:role/SpotLab", "--region", "us-east-1",
)  # fmt: skip


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, spotlab: Spotlab, mlflow_database: str) -> ModelRegistry:
    """Three people, a champion, a challenger and a candidate."""
    for email, role in PEOPLE.items():
        spotlab("users", "add", email, "--role", role)
    registry = ModelRegistry(engine, settings)
    register_both(registry)
    register(registry, "logistic", logistic(2))
    return registry


def roles(spotlab: Spotlab) -> dict[str, tuple[str, str]]:
    return {row["version"]: (row["status"], row["role"]) for row in spotlab("models", "list", "--json").json}


def test_a_version_goes_its_way_by_hand(spotlab: Spotlab, registry: ModelRegistry, engine: sa.Engine) -> None:
    known = len(audit_rows(engine))
    assert spotlab("models", "approve", "logistic/2").out == "logistic/2 is approved.\n"
    assert roles(spotlab)["logistic/2"] == ("approved", "none")
    assert "as a challenger" in spotlab("models", "approve", "logistic/2", "--challenger").out
    assert roles(spotlab)["logistic/2"] == ("approved", "challenger")
    refused = spotlab("models", "promote", "logistic/2", "--as", "root@example.org")
    assert (refused.code, "none was made yet" in refused.err) == (1, True)
    overruled = spotlab("models", "promote", "logistic/2", "--as", "root@example.org", "--override", "a test")
    assert overruled.out == "logistic/2 is the champion.\n"
    assert spotlab("models", "retire", "logistic/1").out == "logistic/1 is retired.\n"
    assert roles(spotlab) == {
        "logistic/2": ("approved", "champion"),
        "advisor-rate/1": ("approved", "challenger"),
        "logistic/1": ("retired", "none"),
    }
    kept = [(row["action"], row["subject"], row["actor"].split(":")[0]) for row in audit_rows(engine)[known:]]
    assert kept == [
        ("approve_model", "logistic/2", "cli"),
        ("approve_model", "logistic/2", "cli"),
        ("promote_model", "logistic/2", "user"),
        ("promote_model", "logistic/2", "user"),
        ("retire_model", "logistic/1", "cli"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve", "logistic/9"), "got 'logistic/9'"),
        (("promote", "logistic/2"), "Expected an approved version to promote; logistic/2 is candidate."),
        (("retire", "advisor-rate/1"), "Promote another first"),
        (("promote", "advisor-rate/1"), "is not the champion yet"),
        (("promote", "logistic/1", "--as", "lee@example.org"), "Expected the role admin to promote model"),
        (("retire", "logistic/1", "--as", "bea@example.org"), "Expected the role admin to retire model"),
        (("approve", "logistic/2", "--as", "nobody@example.org"), "no user 'nobody@example.org'"),
    ],
)
def test_what_cannot_or_may_not_be_done_is_one_line_and_1(
    spotlab: Spotlab, registry: ModelRegistry, arguments: tuple[str, ...], said: str
) -> None:
    before = roles(spotlab)
    answer = spotlab("models", *arguments)
    assert (answer.code, len(answer.err.splitlines())) == (1, 1), answer.err
    assert said in answer.err
    assert roles(spotlab) == before


def test_a_user_registers_a_lab_account_of_their_own_and_no_more(spotlab: Spotlab, registry: ModelRegistry) -> None:
    bea, root = ("--as", "bea@example.org"), ("--as", "root@example.org")
    assert spotlab(*ADD, "--environment", "PROD", *bea).code == 1
    assert spotlab(*ADD, "--as", "lee@example.org").code == 1, "not for somebody else"
    assert spotlab("accounts", "list", "--json").json == []
    assert spotlab(*ADD, *bea).code == 0
    refused = spotlab("accounts", "set-environment", ONE, "PROD", *bea)
    assert (refused.code, "Expected the role admin to change environment" in refused.err) == (1, True)
    assert spotlab("accounts", "set-environment", ONE, "PROD", *root).code == 0
    assert spotlab("accounts", "set-environment", ONE, "LAB").code == 0, "the operator"


def test_the_audit_log_can_be_read(spotlab: Spotlab, registry: ModelRegistry) -> None:
    spotlab(*ADD)
    spotlab("accounts", "set-environment", ONE, "PROD", "--as", "bea@example.org")
    (refused,) = spotlab("audit", "--account", ONE, "--action", "change_environment", "--json").json
    assert (refused["outcome"], "role admin" in refused["reason"]) == ("refused", True)
    assert spotlab("audit", "--by", "bea@example.org", "--json").json == [refused]
    assert [row["action"] for row in spotlab("audit", "--limit", "2", "--json").json] == [
        "change_environment", "add_account",
    ]  # fmt: skip
    table = spotlab("audit").out
    assert "change_environment" in table
    assert "promote_model" in table
    for wrong in (("--action", "sleep"), ("--limit", "0"), ("--by", "nobody@example.org")):
        assert spotlab("audit", *wrong).code == 1


def test_the_list_of_accounts_fits_a_terminal_of_100_columns(
    spotlab: Spotlab, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spotlab(*ADD, "--region", "ap-southeast-1", "--environment", "PROD")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    for options in ((), ("--all",)):
        table = re.sub(r"\x1b\[[0-9;]*m", "", spotlab("accounts", "list", *options).out)
        assert max(map(len, table.splitlines())) <= 100, table
        for whole in (ONE, "bea@example.org", "Web shop in", "production", "PROD", "ap-southeast-1", "unknown"):
            assert whole in table, table
        assert "…" not in table
    assert ("state" in table, "active" in table) == (True, True)
