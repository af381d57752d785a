"""A laboratory for tests that cross rooms: the demo's accounts on a local AWS, models, Dagster on real stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.defs.evaluation import WINDOW_TAG
from spotlab_pipelines.defs.partitions import account_partitions
from spotlab_pipelines.defs.run import open_instance
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import PROJECT_ROOT, Settings, get_settings
from spotlab_pipelines_tests.demo import stage
from spotlab_pipelines_tests.inference.models import register_both
from spotlab_pipelines_tests.local_aws.fleet import demo_fleet
from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.server import LocalAws

OF_OTHER_TOOLS = (".hypothesis", ".ruff_cache", ".import_linter_cache", ".pytest_cache")
"""What the tests' own tools may write into the checkout while a test looks at it."""


def checkout() -> set[str]:
    """Names in the checkout's root and in its two folders that a server could litter, those that git ignores too."""
    folders = (PROJECT_ROOT, PROJECT_ROOT / "mlruns", PROJECT_ROOT / "spotlab_pipelines")
    return {str(path) for folder in folders for path in folder.iterdir() if path.name not in OF_OTHER_TOOLS}


@dataclass(frozen=True)
class Laboratory:
    """Everything set up, nothing scraped or evaluated yet."""

    settings: Settings
    engine: sa.Engine
    redis: redis_py.Redis
    aws: LocalAws
    accounts: list[Account]
    instance: dg.DagsterInstance

    def run(self, job: str, *accounts: str, window: str | None = None) -> dg.ExecuteInProcessResult:
        """Run a job in this process; several accounts as one run over their range."""
        from spotlab_pipelines.definitions import defs

        tags: dict[str, Any] = {} if window is None else {WINDOW_TAG: window}
        if len(accounts) > 1:
            tags["dagster/asset_partition_range_start"] = accounts[0]
            tags["dagster/asset_partition_range_end"] = accounts[-1]
        return defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=accounts[0] if len(accounts) == 1 else None,
            tags=tags,
            raise_on_error=False,
        )

    def rows(self, query: str, **values: Any) -> list[Any]:
        """The rows of a query on the domain database."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(query), values))


@pytest.fixture
def laboratory(
    settings: Settings,
    engine: sa.Engine,
    redis: redis_py.Redis,
    local_aws: LocalAws,
    market: Recording,
    mlflow_database: str,
    dagster_database: None,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Laboratory]:
    """The demo's four accounts with fleets and roles, a champion and a challenger, and their partitions."""
    for name, value in environment.items():
        if name.startswith("SPOTLAB_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPOTLAB_ADVISOR_URL", local_aws.advisor_url)
    get_settings.cache_clear()
    fleets = demo_fleet(market)
    accounts = stage.register_cast(settings, engine, fleets)
    stage.fill_accounts(local_aws, accounts, fleets)
    register_both(ModelRegistry(engine, settings))
    with open_instance() as instance:
        instance.add_dynamic_partitions(str(account_partitions.name), [account.account_id for account in accounts])
        yield Laboratory(get_settings(), engine, redis, local_aws, accounts, instance)
    get_settings.cache_clear()
