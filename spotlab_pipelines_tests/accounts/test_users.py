"""People: passwords that can be checked and not guessed, roles that leave an admin, and all of it on record."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from sqlalchemy.exc import ProgrammingError

from spotlab_pipelines.accounts import passwords
from spotlab_pipelines.accounts.acting import actor_of
from spotlab_pipelines.accounts.users import (
    add_user,
    disable_user,
    get_user,
    list_users,
    set_password,
    set_role,
    verify_password,
)
from spotlab_pipelines.database.engine import connect
from spotlab_pipelines.errors import InvalidInput, LoginRefused, NotFound
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import ANA, audit_rows

PASSWORD = "correct horse battery staple"
ROOT, OTHER_ROOT = "root@example.com", "root2@example.com"


@pytest.fixture
def engine(owner: sa.Engine) -> sa.Engine:
    """The engine of whoever administers users: the owner's."""
    return owner


def hash_of(engine: sa.Engine, email: str) -> str | None:
    with engine.connect() as connection:
        return connection.scalar(sa.text("select password_hash from users where email = :e"), {"e": email})


@pytest.fixture
def ana(engine: sa.Engine) -> sa.Engine:
    add_user(engine, ANA)
    set_password(engine, ANA, PASSWORD)
    return engine


def test_a_password_lets_its_owner_in_and_nobody_else(ana: sa.Engine) -> None:
    assert verify_password(ana, ANA.upper(), PASSWORD) == get_user(ana, ANA)
    for wrong in ("", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper(), "x" * 5000, "\udcff" * 12):
        with pytest.raises(LoginRefused):
            verify_password(ana, ANA, wrong)
    set_password(ana, ANA, "another good password")
    with pytest.raises(LoginRefused):
        verify_password(ana, ANA, PASSWORD)


def test_the_database_holds_an_argon2id_hash_with_the_parameters_of_rfc_9106(ana: sa.Engine) -> None:
    hashed = hash_of(ana, ANA)
    assert hashed is not None
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    set_password(ana, ANA, PASSWORD)
    assert hash_of(ana, ANA) != hashed, "each has a salt of its own"


def test_the_same_text_typed_on_another_keyboard_is_the_same_password(engine: sa.Engine) -> None:
    add_user(engine, ANA)
    set_password(engine, ANA, "caf\u00e9 caf\u00e9 caf\u00e9")
    assert verify_password(engine, ANA, "cafe\u0301 cafe\u0301 cafe\u0301").email == ANA


def refusal(engine: sa.Engine, email: str, password: str) -> tuple[str, float]:
    began = time.perf_counter()
    with pytest.raises(LoginRefused) as refused:
        verify_password(engine, email, password)
    return str(refused.value), time.perf_counter() - began


def test_unknown_wrong_without_and_disabled_are_refused_alike(ana: sa.Engine) -> None:
    for email in ("without@example.com", "disabled@example.com"):
        add_user(ana, email)
    set_password(ana, "disabled@example.com", PASSWORD)
    disable_user(ana, "disabled@example.com")
    cases = ((ANA, "wrong password"), ("nobody@example.com", PASSWORD), ("without@example.com", PASSWORD),
             ("disabled@example.com", PASSWORD))  # fmt: skip
    for case in cases:  # the first of all pays for what is loaded
        refusal(ana, *case)
    seen = {case: [refusal(ana, *case) for _ in range(3)] for case in cases}
    assert len({message for tries in seen.values() for message, _ in tries}) == 1
    (message,) = {message for tries in seen.values() for message, _ in tries}
    assert not any(email in message or password in message for email, password in cases)
    fastest = {case: min(seconds for _, seconds in tries) for case, tries in seen.items()}
    # A check without argon2 would answer a hundred times as fast.
    assert max(fastest.values()) < 3 * min(fastest.values()), fastest


@pytest.mark.parametrize(
    ("password", "expected"),
    [("x" * 11, "12 to 256 characters, got 11"), ("x" * 257, "got 257"), ("\udcff" * 12, "Unicode")],
)
def test_bad_passwords_are_refused_and_never_quoted(ana: sa.Engine, password: str, expected: str) -> None:
    before = hash_of(ana, ANA)
    with pytest.raises(InvalidInput, match=expected) as refused:
        set_password(ana, ANA, password)
    assert password not in str(refused.value)
    assert hash_of(ana, ANA) == before
    for length in (12, 256):
        set_password(ana, ANA, "y" * length)


