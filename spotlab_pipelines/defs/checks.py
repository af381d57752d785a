"""Asset checks over our own tables: they warn and block nothing, since what is stale is refused where it is read.

They look at the table of scrapes, not at partitions or runs: a scrape counts by whichever run or command it came.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from spotlab_pipelines.defs.metadata import markdown_table
from spotlab_pipelines.defs.resources import DatabaseParam, SettingsParam

FRESH = "fresh"
CHECKED = ("spot_advisor", "instance_catalogue", "spot_prices", "pool_observations")
SHOWN = 100
"""Rows of the table in the metadata, the stalest first."""


@dg.multi_asset_check(
    name="market_freshness",
    specs=[
        dg.AssetCheckSpec(
            FRESH, asset=asset, description="Every newest scrape is within its time to live, and none failed since."
        )
        for asset in CHECKED
    ],
    can_subset=True,
)
def market_freshness(
    context: dg.AssetCheckExecutionContext, settings: SettingsParam, database: DatabaseParam
) -> Iterator[dg.AssetCheckResult]:
    """Warn of the sources and accounts whose newest scrape is older than its time to live, or whose last one failed."""
    from spotlab_pipelines.market.staleness import newest_scrapes

    scrapes = newest_scrapes(database, settings, now=datetime.now(UTC))
    for key in sorted(context.selected_asset_check_keys):
        asset = key.asset_key.to_user_string()
        of_asset = scrapes[scrapes["source"] == asset].sort_values("age_s", ascending=False, kind="stable")
        warned = of_asset[of_asset["stale"] | (of_asset["error"] != "")]
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=warned.empty,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "checked": len(of_asset),
                "stale": int(of_asset["stale"].sum()),
                "failed_since": int((of_asset["error"] != "").sum()),
                "never_scraped": int(of_asset["fetched_at"].isna().sum()),
                "scrapes": dg.MetadataValue.md(markdown_table((of_asset if warned.empty else warned).head(SHOWN))),
            },
        )
