"""The people who own accounts or work in the laboratory: who they are, what they may be, whether a password is theirs.

Every change is on record in the audit log. An actor who is a user needs the right to it (rights.py); how passwords are
hashed is passwords.py's, and what follows a verified password is logins.py's. What changes a user needs an engine of
the owner: neither the pipeline nor the API may.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.accounts.acting import acting, actor_of
from spotlab_pipelines.accounts.passwords import hash_password, is_outdated, matches
from spotlab_pipelines.accounts.rights import ActedUpon
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import ROLES, Login, User
from spotlab_pipelines.errors import InvalidInput, LoginRefused, NotFound

EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|[^\s@]+@localhost", re.ASCII)
UNPRINTABLE = "\ufffd"


@dataclass(frozen=True)
class Person:
    """A user as the rooms know one."""

    id: UUID
    email: str
    role: str
    active: bool


def add_user(engine: sa.Engine, email: str, role: str = "user", *, actor: str | None = None) -> Person:
    """Return the user with this e-mail address, made with `role` if there is none; an existing one keeps their role.

    Args:
        actor: who does it, for the audit log: `user:<id>`; by default the person at the command line.

    Raises:
        InvalidInput: the address or the role is not valid.
        NotAllowed: the actor is a user who is no admin.
    """
    given, email = email, _normal(email)
    if not EMAIL.fullmatch(email) or UNPRINTABLE in email or len(email) > 254:
        raise InvalidInput(f"Expected an e-mail address like ana@example.com, got {given!r}.", remedy="Correct it.")
    _check_role(role)
    statement = insert(User).values(email=email, role=role).on_conflict_do_nothing(index_elements=["email"])
    with acting(engine, "add_user", actor=actor, email=email, role=role) as connection:
        added = connection.scalar(statement.returning(User.id))
        if added is not None:
            record(connection, "add_user", actor=actor, subject=str(added), email=email, role=role)
    return get_user(engine, email)


def get_user(engine: sa.Engine, email: str) -> Person:
    """Return the user with this e-mail address.

    Raises:
        NotFound: there is none.
    """
    with database_errors(), engine.connect() as connection:
        return _find(connection, email)


def list_users(engine: sa.Engine) -> list[Person]:
    """All users by e-mail address, the disabled ones too."""
    query = sa.select(User.id, User.email, User.role, User.active).order_by(User.email)
    with database_errors(), engine.connect() as connection:
        return [Person(*row) for row in connection.execute(query)]


def set_role(engine: sa.Engine, email: str, role: str, *, actor: str | None = None) -> Person:
    """Give a user another role.

    Raises:
        InvalidInput: no such role, or the last active admin would be one no longer.
        NotAllowed: the actor is a user who is no admin.
        NotFound: there is no such user.
    """
    _check_role(role)
    with acting(engine, "set_role", actor=actor, email=_normal(email), to=role) as connection:
        before = _find(connection, email)
        if role != "admin":
            _keep_an_admin(connection, before)
        connection.execute(sa.update(User).where(User.id == before.id).values(role=role))
        record(connection, "set_role", actor=actor, subject=str(before.id), before=before.role, after=role)
        return _find(connection, email)


def disable_user(engine: sa.Engine, email: str, *, actor: str | None = None) -> Person:
    """Lock a user out: no login, and row-level security shows them nothing. Their accounts go on being evaluated.

    Raises:
        InvalidInput: it is the last active admin.
        NotAllowed: the actor is a user who is no admin.
        NotFound: there is no such user.
    """
    with acting(engine, "disable_user", actor=actor, email=_normal(email)) as connection:
        before = _find(connection, email)
        _keep_an_admin(connection, before)
        connection.execute(sa.update(User).where(User.id == before.id).values(active=False))
        record(connection, "disable_user", actor=actor, subject=str(before.id))
        return _find(connection, email)


def set_password(engine: sa.Engine, email: str, password: str, *, actor: str | None = None) -> None:
    """Give a user a password in place of the old one, if there was any; it ends their logins.

    Raises:
        InvalidInput: the password is shorter than 12 or longer than 256 characters.
        NotAllowed: the actor is another user, and no admin.
        NotFound: there is no such user.
    """
    person = get_user(engine, email)
    # Hashed before the transaction: it takes long, and may have to wait for its turn.
    hashed = hash_password(password)
    upon = ActedUpon(own=actor == actor_of(person.id))
    with acting(engine, "set_password", actor=actor, subject=str(person.id), upon=upon) as connection:
        connection.execute(sa.update(User).where(User.id == person.id).values(password_hash=hashed))
        connection.execute(sa.delete(Login).where(Login.user_id == person.id))
        record(connection, "set_password", actor=actor, subject=str(person.id))


def verify_password(engine: sa.Engine, email: str, password: str) -> Person:
    """The active user to whom this address and password belong.

    An unknown address, a wrong password and a disabled user are answered alike, and in a time alike: whoever guesses
    learns nothing. A hash made with older parameters is replaced by one with today's.

    Args:
        engine: one of the role `login`, or the owner; nobody else may read hashes.

    Raises:
        LoginRefused: they do not belong together, or the user is disabled.
    """
    query = sa.select(User.id, User.email, User.role, User.active, User.password_hash)
    with database_errors(), engine.connect() as connection:
        row = connection.execute(query.where(User.email == _normal(email))).one_or_none()
    known = None if row is None else row.password_hash
    if not matches(password, known) or row is None or known is None or not row.active:
        raise LoginRefused(
            "Expected the e-mail address and the password of an active user; these two are not.",
            remedy="Check both, or ask an admin for a new password.",
        )
    if is_outdated(known):
        renewed = sa.update(User).where(User.id == row.id, User.password_hash == known)
        with database_errors(), engine.begin() as connection:
            connection.execute(renewed.values(password_hash=hash_password(password)))
    return Person(row.id, row.email, row.role, row.active)


def _normal(email: str) -> str:
    """The address as it is kept. What a terminal would obey or Postgres cannot take makes it nobody's address."""
    return "".join(letter if letter.isprintable() else UNPRINTABLE for letter in email.strip().lower())


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InvalidInput(f"Expected one of the roles {', '.join(ROLES)}, got {role!r}.", remedy="Choose one of them.")


def _find(connection: sa.Connection, email: str) -> Person:
    query = sa.select(User.id, User.email, User.role, User.active).where(User.email == _normal(email))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no user {_normal(email)!r}.", remedy="Add the user first: `spotlab users add`.")
    return Person(*row)


def _keep_an_admin(connection: sa.Connection, leaving: Person) -> None:
    """Refuse to lose the last active admin. The lock keeps two admins from removing each other at the same moment."""
    admins = sa.select(User.id).where(User.role == "admin", User.active).order_by(User.id).with_for_update()
    if list(connection.scalars(admins)) == [leaving.id]:
        raise InvalidInput(
            f"{leaving.email} is the last active admin: without one, nobody could approve or change anything.",
            remedy="Make another user admin first: `spotlab users set-role`.",
        )
