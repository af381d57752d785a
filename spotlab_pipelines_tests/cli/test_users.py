"""`spotlab users`: people come, change and go by hand, and no password is ever an argument or in an answer."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.users import verify_password
from spotlab_pipelines.errors import LoginRefused
from spotlab_pipelines_tests.cli.conftest import Spotlab

PROGRAM = str(Path(sys.executable).parent / "spotlab")
BEA, ROOT, PASSWORD = "bea@example.org", "root@example.org", "correct horse battery staple"


def people(spotlab: Spotlab) -> dict[str, tuple[str, bool]]:
    return {person["email"]: (person["role"], person["active"]) for person in spotlab("users", "list", "--json").json}


def test_users_are_added_changed_and_disabled(spotlab: Spotlab, engine: sa.Engine) -> None:
    assert "spotlab users add" in spotlab("users", "list").out
    assert spotlab("users", "add", ROOT, "--role", "admin").code == 0
    assert "role user" in spotlab("users", "add", BEA).out
    assert "role user" in spotlab("users", "add", BEA, "--role", "admin").out, "she stays as she is"
    assert spotlab("users", "set-role", BEA, "lab").code == 0
    assert people(spotlab) == {BEA: ("lab", True), ROOT: ("admin", True)}
    assert spotlab("users", "disable", BEA).code == 0
    assert people(spotlab)[BEA] == ("lab", False)
    for refused in (("disable", ROOT), ("set-role", ROOT, "user")):
        answer = spotlab("users", *refused)
        assert (answer.code, "last active admin" in answer.err) == (1, True)
    for wrong in (("add", "nobody"), ("add", BEA, "--role", "king"), ("disable", "x@example.org")):
        assert spotlab("users", *wrong).code == 1


def test_a_password_comes_from_stdin_and_nowhere_else(
    spotlab: Spotlab, owner: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spotlab("users", "add", BEA)
    assert spotlab("users", "set-password", BEA, PASSWORD).code == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\nsecond line\n"))
    answer = spotlab("users", "set-password", BEA)
    assert answer.code == 0, answer.err
    assert PASSWORD not in answer.out + answer.err
    assert verify_password(owner, BEA, PASSWORD).email == BEA
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    answer = spotlab("users", "set-password", BEA)
    assert (answer.code, "12 to 256 characters" in answer.err) == (1, True)
    with pytest.raises(LoginRefused):
        verify_password(owner, BEA, "short")


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_echoed(
    spotlab: Spotlab, owner: sa.Engine, environment: dict[str, str]
) -> None:
    spotlab("users", "add", BEA)
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [PROGRAM, "users", "set-password", BEA],
        env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for prompt in (b"Password: ", b"confirmation: "):  # the space comes when the echo is off
        while prompt not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, PASSWORD.encode() + b"\n")
    assert program.wait(60) == 0
    shown += os.read(ours, 1000)
    os.close(ours)
    assert PASSWORD.encode() not in shown
    assert b"has a new password" in shown
    assert verify_password(owner, BEA, PASSWORD).email == BEA