def test_a_hash_with_older_parameters_is_renewed_when_its_owner_comes(ana: sa.Engine) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    with ana.begin() as connection:
        connection.execute(sa.text("update users set password_hash = :h"), {"h": old})
    with pytest.raises(LoginRefused):
        verify_password(ana, ANA, "wrong password")
    assert hash_of(ana, ANA) == old
    verify_password(ana, ANA, PASSWORD)
    renewed = hash_of(ana, ANA)
    assert renewed is not None
    assert "m=65536,t=3,p=4" in renewed
    assert verify_password(ana, ANA, PASSWORD).email == ANA
    assert hash_of(ana, ANA) == renewed


def test_at_most_two_hashes_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    plain = PasswordHasher.hash

    def counted(self: PasswordHasher, password: bytes) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return plain(self, password)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(PasswordHasher, "hash", counted)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(passwords.hash_password, [PASSWORD] * 8))
    assert most == passwords.HASHES_AT_ONCE == 2


def test_the_api_cannot_check_or_set_passwords(ana: sa.Engine, settings: Settings) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        verify_password(connect(settings, role="api"), ANA, PASSWORD)


@pytest.mark.parametrize("leave", [disable_user, lambda engine, email: set_role(engine, email, "lab")])
def test_the_last_active_admin_stays(engine: sa.Engine, leave) -> None:
    add_user(engine, ROOT, "admin")
    add_user(engine, "gone@example.com", "admin")
    disable_user(engine, "gone@example.com")
    with pytest.raises(InvalidInput, match="last active admin"):
        leave(engine, ROOT)
    assert (get_user(engine, ROOT).role, get_user(engine, ROOT).active) == ("admin", True)
    add_user(engine, OTHER_ROOT, "admin")
    leave(engine, ROOT)
    with pytest.raises(InvalidInput, match="last active admin"):
        leave(engine, OTHER_ROOT)


def test_two_admins_cannot_remove_each_other_at_the_same_moment(engine: sa.Engine) -> None:
    for attempt in range(5):
        pair = (f"a{attempt}@example.com", f"b{attempt}@example.com")
        for email in pair:
            add_user(engine, email, "admin")
        for person in list_users(engine):
            if person.email not in pair and person.active:
                disable_user(engine, person.email)
        together = threading.Barrier(2)

        def leave(email: str, together: threading.Barrier = together) -> None:
            together.wait()
            disable_user(engine, email)

        with ThreadPoolExecutor(2) as threads:
            errors = [one.exception() for one in [threads.submit(leave, email) for email in pair]]
        assert sorted(type(error).__name__ for error in errors) == ["InvalidInput", "NoneType"]


def test_roles_are_the_known_ones_and_users_exist(engine: sa.Engine) -> None:
    person = add_user(engine, ANA)
    assert set_role(engine, ANA, "lab").role == "lab"
    with pytest.raises(InvalidInput, match="king"):
        set_role(engine, ANA, "king")
    for change in (lambda: set_role(engine, "x@example.com", "lab"), lambda: disable_user(engine, "x@example.com"),
                   lambda: set_password(engine, "x@example.com", PASSWORD)):  # fmt: skip
        with pytest.raises(NotFound, match=r"x@example\.com"):
            change()
    assert [each.id for each in list_users(engine)] == [person.id]


@pytest.mark.parametrize("unprintable", ["\x1b[2J", "\0", "\x9b2J", "\u202e", "\udcff"])
def test_an_address_holds_nothing_that_a_terminal_obeys_or_postgres_refuses(
    engine: sa.Engine, unprintable: str
) -> None:
    email = f"an{unprintable}a@example.com"
    with pytest.raises(InvalidInput, match="e-mail address") as refused:
        add_user(engine, email)
    assert unprintable not in str(refused.value)
    with pytest.raises(NotFound):
        get_user(engine, email)
    assert list_users(engine) == []


def test_every_change_of_a_user_is_on_record_without_passwords(engine: sa.Engine) -> None:
    root = actor_of(add_user(engine, "root@example.com", "admin").id)
    person = add_user(engine, ANA, actor=root)
    add_user(engine, ANA)
    set_role(engine, ANA, "lab", actor=root)
    set_password(engine, ANA, PASSWORD, actor=root)
    disable_user(engine, ANA, actor=root)
    rows = audit_rows(engine)[1:]
    assert [row["action"] for row in rows] == ["add_user", "set_role", "set_password", "disable_user"]
    assert {(row["actor"], row["subject"], row["outcome"]) for row in rows} == {(root, str(person.id), "done")}
    assert rows[1]["details"] == {"before": "user", "after": "lab"}
    told = json.dumps(rows, default=str)
    assert PASSWORD not in told
    assert "argon2" not in told
