"""Whose market is old: judged from the table of scrapes, in one query, and shown as asset checks that only warn."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from spotlab_pipelines.database.tables import Account, Scrape
from spotlab_pipelines.definitions import build_definitions
from spotlab_pipelines.market.staleness import newest_scrapes
from spotlab_pipelines_tests.accounts.registering import register

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
FREQUENT, DAILY, NEW, GONE = "111111111111", "222222222222", "333333333333", "444444444444"


def scraped(engine, source, age_s, account_id=None, error=None, now=NOW):
    with engine.begin() as connection:
        connection.execute(
            sa.insert(Scrape).values(
                id=uuid4(),
                source=source,
                account_id=account_id,
                fetched_at=now - timedelta(seconds=age_s),
                row_count=0,
                error=error,
            )
        )


@pytest.fixture
def accounts(engine, owner):
    """Accounts of every kind, all registered two hours ago but the new one."""
    for account_id, interval_s in [(FREQUENT, 1800), (DAILY, 86400), (NEW, 1800), (GONE, 1800)]:
        register(engine, account_id, evaluation_interval_s=interval_s)
    ages = {NEW: 60}
    with owner.begin() as connection:
        for account_id in (FREQUENT, DAILY, NEW, GONE):
            connection.execute(
                sa.update(Account)
                .where(Account.account_id == account_id)
                .values(
                    created_at=NOW - timedelta(seconds=ages.get(account_id, 7200)),
                    state="disabled" if account_id == GONE else "active",
                )
            )


def told(engine, settings):
    frame = newest_scrapes(engine, settings, now=NOW)
    return {
        (row.source, row.account_id): (row.age_s, row.limit_s, row.stale, row.error)
        for row in frame.itertuples(index=False)
    }


def test_each_source_and_active_account_is_judged_by_its_newest_good_scrape(engine, settings, accounts, monkeypatch):
    scraped(engine, "spot_advisor", 5000)
    scraped(engine, "spot_advisor", 3600)
    scraped(engine, "spot_advisor", 1200, error="SourceMalformed: cut")
    scraped(engine, "instance_catalogue", 86401, FREQUENT)
    scraped(engine, "spot_prices", 3601, FREQUENT)
    scraped(engine, "spot_prices", 9000, FREQUENT, error="AccessDenied: of long ago")
    scraped(engine, "spot_prices", 80000, DAILY)
    scraped(engine, "spot_prices", 10, GONE)
    scraped(engine, "pool_observations", 7200, FREQUENT)
    scraped(engine, "pool_observations", 30, FREQUENT, error="AccessDenied: not any more")
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    assert told(engine, settings) == {
        ("instance_catalogue", ""): (86401, 86400, True, ""),
        ("spot_advisor", ""): (3600, 3600, False, "SourceMalformed: cut"),
        ("spot_prices", FREQUENT): (3601, 3600, True, ""),
        ("spot_prices", DAILY): (80000, 88200, False, ""),
        ("spot_prices", NEW): (60, 3600, False, ""),
        ("pool_observations", FREQUENT): (7200, 3600, True, "AccessDenied: not any more"),
        ("pool_observations", DAILY): (7200, 88200, False, ""),
        ("pool_observations", NEW): (60, 3600, False, ""),
    }
    assert len([query for query in asked if "scrapes" in query]) == 1


def test_what_was_never_scraped_is_stale_at_once_if_shared_and_after_its_limit_if_an_accounts(
    engine, settings, accounts
):
    found = told(engine, settings)
    assert found["spot_advisor", ""][0] == float("inf")
    assert {key for key, value in found.items() if value[2]} == {
        ("spot_advisor", ""),
        ("instance_catalogue", ""),
        ("spot_prices", FREQUENT),
        ("pool_observations", FREQUENT),
    }


def test_the_checks_warn_and_name_whose_market_is_old(engine, settings):
    now = datetime.now(UTC)
    register(engine, FREQUENT)
    scraped(engine, "spot_advisor", 60, now=now)
    scraped(engine, "instance_catalogue", 90000, now=now)
    scraped(engine, "instance_catalogue", 5, error="Throttled: slow down", now=now)
    scraped(engine, "spot_prices", 4000, FREQUENT, now=now)
    scraped(engine, "pool_observations", 4000, FREQUENT, now=now)
    definitions = build_definitions(settings=settings, database=engine)
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("market_checks").execute_in_process(instance=instance)
    assert result.success
    checks = {one.asset_key.to_user_string(): one for one in result.get_asset_check_evaluations()}
    assert {asset: check.passed for asset, check in checks.items()} == {
        "spot_advisor": True,
        "instance_catalogue": False,
        "spot_prices": False,
        "pool_observations": False,
    }
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.WARN}
    table = str(checks["spot_prices"].metadata["scrapes"].value)
    assert FREQUENT in table
    assert "| 3600 |" in table
    assert "Throttled: slow down" in str(checks["instance_catalogue"].metadata["scrapes"].value)
    assert checks["spot_prices"].metadata["stale"].value == 1
