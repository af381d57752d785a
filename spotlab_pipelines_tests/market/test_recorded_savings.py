"""The recorded market of 2021 agrees with itself: what Spot saves by its prices is what the Advisor says it saves.

What a person compares: a type's saving in the Advisor with 1 - spot / on-demand, where spot is what the type costs now
in its cheapest zone. The Advisor is of 2021-02-10 (us-east-1, Linux), prices are the current ones a week into the
recording (2021-03-09), on-demand prices are of 2022-06, the oldest table there is. Everything is read by the product.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.features.windows import price_windows
from spotlab_pipelines.market.fallback import on_demand_of
from spotlab_pipelines.market.parse import on_demand_attributes, parse_price_history, parse_price_list
from spotlab_pipelines.market.parse_advisor import parse_advisor
from spotlab_pipelines_tests.recorded import RECORDED, needs_recorded_data

pytestmark = needs_recorded_data
REGION, LINUX = "us-east-1", "Linux/UNIX"
NOW = datetime(2021, 3, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def advisor() -> pd.DataFrame:
    feed = parse_advisor((RECORDED / "spot-advisor" / "spot-advisor-data_2021-02-10.json").read_bytes())
    return feed[(feed["region"] == REGION) & (feed["os"] == "Linux")].reset_index(drop=True)


@pytest.fixture(scope="module")
def on_demand() -> pd.DataFrame:
    table = pd.read_csv(RECORDED / "on-demand" / "us-east-1_on-demand_asof_2022-06-22.csv")
    attributes = on_demand_attributes(REGION, "Linux")
    items: list[dict[str, Any]] = [
        {
            "product": {"attributes": attributes | {"instanceType": name}},
            "terms": {"OnDemand": {"x": {"priceDimensions": {"y": {"unit": "Hrs", "pricePerUnit": {"USD": usd}}}}}},
        }
        for name, usd in zip(table["instance_type"], table["od_usd_per_hour"].astype(str), strict=True)
    ]
    return parse_price_list(items, region=REGION, os="Linux")


@pytest.fixture(scope="module")
def pools() -> pd.DataFrame:
    """Every Linux pool with its price at NOW."""
    prices = pd.read_parquet(RECORDED / "price-history" / "us-east-1_2021-03-02_2021-04-30.parquet")
    prices = prices[(prices["product"] == LINUX) & (prices["ts"] <= pd.Timestamp(NOW))]
    names = {"az": "AvailabilityZone", "instance_type": "InstanceType", "spot_price": "SpotPrice", "ts": "Timestamp"}
    columns = [prices[column].tolist() for column in names]
    rows = [
        {"ProductDescription": LINUX, **dict(zip(names.values(), row, strict=True))}
        for row in zip(*columns, strict=True)
    ]
    zone_ids = {name: f"use1-az{number}" for number, name in enumerate(sorted(prices["az"].unique()), 1)}
    changes = parse_price_history(rows, region=REGION, zone_ids=zone_ids, now=NOW)
    return price_windows(changes, NOW, timedelta(days=7))


def test_savings_by_price_are_the_advisors(advisor, on_demand, pools):
    spot = pools.groupby("instance_type")["spot_price_usd_per_hour"].min()
    listed = on_demand.set_index("instance_type")["on_demand_usd_per_hour"]
    told = advisor.set_index("instance_type")["savings_pct"] / 100
    joined = pd.concat({"paid": 1 - spot / listed, "told": told}, axis=1, join="inner").dropna()
    correlation = float(np.corrcoef(joined["paid"], joined["told"])[0, 1])
    print(f"1 - spot/on-demand against the Advisor's savings: r = {correlation:.3f} over {len(joined)} types")
    assert len(joined) == 252
    assert correlation >= 0.86


def test_an_estimated_on_demand_price_is_near_the_listed_one(advisor, on_demand, pools):
    """What the fallback would have said of the types that the price list has after all."""
    listed, origin = on_demand_of(pools, on_demand=on_demand, advisor=advisor)
    estimated, source = on_demand_of(pools, on_demand=on_demand.iloc[:0], advisor=advisor)
    both = (np.asarray(origin) == "pricing") & (np.asarray(source) == "advisor-savings")
    error = pd.Series(np.abs(estimated / listed - 1)[both]).groupby(pools["instance_type"].to_numpy()[both]).first()
    print(f"estimates of {len(error)} types: half off by {error.median():.2%}, 9 of 10 by {error.quantile(0.9):.2%}")
    assert len(error) == 252
    assert error.median() < 0.01
    assert error.quantile(0.9) < 0.10
