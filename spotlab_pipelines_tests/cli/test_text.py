"""Arguments and names that are no text, or would not show: refused in a line, and nothing is left behind."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.cli.test_cli import ADD, one_line

NO_ID = "1234"


def changed(option: str, value: str) -> list[str]:
    arguments = list(ADD)
    arguments[arguments.index(option) + 1] = value
    return arguments


def counts(engine: sa.Engine) -> tuple[int, int]:
    with engine.connect() as connection:
        return tuple(connection.execute(sa.text("select (select count(*) from users), count(*) from accounts")).one())


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "\udcff"),
        ("accounts", "validate", "\udcff"),
        ("experiments", "list", "--account", "1\0"),
        ("users", "add", "\udcff@example.com"),
        ("users", "set-role", "a\0@example.com", "lab"),
    ],
)
def test_bytes_that_are_no_text_are_refused_before_anything_is_read(spotlab: Spotlab, command: tuple[str, ...]) -> None:
    answer = spotlab(*command)
    assert (answer.code, one_line(answer.err)) == (1, True), answer.err
    assert "UTF-8" in answer.err


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", NO_ID),
        ("accounts", "onboarding", NO_ID),
        ("accounts", "validate", NO_ID),
        ("accounts", "set-environment", NO_ID, "LAB"),
        ("experiments", "list", "--account", NO_ID),
    ],
)
def test_an_account_id_is_checked_before_it_is_looked_up(spotlab: Spotlab, command: tuple[str, ...]) -> None:
    answer = spotlab(*command)
    assert (answer.code, one_line(answer.err)) == (1, True), answer.err
    assert "12 digits" in answer.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--name", "a\udcff"),
        ("--name", "a\0"),
        ("--name", "a\x1b[2J"),
        ("--name", "a\u202eb"),
        ("--name", "a\u200bb"),
        ("--owner", "\udcff@example.com"),
    ],
)
def test_a_name_that_does_not_show_leaves_nothing(spotlab: Spotlab, engine: sa.Engine, option: str, value: str) -> None:
    answer = spotlab(*changed(option, value))
    assert (answer.code, one_line(answer.err)) == (1, True), answer.err
    assert counts(engine) == (0, 0)


@pytest.mark.parametrize("cost", ["1e300", "inf", "nan", "-1", "1000001"])
def test_a_cost_beyond_reason_leaves_nothing(spotlab: Spotlab, engine: sa.Engine, cost: str) -> None:
    answer = spotlab(*ADD, "--interruption-cost-usd", cost)
    assert (answer.code, one_line(answer.err)) == (1, True), answer.err
    assert "1,000,000 USD" in answer.err
    assert counts(engine) == (0, 0)


def test_a_second_registration_leaves_no_new_owner_behind(spotlab: Spotlab, engine: sa.Engine) -> None:
    assert spotlab(*ADD).code == 0
    answer = spotlab(*changed("--owner", "zoe@example.org"))
    assert (answer.code, one_line(answer.err)) == (1, True), answer.err
    assert counts(engine) == (1, 1)


def test_markup_in_a_name_leaves_the_listing_to_everybody(spotlab: Spotlab, engine: sa.Engine) -> None:
    assert spotlab(*changed("--name", "prod [/eu] [red]")).code == 0
    answer = spotlab("accounts", "list")
    assert answer.code == 0, answer.err
    assert "prod [/eu] [red]" in answer.out
