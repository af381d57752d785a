"""How Postgres answers a hot query: by which indexes, how long it takes, and what it reads through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from spotlab_pipelines_tests.experiments.hot_queries import HotQuery
from spotlab_pipelines_tests.experiments.large_log import Laboratory

LARGE = ("experiment_logs", "evaluations", "audit_log", "instances", "tracking_runs")


@dataclass(frozen=True)
class Plan:
    """How Postgres answered one statement.

    Attributes:
        indexes: names of the indexes it used; a partition's go by the name of the whole table's.
        read_through: tables of LARGE that it read from one end to the other.
        ms: planning and execution, 0 if it was not executed.
    """

    text: str
    indexes: frozenset[str]
    read_through: tuple[str, ...]
    ms: float


def plans(laboratory: Laboratory, hot: HotQuery, *, execute: bool) -> list[Plan]:
    """The plans, as the same role, of every statement on our tables that a query sends; nothing is changed by it."""
    engine: sa.Engine = getattr(laboratory, hot.role)
    sent: list[tuple[str, Any]] = []

    def keep(*arguments: Any) -> None:
        sent.append((arguments[2], arguments[3]))

    event.listen(engine, "before_cursor_execute", keep)
    try:
        hot.work(laboratory)
    finally:
        event.remove(engine, "before_cursor_execute", keep)
    how = "explain (analyze, summary)" if execute else "explain"
    parents = _index_parents(laboratory.owner)
    found = []
    with engine.connect() as connection, connection.begin() as transaction:
        login = laboratory.idle_login if hot.role == "owner" else laboratory.login
        connection.execute(sa.select(sa.func.set_config("app.login", login.get_secret_value(), True)))
        for statement, values in sent:
            if re.search(r"\b(from|update|into)\s+(?!pg_)\w", statement, re.IGNORECASE):
                lines = connection.exec_driver_sql(f"{how} {statement}", values).scalars()
                found.append(_read(list(map(str, lines)), parents))
        transaction.rollback()
    assert found, f"{hot.name} asks nothing"
    return found


def _read(lines: list[str], parents: dict[str, str]) -> Plan:
    used = re.findall(r"Index (?:Only )?Scan(?: Backward)? (?:using|on) (\w+)", "\n".join(lines))
    # A partition without a row costs nothing and needs no index; a branch that was not taken has read nothing.
    read = [line for line in lines if "Seq Scan on" in line and "cost=0.00..0.00" not in line]
    through = tuple(table for line in read if "never executed" not in line for table in LARGE if table in line)
    ms = sum(float(each) for each in re.findall(r"(?:Planning|Execution) Time: ([\d.]+) ms", "\n".join(lines)))
    return Plan("\n".join(lines), frozenset(parents.get(str(name), str(name)) for name in used), through, ms)


def _index_parents(owner: sa.Engine) -> dict[str, str]:
    query = """
    select i.inhrelid::regclass::text, i.inhparent::regclass::text
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relkind = 'i'
    """
    with owner.connect() as connection:
        return dict(connection.execute(sa.text(query)).tuples().all())
