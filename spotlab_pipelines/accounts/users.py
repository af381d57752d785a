"""The people who own accounts. Passwords and sessions of the console are not here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import ROLES, User
from spotlab_pipelines.errors import InvalidInput, NotFound

EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|[^\s@]+@localhost", re.ASCII)


@dataclass(frozen=True)
class Person:
    """A user as the rooms know one."""

    id: UUID
    email: str
    role: str
    active: bool


def add_user(engine: sa.Engine, email: str, role: str = "user") -> Person:
    """Return the user with this e-mail address, made with `role` if there is none; an existing one keeps their role.

    Raises:
        InvalidInput: the address or the role is not valid.
    """
    email = email.strip().lower()
    if not EMAIL.fullmatch(email) or len(email) > 254:
        raise InvalidInput(f"Expected an e-mail address like ana@example.com, got {email!r}.", remedy="Correct it.")
    if role not in ROLES:
        raise InvalidInput(f"Expected one of the roles {', '.join(ROLES)}, got {role!r}.", remedy="Choose one of them.")
    with database_errors(), engine.begin() as connection:
        connection.execute(insert(User).values(email=email, role=role).on_conflict_do_nothing(index_elements=["email"]))
    return get_user(engine, email)


def get_user(engine: sa.Engine, email: str) -> Person:
    """Return the user with this e-mail address.

    Raises:
        NotFound: there is none.
    """
    with database_errors(), engine.connect() as connection:
        row = connection.execute(
            sa.select(User.id, User.email, User.role, User.active).where(User.email == email.strip().lower())
        ).one_or_none()
    if row is None:
        raise NotFound(f"There is no user {email!r}.", remedy="Add the user first.")
    return Person(*row)
