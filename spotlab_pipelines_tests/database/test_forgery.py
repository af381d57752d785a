"""What a user writes through the API's role is true: in their own name, of now, and no more than they may."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError

from spotlab_pipelines.accounts.steering import assign_version, set_mode, set_shadow
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import acting_as, acting_for
from spotlab_pipelines.errors import ModelUnknown, NotAllowed
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.database.conftest import OTHER_ID, PROD_ID, Logins, People
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID

REFUSED = r"row-level security|permission denied"


def columns(values: Iterable[str]) -> str:
    return f"({', '.join(values)}) values ({', '.join(':' + name for name in values)})"


def test_owners_steer_their_lab_accounts_and_admins_all(api: sa.Engine, logins: Logins) -> None:
    steer = sa.text("update instances set shadow = true returning account_id")
    for person, expected in (("ana", {ACCOUNT_ID}), ("ben", {OTHER_ID}), ("root", {ACCOUNT_ID, OTHER_ID, PROD_ID})):
        with acting_for(api, logins[person]) as connection:
            assert set(connection.scalars(steer)) == expected


def test_services_steer_behind_row_level_security(
    api: sa.Engine, owner: sa.Engine, people: People, logins: Logins
) -> None:
    ana = acting_as(api, logins["ana"])
    set_shadow(ana, ACCOUNT_ID, ["i-1"], shadow=True)
    set_mode(ana, ACCOUNT_ID, ["i-1"], "CLUSTER", actor="user:somebody else")
    assign_version(ana, ACCOUNT_ID, ["i-1"], "logistic/1")
    for account in (OTHER_ID, PROD_ID):
        with pytest.raises(NotAllowed):
            set_shadow(ana, account, ["i-1"], shadow=True)
    told = [row for row in audit_rows(owner) if row["subject"] == "i-1"]
    assert {row["actor"] for row in told} == {f"user:{people['ana']}"}, "whoever is proven, not whoever is named"
    assert {row["action"]: row["details"] for row in told} == {
        "set_shadow": {"to": True},
        "set_mode": {"to": "CLUSTER"},
        "assign_version": {"to": "logistic/1"},
    }


def test_no_statement_steers_without_a_trace(
    api: sa.Engine, engine: sa.Engine, owner: sa.Engine, people: People, logins: Logins
) -> None:
    with acting_for(api, logins["ana"]) as connection:
        connection.execute(sa.text("select set_config('app.actor', 'cli:innocent', true)"))
        connection.execute(sa.text("update instances set shadow = true, pipeline_mode = 'CLUSTER'"))
    assert {(row["actor"], row["action"]) for row in audit_rows(owner) if row["subject"] == "i-1"} == {
        (f"user:{people['ana']}", "set_shadow"),
        (f"user:{people['ana']}", "set_mode"),
    }
    with engine.begin() as connection:
        connection.execute(sa.text(f"update instances set shadow = true where account_id = '{OTHER_ID}'"))
    (row,) = [row for row in audit_rows(owner, "set_shadow") if row["account_id"] == OTHER_ID]
    assert row["actor"] == f"database:{owner.url.username}"


def test_only_what_is_approved_is_assigned(api: sa.Engine, engine: sa.Engine, owner: sa.Engine, logins: Logins) -> None:
    with owner.begin() as connection:
        connection.exec_driver_sql("update model_registry set status = 'candidate', role = 'none'")
    with pytest.raises(ModelUnknown):
        assign_version(acting_as(api, logins["ana"]), ACCOUNT_ID, ["i-1"], "logistic/1")
    assign = sa.text("update instances set assigned_version = 'logistic/1'")
    with pytest.raises(IntegrityError, match="not approved"), acting_for(api, logins["ana"]) as connection:
        connection.execute(assign)
    with pytest.raises(IntegrityError, match="not approved"), engine.begin() as connection:
        connection.execute(assign)


def test_a_refusal_is_put_on_record_in_ones_own_name_by_whoever_may_not_read_it(
    api: sa.Engine, owner: sa.Engine, people: People, logins: Logins
) -> None:
    ana = f"user:{people['ana']}"
    with acting_for(api, logins["ana"]) as connection:
        record(connection, "set_role", actor=ana, outcome="refused", reason="no admin")
        record(connection, "set_shadow", actor=ana, account_id=ACCOUNT_ID, outcome="failed", reason="no such instance")
    assert [(row["actor"], row["outcome"]) for row in audit_rows(owner)[-2:]] == [(ana, "refused"), (ana, "failed")]


@pytest.mark.parametrize(
    "forged",
    [
        {"outcome": "done"},
        {"outcome": "done", "action": "approve_model", "account_id": None},
        {"actor": "user:{ben}"},
        {"actor": "cli:root"},
        {"account_id": OTHER_ID},
        {"at": "2020-01-01"},
        {"id": "00000000-0000-0000-0000-000000000001"},
        {"request_id": "r-1"},
    ],
)
def test_an_audit_entry_is_not_forged(
    api: sa.Engine, people: People, logins: Logins, forged: dict[str, str | None]
) -> None:
    true = {"actor": "user:{ana}", "action": "set_shadow", "account_id": ACCOUNT_ID, "outcome": "refused"}
    values = {name: value and value.format(**people) for name, value in (true | forged).items()}
    with pytest.raises(ProgrammingError, match=REFUSED), acting_for(api, logins["ana"]) as connection:
        connection.execute(sa.text(f"insert into audit_log {columns(values)}"), values)


def test_somebody_disabled_or_unproven_writes_no_audit_entry(api: sa.Engine, people: People, logins: Logins) -> None:
    entry = sa.text("insert into audit_log (actor, action, outcome) values (:actor, 'set_role', 'refused')")
    with pytest.raises(ProgrammingError, match=REFUSED), acting_for(api, logins["cleo"]) as connection:
        connection.execute(entry, {"actor": f"user:{people['cleo']}"})
    with pytest.raises(ProgrammingError, match=REFUSED), api.begin() as connection:
        connection.execute(entry, {"actor": "user:"})


ASKED = {"account_id": ACCOUNT_ID, "window_start": "2026-03-15", "requested_by": "{ana}", "source": "api"}


def test_an_evaluation_is_asked_for_in_ones_own_name(
    api: sa.Engine, owner: sa.Engine, people: People, logins: Logins
) -> None:
    values = {name: value.format(**people) for name, value in ASKED.items()}
    with acting_for(api, logins["ana"]) as connection:
        connection.execute(sa.text(f"insert into evaluation_requests {columns(values)}"), values)
    with acting_for(api, logins["root"]) as connection:
        values |= {"requested_by": str(people["root"]), "account_id": PROD_ID}
        connection.execute(sa.text(f"insert into evaluation_requests {columns(values)}"), values)
    with owner.connect() as connection:
        query = "select account_id, requested_by, state from evaluation_requests where window_start = '2026-03-15'"
        asked = connection.execute(sa.text(query)).all()
    assert set(asked) == {(ACCOUNT_ID, people["ana"], "pending"), (PROD_ID, people["root"], "pending")}


@pytest.mark.parametrize(
    "forged",
    [
        {"requested_by": "{ben}"},
        {"requested_by": "00000000-0000-0000-0000-000000000001"},  # no such user: said no otherwise than of one
        {"requested_by": None},
        {"account_id": OTHER_ID},
        {"account_id": PROD_ID},
        {"source": "cli"},
        {"state": "done"},
        {"run_id": "r"},
        {"error": "e"},
        {"created_at": "2020-01-01"},
    ],
)
def test_a_request_for_an_evaluation_is_not_forged(
    api: sa.Engine, people: People, logins: Logins, forged: dict[str, str | None]
) -> None:
    values = {name: value and value.format(**people) for name, value in (ASKED | forged).items()}
    with pytest.raises(ProgrammingError, match=REFUSED), acting_for(api, logins["ana"]) as connection:
        connection.execute(sa.text(f"insert into evaluation_requests {columns(values)}"), values)
