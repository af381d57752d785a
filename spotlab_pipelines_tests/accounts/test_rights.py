"""The whole matrix of role and act: what is allowed happens, what is not changes nothing and is on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import acting, actor_of
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.rights import RIGHTS, ActedUpon, refusal
from spotlab_pipelines.accounts.standing import disable_account, enable_account, set_environment
from spotlab_pipelines.accounts.steering import assign_version, set_mode, set_shadow
from spotlab_pipelines.accounts.users import Person, add_user, disable_user, get_user, set_password, set_role
from spotlab_pipelines.database.tables import AUDIT_ACTIONS, ROLES
from spotlab_pipelines.errors import NotAllowed
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.layout import POOL_TRACES
from spotlab_pipelines.market.trace_removal import remove_trace
from spotlab_pipelines.market.traces import import_trace
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows, register
from spotlab_pipelines_tests.inference.models import logistic
from spotlab_pipelines_tests.inference.models import register as register_version
from spotlab_pipelines_tests.market.trace_examples import STATEMENT, probes, probes_file

OWN, PROD, OTHERS, NOWHERE = "111122223333", "222233334444", "333344445555", "999999999999"
NEW = "444455556666"
UPON = {
    "own LAB account": ActedUpon("LAB", own=True),
    "own PROD account": ActedUpon("PROD", own=True),
    "another's LAB account": ActedUpon("LAB"),
    "another's PROD account": ActedUpon("PROD"),
    "nothing that exists": ActedUpon(),
    "oneself": ActedUpon(own=True),
}
STEERING = {"assign_version", "set_mode", "set_shadow", "add_account", "disable_account", "enable_account"}
LABS = {"register_model", "import_trace"}
ADMINS_ALONE = {
    "change_environment", "approve_model", "promote_model", "retire_model", "add_user", "disable_user", "set_role",
    "remove_trace",
}  # fmt: skip


def expected(role: str, act: str, upon: str) -> bool:
    """The rule as the issue has it, said another way than in the code."""
    if role == "admin":
        return True
    if act in STEERING:
        return upon == "own LAB account"
    if act == "set_password":
        return UPON[upon].own
    return role == "lab" and act in LABS


@pytest.mark.parametrize("upon", UPON)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("act", RIGHTS)
def test_the_matrix(role: str, act: str, upon: str) -> None:
    assert (refusal(role, act, UPON[upon]) is None) == expected(role, act, upon)


def test_each_act_of_a_person_has_a_rule_and_what_has_none_is_open_to_nobody() -> None:
    machines = {"assume_role", "validate_access", "access_broken"}
    assert set(RIGHTS) == set(AUDIT_ACTIONS) - machines
    assert {*STEERING, *ADMINS_ALONE, *LABS, "set_password"} == set(RIGHTS)
    with pytest.raises(KeyError):
        refusal("admin", "fly", ActedUpon())


@dataclass(frozen=True)
class World:
    """Somebody of some role, with a LAB and a PROD account of their own and one of somebody else."""

    engine: sa.Engine
    registry: ModelRegistry
    me: Person
    probes: Path

    @property
    def actor(self) -> str:
        return actor_of(self.me.id)

    @property
    def archive(self) -> Archive:
        return Archive(str(self.probes.parent / "archive"))

    def register(self, account_id: str, **changes: str) -> None:
        owner = {"owner_email": self.me.email}
        register(self.engine, account_id, **(owner | changes), actor=self.actor)


@pytest.fixture
def engine(owner: sa.Engine) -> sa.Engine:
    """The engine of the owner: whoever administers users needs it."""
    return owner


@pytest.fixture
def make_world(
    engine: sa.Engine, owner: sa.Engine, settings: Settings, mlflow_database: str, tmp_path: Path
) -> Callable[[str], World]:
    def make(role: str) -> World:
        me = add_user(engine, "me@example.com", role)
        add_user(engine, "root@example.com", "admin")
        add_user(engine, "eve@example.com")
        register(engine, OTHERS)
        register(engine, OWN, owner_email=me.email)
        register(engine, PROD, owner_email=me.email, environment="PROD")
        registry = ModelRegistry(engine, settings)
        for number in (1, 2, 3):
            register_version(registry, "logistic", logistic(number))
        registry.approve("logistic/1")
        registry.promote("logistic/1")
        registry.approve("logistic/2", role="challenger")
        with owner.begin() as connection:
            connection.exec_driver_sql(
                "insert into instances (account_id, instance_id, region, az_id, instance_type, product, lifecycle, "
                "state, launched_at) select account_id, 'i-1', 'us-east-1', 'use1-az1', 'm5.large', 'Linux/UNIX', "
                "'spot', 'running', now() from accounts"
            )
        world = World(engine, registry, me, probes_file(tmp_path))
        known = probes_file(tmp_path, probes(7), "known.parquet")
        import_trace(engine, world.archive, known, "known", STATEMENT)
        return world

    return make


Act = Callable[[World], object]
STEER: list[tuple[str, Callable[..., None], str | bool]] = [
    ("assign_version", assign_version, "logistic/2"),
    ("set_mode", set_mode, "CLUSTER"),
    ("set_shadow", set_shadow, True),
]
ACTS: list[tuple[str, str, Act]] = [
    ("add_account", "own LAB account", lambda w: w.register(NEW)),
    ("add_account", "own PROD account", lambda w: w.register("444455556667", environment="PROD")),
    ("add_account", "another's LAB account", lambda w: w.register("444455556668", owner_email="ana@example.com")),
    *(
        (act, upon, lambda w, do=do, account=account, value=value: do(w.engine, account, ["i-1"], value, actor=w.actor))
        for act, do, value in STEER
        for upon, account in (("own LAB account", OWN), ("own PROD account", PROD), ("another's LAB account", OTHERS))
    ),
    *(
        (act, upon, lambda w, do=do, account=account: do(w.engine, account, actor=w.actor))
        for act, do in (("disable_account", disable_account), ("enable_account", enable_account))
        for upon, account in (("own LAB account", OWN), ("own PROD account", PROD), ("another's LAB account", OTHERS))
    ),
    ("change_environment", "own PROD account", lambda w: set_environment(w.engine, PROD, "LAB", actor=w.actor)),
    ("change_environment", "own LAB account", lambda w: set_environment(w.engine, OWN, "PROD", actor=w.actor)),
    (
        "register_model", "nothing that exists",
        lambda w: register_version(w.registry, "logistic", logistic(4), actor=w.actor),
    ),
    (
        "import_trace", "nothing that exists",
        lambda w: import_trace(w.engine, w.archive, w.probes, "probes", STATEMENT, actor=w.actor),
    ),
    (
        "remove_trace", "nothing that exists",
        lambda w: remove_trace(w.engine, w.archive, "known", actor=w.actor),
    ),
    ("approve_model", "nothing that exists", lambda w: w.registry.approve("logistic/3", actor=w.actor)),
    ("promote_model", "nothing that exists", lambda w: w.registry.promote("logistic/2", actor=w.actor, override="so")),
    ("retire_model", "nothing that exists", lambda w: w.registry.retire("logistic/3", actor=w.actor)),
    ("add_user", "nothing that exists", lambda w: add_user(w.engine, "new@example.com", "admin", actor=w.actor)),
    ("set_role", "nothing that exists", lambda w: set_role(w.engine, "eve@example.com", "admin", actor=w.actor)),
    (
        "set_password", "nothing that exists",
        lambda w: set_password(w.engine, "eve@example.com", "a" * 12, actor=w.actor),
    ),
    ("set_password", "oneself", lambda w: set_password(w.engine, w.me.email, "a" * 12, actor=w.actor)),
    ("disable_user", "nothing that exists", lambda w: disable_user(w.engine, "eve@example.com", actor=w.actor)),
]  # fmt: skip
CHANGED = """
select (select jsonb_agg(to_jsonb(a) order by account_id) from accounts a)::text,
       (select jsonb_agg(to_jsonb(u) order by email) from users u)::text,
       (select jsonb_agg(to_jsonb(m) order by version) from model_registry m)::text,
       (select jsonb_agg(to_jsonb(i) order by account_id) from instances i)::text,
       (select count(*) from scrapes)::text
