"""What Dagster adds to an account's evaluation: the run against an empty graph of as many steps plus the bare work.

Both sides run in this process, on the same stores, against the same local AWS in a process of its own, with the shared
market scraped and the account's prices fresh, as in every evaluation but an account's first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.bench.laboratory import laboratory
from spotlab_pipelines_tests.bench.measure import Figure, best_of

if TYPE_CHECKING:
    import dagster as dg
    import sqlalchemy as sa

ROUNDS = 5


def figures() -> list[Figure]:
    """One account of the demo, best of five."""
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import QUIET, evaluate_account, open_instance, scrape_shared_market

    with _stage() as (settings, engine, account_id), open_instance() as instance:
        outcomes = scrape_shared_market(instance, defs)
        _register_models(settings, engine)
        outcomes.append(evaluate_account(instance, defs, account_id))
        assert all(outcome.success for outcome in outcomes), outcomes
        empty = _empty_graph()
        run_s, empty_s, bare_s = best_of(
            ROUNDS,
            lambda: evaluate_account(instance, defs, account_id),
            lambda: empty.execute_in_process(instance=instance, partition_key=account_id, run_config=QUIET),
            lambda: _bare_work(settings, engine, account_id),
        )
    note = f"empty graph {1000 * empty_s:.0f} ms, bare work {1000 * bare_s:.0f} ms"
    return [Figure("an account's run in Dagster", run_s, "an empty graph + the bare work", empty_s + bare_s, 1.5, note)]


@contextmanager
def _stage() -> Iterator[tuple[Settings, sa.Engine, str]]:
    """The demo's first account on stores and a local AWS of their own."""
    from spotlab_pipelines_tests.demo import stage

    with laboratory(lambda settings: stage.market_folder(settings, None)) as (settings, engine, aws, market):
        fleets = stage.fleets_of(settings, market)
        accounts = stage.register_cast(settings, engine, fleets)
        stage.fill_accounts(aws, accounts, fleets)
        yield settings, engine, accounts[0].account_id


def _register_models(settings: Settings, engine: sa.Engine) -> None:
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines_tests.inference.models import register_both

    register_both(ModelRegistry(engine, settings))


def _empty_graph() -> dg.JobDefinition:
    """Partitioned assets in a row that do nothing, as many as an account's evaluation has steps."""
    import dagster as dg

    from spotlab_pipelines.defs.jobs import ACCOUNT_ASSETS
    from spotlab_pipelines.defs.partitions import account_asset

    assets = []
    for position, _ in enumerate(ACCOUNT_ASSETS):

        @account_asset(name=f"empty_{position}", deps=[f"empty_{position - 1}"] if position else [])
        def empty() -> None:
            """Nothing."""

        assets.append(empty)
    job = dg.define_asset_job("empty", selection=dg.AssetSelection.assets(*assets))
    return dg.Definitions(assets=assets, jobs=[job], executor=dg.in_process_executor).resolve_job_def("empty")


def _bare_work(settings: Settings, engine: sa.Engine, account_id: str) -> None:
    """What the assets call, one after the other, without Dagster."""
    from spotlab_pipelines.accounts.fleet import sync_fleet
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.experiments.tracking import record_evaluation
    from spotlab_pipelines.features.snapshot import freeze_snapshot
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.scoring import score_evaluation
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.observations import scrape_observations
    from spotlab_pipelines.market.prices import scrape_prices
    from spotlab_pipelines.placement.decide import decide_evaluation

    key = EvaluationKey(account_id, datetime.now(UTC))
    redis, archive = connect_redis(settings), Archive(settings.archive_location)
    sessions, registry = AccountSessions(engine, run_id=str(uuid4())), ModelRegistry(engine, settings)
    begin_evaluation(engine, key, None)
    sync_fleet(sessions, engine, account_id)
    scrape_prices(settings, sessions, engine, redis, archive, account_id)
    scrape_observations(settings, sessions, engine, redis, archive, account_id)
    freeze_snapshot(settings, engine, redis, archive, key)
    score_evaluation(registry, archive, key)
    decide_evaluation(settings, engine, archive, key)
    record_evaluation(settings, engine, archive, key)
