"""Postgres' advisory locks by name: one at a time, on any machine, until the transaction ends."""

from __future__ import annotations

import sqlalchemy as sa

LOCK = sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")


def lock(connection: sa.Connection, name: str) -> None:
    """Wait for the lock `spotlab/<name>`, and hold it until the transaction ends."""
    connection.execute(LOCK, {"name": f"spotlab/{name}"})
