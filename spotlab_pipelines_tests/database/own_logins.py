"""Users of Postgres that are members of one of our roles and nothing else; no test lives here."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from spotlab_pipelines.database.engine import connect, disconnect
from spotlab_pipelines.settings import Settings


@contextmanager
def login_of_its_own(settings: Settings, role: str) -> Iterator[Settings]:
    """The settings of a process whose user may log in and become `role`; the user is gone at the end."""
    name, password = f"own_{secrets.token_hex(6)}", secrets.token_hex(16)
    owner = connect(settings, role="owner")
    with owner.begin() as connection:
        connection.exec_driver_sql(f"create role {name} login password '{password}' noinherit")
        connection.exec_driver_sql(f"grant {role} to {name}")
    url = owner.url.set(drivername="postgresql", username=name, password=password)
    own = Settings(**{**settings.model_dump(), "database_url": url.render_as_string(hide_password=False)})
    try:
        yield own
    finally:
        disconnect(connect(own))
        with owner.begin() as connection:
            connection.exec_driver_sql(f"drop role {name}")
