"""Steering changes what it names and nothing else, and each change is on record with who, what and to what."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import actor_of
from spotlab_pipelines.accounts.fleet import load_fleet, sync_fleet
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.standing import set_environment
from spotlab_pipelines.accounts.steering import assign_version, set_mode, set_shadow
from spotlab_pipelines.accounts.users import add_user, get_user
from spotlab_pipelines.errors import InvalidInput, ModelUnknown, NotFound
from spotlab_pipelines_tests.accounts.registering import ANA, audit_rows, register, register_in_aws

A = "111122223333"
VERSION = sa.text(
    "insert into model_registry (version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256,"
    " mlflow_run_id, status, registered_by) values"
    " ('logistic/1', 'logistic', 1, 'v1', '{1,6,12}', 'x', repeat('a', 64), 'r', 'approved', 'cli:ana')"
)


@pytest.fixture
def instances(engine, owner, local_aws):
    """The ids of a synced fleet of two."""
    register_in_aws(engine, local_aws, A)
    with owner.begin() as connection:
        connection.execute(VERSION)
    return sorted(sync_fleet(AccountSessions(engine), engine, A)["instance_id"])


@pytest.mark.parametrize(
    ("change", "value", "action", "column"),
    [
        (assign_version, "logistic/1", "assign_version", "assigned_version"),
        (set_mode, "CLUSTER", "set_mode", "pipeline_mode"),
        (set_shadow, True, "set_shadow", "shadow"),
    ],
)
def test_a_change_touches_what_it_names_and_is_on_record(engine, instances, change, value, action, column):
    before = load_fleet(engine, A).set_index("instance_id")[column]
    ana = actor_of(get_user(engine, ANA).id)
    change(engine, A, instances[:1], value, actor=ana)
    after = load_fleet(engine, A).set_index("instance_id")[column]
    assert after[instances[0]] == value
    assert after[instances[1]] == before[instances[1]] or after.isna()[instances[1]]
    (row,) = audit_rows(engine, action)
    kept = (row["actor"], row["account_id"], row["subject"], row["outcome"], row["details"])
    assert kept == (ana, A, instances[0], "done", {"to": value})


@pytest.mark.parametrize(
    ("change", "value", "error"),
    [
        (assign_version, "logistic/1", NotFound),
        (assign_version, "logistic/2", ModelUnknown),
        (set_mode, "CLUSTER", NotFound),
        (set_mode, "SIDEWAYS", InvalidInput),
        (set_shadow, True, NotFound),
    ],
)
def test_what_is_refused_changes_nothing_and_leaves_no_row(engine, instances, change, value, error):
    before = load_fleet(engine, A)
    with pytest.raises(error):
        change(engine, A, [*instances, "i-0of0somebody0else"], value)
    assert load_fleet(engine, A).equals(before)
    assert audit_rows(engine, change.__name__) == []


def test_registering_is_on_record_without_the_external_id(engine):
    ana = actor_of(add_user(engine, ANA).id)
    account = register(engine, actor=ana)
    (row,) = audit_rows(engine, "add_account")
    assert (row["actor"], row["account_id"], row["outcome"]) == (ana, A, "done")
    assert account.external_id.get_secret_value() not in str(row)
    with pytest.raises(InvalidInput):
        register(engine)
    assert len(audit_rows(engine, "add_account")) == 1


def test_without_an_actor_it_is_the_person_at_the_command_line(engine):
    register(engine)
    assert audit_rows(engine, "add_account")[0]["actor"].startswith("cli:")


def test_the_environment_goes_to_and_fro_on_record(engine):
    register(engine)
    root = actor_of(add_user(engine, "root@example.com", "admin").id)
    assert set_environment(engine, A, "PROD", actor=root).environment == "PROD"
    assert get_account(engine, A).environment == "PROD"
    assert set_environment(engine, A, "LAB").environment == "LAB"
    assert [row["details"] for row in audit_rows(engine, "change_environment")] == [
        {"before": "LAB", "after": "PROD"},
        {"before": "PROD", "after": "LAB"},
    ]
    with pytest.raises(InvalidInput, match="LAB or PROD"):
        set_environment(engine, A, "STAGING")
    with pytest.raises(NotFound):
        set_environment(engine, "999999999999", "LAB")
    assert len(audit_rows(engine, "change_environment")) == 2
