"""The first models of a fresh laboratory, against the local AWS: fitted, registered, and not twice."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import add_account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.errors import NotFound
from spotlab_pipelines.features.specs import HISTORY_FEATURES, V2
from spotlab_pipelines.inference.mlflow_store import mlflow_client
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.advisor import scrape_advisor
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.catalogue import scrape_catalogue
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines.market.layout import POOL_OBSERVATIONS
from spotlab_pipelines.market.observations import scrape_observations
from spotlab_pipelines.market.scrapes import recorded
from spotlab_pipelines.settings import HORIZONS_H, Settings
from spotlab_pipelines.training import first_models, history
from spotlab_pipelines.training.data import collect_accounts
from spotlab_pipelines.training.first_models import register_first_models
from spotlab_pipelines.training.interruption_model import train_model
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.server import LocalAws

ACCOUNT = "111111111111"
REGIONS = ("us-east-1", "eu-west-1")


@pytest.fixture
def laboratory(
    settings: Settings, engine: sa.Engine, redis: redis_py.Redis, local_aws: LocalAws, mlflow_database: str
) -> tuple[Settings, sa.Engine, AccountSessions, redis_py.Redis, ModelRegistry]:
    """An account whose market was scraped; nothing is registered."""
    settings = settings.model_copy(update={"advisor_url": local_aws.advisor_url})
    add_user(engine, "owner@example.com")
    account = add_account(
        engine,
        account_id=ACCOUNT,
        name="one",
        owner_email="owner@example.com",
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/SpotLab",
        regions=REGIONS,
    )
    local_aws.add_account(ACCOUNT, external_id=account.external_id.get_secret_value(), regions=REGIONS)
    sessions = AccountSessions(engine)
    archive = Archive(settings.archive_location)
    scrape_advisor(settings, engine, redis, archive)
    scrape_catalogue(settings, sessions, engine, redis, archive)
    return settings, engine, sessions, redis, ModelRegistry(engine, settings)


def test_both_families_are_fitted_once_and_again_when_their_files_are_gone(laboratory, local_aws: LocalAws):
    registry = laboratory[4]
    said: list[str] = []
    until = datetime.now(UTC) - timedelta(hours=6)
    first = register_first_models(*laboratory, progress=said.append, training_days=20, until=until)
    assert [(one.version, one.role) for one in first] == [("advisor-rate/1", "champion"), ("logistic/1", "challenger")]
    logistic = first[1]
    assert logistic.metrics["events_1h"] >= 20
    # The generator's stress drives interruptions and part of the price: prices must tell something on unseen days.
    assert logistic.metrics["auc_6h"] > 0.55
    assert any("Spot requests" in line for line in said)
    rows = registry.serving()
    assert {row.registered_by for row in rows} == {"spotlab models bootstrap"}
    assert rows[1].metrics["auc_6h"] == logistic.metrics["auc_6h"]
    client = mlflow_client(laboratory[0])
    plots = client.list_artifacts(rows[1].mlflow_run_id, "validation/out_of_fold/6h")
    assert "validation/out_of_fold/6h/reliability.png" in {each.path for each in plots}
    params = client.get_run(rows[1].mlflow_run_id).data.params
    assert (params["until"], params["last_example"] < params["until"]) == (until.isoformat(), True)

    again = register_first_models(*laboratory)
    assert [(one.version, one.role, one.note) for one in again] == [
        ("advisor-rate/1", "champion", "Already registered."),
        ("logistic/1", "challenger", "Already registered."),
    ]

    registry.promote("logistic/1", override="a test")
    assert [one.role for one in register_first_models(*laboratory)] == ["challenger", "champion"]

    shutil.rmtree(laboratory[0].mlruns_dir)
    # The archive has the prices by now: AWS is not asked for them again.
    local_aws.add_fault("DescribeSpotPriceHistory", times=None, code="UnauthorizedOperation", status=403)
    anew = register_first_models(*laboratory, training_days=20)
    assert [(one.version, one.role) for one in anew] == [("advisor-rate/2", "champion"), ("logistic/2", "challenger")]
    assert [row.version for row in registry.serving()] == ["advisor-rate/2", "logistic/2"]
    assert {row.version for row in registry.versions() if row.status == "retired"} == {"advisor-rate/1", "logistic/1"}


def test_without_interruptions_logistic_is_not_fitted_and_says_so(laboratory, local_aws: LocalAws):
    local_aws.set_denies(ACCOUNT, "actions")
    found = register_first_models(*laboratory)
    assert [(one.version, one.role) for one in found] == [("advisor-rate/1", "champion"), (None, "none")]
    assert found[1].note == "Not fitted: none of 1 accounts lets its Spot requests be read."
    assert [row.version for row in laboratory[4].serving()] == ["advisor-rate/1"]


NOT_FITTED = [("advisor-rate/1", "champion"), (None, "none")]


def test_interruptions_that_are_too_old_teach_nothing(laboratory):
    found = register_first_models(*laboratory, training_days=0)
    assert [(one.version, one.role) for one in found] == NOT_FITTED
    assert "hold no interruption in the last 0 days" in found[1].note


def test_interruptions_between_the_instants_that_are_looked_at_teach_nothing(
    laboratory, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
):
    (instance_id,) = local_aws.add_instances(ACCOUNT, [FleetInstance("m5.large", "us-east-1", "use1-az1")])
    local_aws.interrupt(ACCOUNT, "us-east-1", instance_id)
    # A grid so wide that no instant of it falls into this test.
    monkeypatch.setattr(history, "SAMPLED_EVERY", timedelta(days=36500))
    found = register_first_models(*laboratory, training_days=0.01)
    assert [(one.version, one.role) for one in found] == NOT_FITTED
    assert "none ran, in a pool with features" in found[1].note


def test_a_horizon_at_which_all_ended_alike_is_not_fitted_and_bootstrap_goes_on(
    laboratory, monkeypatch: pytest.MonkeyPatch
):
    """Of ten hours nothing can be seen to survive twelve."""
    monkeypatch.setattr(history, "SAMPLED_EVERY", timedelta(minutes=15))
    monkeypatch.setattr(first_models, "MINIMUM_EVENTS", 1)
    found = register_first_models(*laboratory, training_days=10 / 24)
    assert [(one.version, one.role) for one in found] == NOT_FITTED
    assert found[1].note.startswith("Not fitted: A logistic regression at 12 h needs interruptions and survivals;")
    assert [row.version for row in laboratory[4].serving()] == ["advisor-rate/1"]


def test_without_an_account_there_is_nothing_to_learn_from(laboratory, engine: sa.Engine):
    with engine.begin() as connection:
        connection.execute(sa.text("update accounts set state = 'disabled'"))
    with pytest.raises(NotFound, match="spotlab accounts add"):
        register_first_models(*laboratory)


def test_a_candidate_learns_from_what_the_accounts_saw_of_their_pools(laboratory):
    """The path of `spotlab models train FAMILY` without a trace, on the specs that look at observations."""
    settings, engine, sessions, redis, registry = laboratory
    archive = Archive(settings.archive_location)
    scrape_observations(settings, sessions, engine, redis, archive, ACCOUNT)
    data = collect_accounts(settings, engine, sessions, redis, archive, feature_spec="v2-history", days=20)
    assert (data.examples["history_missing"] == 0).any()
    trained = train_model(settings, registry, data, family="time-in-state", registered_by="a test")
    assert (trained.version, trained.status) == ("time-in-state/1", "candidate")
    assert registry.find("time-in-state/1").training_sha256 == data.fingerprint
    # A failure that the next scrape brings is known from then on, although it was an hour before an example.
    example = data.examples.tail(1)
    kind, source = (pd.Series([name], dtype="str", index=example.index) for name in ("interruption", "spot requests"))
    late = example[list(POOL_KEY)].assign(
        observed_at=example["sampled_at"] - timedelta(hours=1), available=False, observation=kind, source=source
    )
    with recorded(engine, POOL_OBSERVATIONS, account_id=ACCOUNT) as scrape:
        scrape.keep(archive, late)
    full = collect_accounts(settings, engine, sessions, redis, archive, feature_spec="v2", days=5)
    assert set(V2.names) <= set(full.examples.columns)
    key = ["sampled_at", *POOL_KEY]
    before, after = (each.examples.drop_duplicates(key).set_index(key) for each in (data, full))
    same = before.index.intersection(after.index)
    assert pd.MultiIndex.from_frame(example[key])[0] in same
    history = [feature.name for feature in HISTORY_FEATURES]
    pd.testing.assert_frame_equal(after.loc[same, history], before.loc[same, history], check_exact=True)


def test_training_until_an_instant_knows_nothing_that_came_after_it(laboratory, monkeypatch: pytest.MonkeyPatch):
    """Neither how an instance ended later, nor what was observed or paid later: all of it is in the archive by now."""
    settings, engine, sessions, redis, _ = laboratory
    archive = Archive(settings.archive_location)
    scrape_observations(settings, sessions, engine, redis, archive, ACCOUNT)
    made_of: list[dict[str, pd.DataFrame]] = []
    build = history.build_examples

    def watched(exposures: pd.DataFrame, changes: pd.DataFrame, **others) -> pd.DataFrame:
        made_of.append({"changed_at": changes, "observed_at": others["observations"]})
        return build(exposures, changes, **others)

    monkeypatch.setattr(history, "build_examples", watched)
    until = pd.Timestamp(datetime.now(UTC) - timedelta(days=1))
    since = until - timedelta(days=1)
    full, past = (
        collect_accounts(
            settings, engine, sessions, redis, archive, feature_spec="v2",
            since=since.to_pydatetime(), until=end and end.to_pydatetime(),
        ).examples
        for end in (None, until)
    )  # fmt: skip
    for name in ("changed_at", "observed_at"):
        last, last_then = (frames[name][name].max() for frames in made_of)
        assert last_then <= until < last, "what came later was there to be read"
    known = full[full["sampled_at"] < until]
    assert past["sampled_at"].tolist() == known["sampled_at"].tolist()
    for horizon in HORIZONS_H:
        told = f"interrupted_{horizon}h"
        is_open = past["sampled_at"] + pd.Timedelta(hours=horizon) > until
        assert past.loc[is_open, told].isna().all()
        assert past.loc[~is_open, told].notna().any()
        # By now it is known how they ended.
        assert known.loc[known["sampled_at"] + pd.Timedelta(hours=horizon) > until, told].notna().any() or horizon == 1