"""


@pytest.mark.parametrize("role", ROLES)
def test_each_service_asks_for_the_right_and_puts_a_refusal_on_record(
    make_world: Callable[[str], World], owner: sa.Engine, role: str
) -> None:
    assert {act for act, _, _ in ACTS} == set(RIGHTS)
    world = make_world(role)
    for act, upon, do in ACTS:
        with owner.connect() as connection:
            before = (*connection.execute(sa.text(CHANGED)).one(), world.archive.scrape_files(POOL_TRACES))
        known = len(audit_rows(world.engine))
        if expected(role, act, upon):
            do(world)
            outcome = "done"
        else:
            with pytest.raises(NotAllowed, match=r"Expected .* me@example.com has the role"):
                do(world)
            outcome = "refused"
        with owner.connect() as connection:
            after = (*connection.execute(sa.text(CHANGED)).one(), world.archive.scrape_files(POOL_TRACES))
        assert (before != after) == (outcome == "done"), (act, upon)
        rows = audit_rows(world.engine)[known:]
        assert [(row["action"], row["actor"], row["outcome"]) for row in rows] == [(act, world.actor, outcome)]
        assert (rows[0]["reason"] is None) == (outcome == "done")


def test_an_account_of_somebody_else_and_none_are_answered_alike(make_world: Callable[[str], World]) -> None:
    world = make_world("user")
    said = []
    for account in (OTHERS, NOWHERE):
        with pytest.raises(NotAllowed) as caught:
            set_shadow(world.engine, account, ["i-1"], True, actor=world.actor)
        said.append(str(caught.value).replace(account, "X"))
    assert said[0] == said[1]
    last = audit_rows(world.engine)[-1]
    assert (last["account_id"], last["details"]["account"]) == (None, NOWHERE), "what was tried stays readable"


@pytest.mark.parametrize("actor", ["user:6b1f0c1e-0000-4000-8000-000000000000", "user:root", "user:"])
def test_a_user_that_does_not_exist_may_nothing(engine: sa.Engine, actor: str) -> None:
    register(engine)
    with pytest.raises(NotAllowed, match="active user"):
        set_environment(engine, OWN, "PROD", actor=actor)
    assert get_account(engine, OWN).environment == "LAB"
    assert audit_rows(engine)[-1]["outcome"] == "refused"


def test_a_disabled_admin_may_nothing_and_a_role_counts_at_once(engine: sa.Engine) -> None:
    register(engine)
    for email in ("one@example.com", "two@example.com"):
        add_user(engine, email, "admin")
    one, two = (actor_of(get_user(engine, f"{name}@example.com").id) for name in ("one", "two"))
    set_environment(engine, OWN, "PROD", actor=one)
    disable_user(engine, "one@example.com", actor=two)
    with pytest.raises(NotAllowed, match="disabled"):
        set_environment(engine, OWN, "LAB", actor=one)
    add_user(engine, "three@example.com", "admin")
    set_role(engine, "two@example.com", "lab")
    with pytest.raises(NotAllowed, match="has the role lab"):
        set_environment(engine, OWN, "LAB", actor=two)


@pytest.mark.parametrize("actor", [None, "cli:ana", "run:1"])
def test_the_operator_and_the_pipeline_need_nobodys_leave(engine: sa.Engine, actor: str | None) -> None:
    with acting(engine, "change_environment", actor=actor, account_id=OWN) as connection:
        assert connection.scalar(sa.text("select 1")) == 1
