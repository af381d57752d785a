"""The queries that people and sensors wait for find their rows by an index, over a log of 100,000 rows.

And the other way round: each index in the database is there for one of them.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module

import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.indexes import REASONS, Reason
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.hot_queries import QUERIES
from spotlab_pipelines_tests.experiments.large_log import Laboratory, fill
from spotlab_pipelines_tests.experiments.plans import LARGE, Plan, plans

INDEXES = """
select i.indexrelid::regclass::text as name, exists (
    select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u')) as of_a_constraint
from pg_index i join pg_class t on t.oid = i.indrelid
where t.relnamespace = 'public'::regnamespace and t.relname <> 'alembic_version' and not t.relispartition
"""


@pytest.fixture
def large(engine: sa.Engine, settings: Settings) -> Laboratory:
    """A hundred accounts with some fifty logged windows each."""
    return fill(settings, rows=100_000)


def indexes(engine: sa.Engine) -> dict[str, bool]:
    """Every index of the domain's tables, and whether a primary key or a unique constraint is its reason."""
    with engine.connect() as connection:
        return dict(connection.execute(sa.text(INDEXES)).tuples().all())


def missing_reasons(engine: sa.Engine, reasons: dict[str, Reason]) -> set[str]:
    """The indexes that neither a constraint nor a reason of ours explains."""
    return {name for name, of_a_constraint in indexes(engine).items() if not of_a_constraint} - set(reasons)


def test_each_query_finds_its_rows_by_its_index_and_each_index_has_its_query(large: Laboratory) -> None:
    used: dict[str, set[str]] = {}
    for hot in QUERIES:
        found: list[Plan] = plans(large, hot, execute=False)
        for plan in found:
            assert not plan.read_through, f"{hot.name} reads {plan.read_through} through:\n{plan.text}"
        by = frozenset().union(*(plan.indexes for plan in found))
        told = "\n\n".join(plan.text for plan in found)
        assert by >= set(hot.indexes), f"{hot.name} does without {set(hot.indexes) - by}:\n{told}"
        used.setdefault(hot.query or "", set()).update(hot.indexes)
    for name, reason in REASONS.items():
        assert reason.rule or name in used.get(reason.query, ()), f"{name}: no hot query of {reason.query} uses it"


def test_a_table_that_is_read_through_is_seen(owner: sa.Engine, settings: Settings) -> None:
    (hot,) = [each for each in QUERIES if each.name == "the decisions of one window"]
    small = fill(settings, rows=10_000)
    with owner.begin() as connection:
        connection.exec_driver_sql("alter table experiment_logs drop constraint uq_experiment_logs_grain")
        connection.exec_driver_sql("alter table experiment_logs drop constraint pk_experiment_logs")
    assert [plan.read_through for plan in plans(small, hot, execute=False)] == [(LARGE[0],)]
    assert plans(small, hot, execute=True)[0].ms > 0


def test_every_index_has_a_reason_that_names_a_function_of_the_code(owner: sa.Engine) -> None:
    there = indexes(owner)
    assert missing_reasons(owner, REASONS) == set()
    assert set(REASONS) <= set(there), "a reason for an index that is not there"
    assert len(REASONS) >= 15
    for name, reason in REASONS.items():
        module, _, function = reason.query.partition(":")
        found = reduce(getattr, function.split("."), import_module(f"spotlab_pipelines.{module}"))
        assert callable(found), name
        assert reason.why, name


def test_an_index_without_a_reason_is_seen(owner: sa.Engine) -> None:
    assert missing_reasons(owner, {k: v for k, v in REASONS.items() if k != "ix_audit_log_at"}) == {"ix_audit_log_at"}
    with owner.begin() as connection:
        connection.exec_driver_sql("create index ix_nobodys on users (created_at)")
    assert missing_reasons(owner, REASONS) == {"ix_nobodys"}
