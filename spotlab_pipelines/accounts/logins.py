"""Logins: that a user is who they say they are, proven for a while by a token that only their client holds.

The same token opens a user's transactions behind row-level security (`database.engine.acting_as`): the database keeps
its hash and finds the user by it, so that knowing a user's id wins nothing. Checking passwords is users.py's.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from pydantic import SecretStr

from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Login, User
from spotlab_pipelines.errors import LoginRefused

TOKEN_BYTES = 32
VALID_FOR = timedelta(hours=12)


def open_login(engine: sa.Engine, user_id: UUID, *, valid_for: timedelta = VALID_FOR) -> SecretStr:
    """Open a login of a user whose password was verified, and return its token, which is kept nowhere.

    Args:
        engine: one of the role `login`, or the owner.

    Raises:
        LoginRefused: there is no such user, or they are disabled.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    expires = sa.func.now() + valid_for
    active = sa.select(User.id, sa.literal(_hashed(token)), expires).where(User.id == user_id, User.active)
    opened = sa.insert(Login).from_select(["user_id", "token_sha256", "expires_at"], active).returning(Login.id)
    with database_errors(), engine.begin() as connection:
        connection.execute(sa.delete(Login).where(Login.user_id == user_id, Login.expires_at <= sa.func.now()))
        if connection.scalar(opened) is None:
            raise LoginRefused(
                f"Expected an active user, {user_id} is none.", remedy="`spotlab users list` shows who is."
            )
    return SecretStr(token)


def close_login(engine: sa.Engine, token: SecretStr) -> None:
    """End a login; one that has ended already is no error.

    Args:
        engine: one of the role `login`, or the owner.
    """
    with database_errors(), engine.begin() as connection:
        connection.execute(sa.delete(Login).where(Login.token_sha256 == _hashed(token.get_secret_value())))


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
