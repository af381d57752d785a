"""DescribeSpotPriceHistory through boto3, against the recording itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from botocore.exceptions import ClientError

from spotlab_pipelines_tests.local_aws.conftest import ACCOUNT, Clients
from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.server import LocalAws
from spotlab_pipelines_tests.local_aws.zones import account_zones

POOL = ["instance_type", "az_id", "product"]


def listing(ec2: Any, region: str = "us-east-1", **parameters: Any) -> tuple[pd.DataFrame, list[int]]:
    """A whole listing by zone id, repeats included, and the sizes of its pages."""
    rows, sizes, token = [], [], None
    for _ in range(2000):
        page = ec2.describe_spot_price_history(**parameters, **({"NextToken": token} if token else {}))
        rows += page["SpotPriceHistory"]
        sizes.append(len(page["SpotPriceHistory"]))
        token = page["NextToken"]
        if token == "":
            break
    zones = account_zones(ACCOUNT, region)
    columns = {
        "instance_type": [row["InstanceType"] for row in rows],
        "az_id": [zones[row["AvailabilityZone"]] for row in rows],
        "product": [row["ProductDescription"].removesuffix(" (Amazon VPC)") for row in rows],
        "changed_at": pd.to_datetime([row["Timestamp"] for row in rows], utc=True),
        "price": [float(row["SpotPrice"]) for row in rows],
    }
    return pd.DataFrame(columns), sizes


def expected(market: Recording, start: datetime, end: datetime, **equal: str) -> pd.DataFrame:
    """The change points within [start, end] and, per pool, the last one before."""
    prices = market.prices[(market.prices["region"] == "us-east-1") & (market.prices["changed_at"] <= end)]
    for column, value in equal.items():
        prices = prices[prices[column] == value]
    before = prices[prices["changed_at"] <= start].drop_duplicates(POOL, keep="last")
    rows = pd.concat([before, prices[prices["changed_at"] > start]])
    return rows.rename(columns={"spot_price_usd_per_hour": "price"})


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    columns = [*POOL, "changed_at", "price"]
    left, right = (
        frame[columns].drop_duplicates().sort_values(columns, ignore_index=True) for frame in (found, wanted)
    )
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


def test_a_week_of_a_type_is_the_recordings_with_the_opening_prices(clients: Clients, market: Recording) -> None:
    now = datetime.now(UTC)
    start = now - timedelta(days=7)
    found, _ = listing(
        clients("ec2"), StartTime=start, InstanceTypes=["m5.large"], ProductDescriptions=["Linux/UNIX"], EndTime=now
    )
    same(found, expected(market, start, now, instance_type="m5.large", product="Linux/UNIX"))
    opening = found[found["changed_at"] <= start]
    assert sorted(opening["az_id"]) == sorted(found["az_id"].unique())
    assert found["changed_at"].is_monotonic_decreasing


def test_small_pages_hold_every_row_newest_first_with_an_empty_and_a_repeating_page(
    clients: Clients, market: Recording
) -> None:
    now = datetime.now(UTC)
    start = now - timedelta(days=2)
    found, sizes = listing(clients("ec2"), StartTime=start, InstanceTypes=["c5.xlarge"], EndTime=now, MaxResults=10)
    same(found, expected(market, start, now, instance_type="c5.xlarge"))
    assert max(sizes) == 10
    assert sizes[1] == 0, "a page may be empty while its token goes on"
    assert len(found) > len(found.drop_duplicates()), "a page may repeat a row"
    assert all(later <= earlier for earlier, later in pairwise(found["changed_at"]))


def test_the_future_of_the_recording_is_not_told(clients: Clients, market: Recording) -> None:
    assert market.prices["changed_at"].max() > datetime.now(UTC)
    found, _ = listing(clients("ec2"), EndTime=datetime.now(UTC) + timedelta(days=30), InstanceTypes=["m5.large"])
    assert found["changed_at"].max() <= datetime.now(UTC)


def test_without_a_start_everything_recorded_comes(clients: Clients, market: Recording) -> None:
    found, _ = listing(clients("ec2"), InstanceTypes=["r5.large"])
    assert found["changed_at"].min() == market.prices["changed_at"].min()


def test_products_come_with_and_without_vpc(clients: Clients) -> None:
    ec2, start = clients("ec2"), datetime.now(UTC) - timedelta(days=1)
    plain = ec2.describe_spot_price_history(StartTime=start, ProductDescriptions=["Windows"], MaxResults=5)
    in_vpc = ec2.describe_spot_price_history(
        StartTime=start, ProductDescriptions=["Windows (Amazon VPC)"], MaxResults=5
    )
    assert {row["ProductDescription"] for row in plain["SpotPriceHistory"]} == {"Windows"}
    assert {row["ProductDescription"] for row in in_vpc["SpotPriceHistory"]} == {"Windows (Amazon VPC)"}
    assert [row["SpotPrice"] for row in plain["SpotPriceHistory"]] == [
        row["SpotPrice"] for row in in_vpc["SpotPriceHistory"]
    ]


def test_zones_are_asked_for_and_told_by_the_accounts_own_names(clients: Clients, market: Recording) -> None:
    ec2, now = clients("ec2"), datetime.now(UTC)
    told = {zone["ZoneName"]: zone["ZoneId"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    assert told == account_zones(ACCOUNT, "us-east-1")
    name = next(name for name, zone_id in told.items() if zone_id == "use1-az2")
    start = now - timedelta(days=3)
    query: dict[str, Any] = {"StartTime": start, "EndTime": now, "InstanceTypes": ["m5.large"]}
    found, _ = listing(ec2, **query, AvailabilityZone=name)
    same(found, expected(market, start, now, instance_type="m5.large", az_id="use1-az2"))
    by_filter, _ = listing(ec2, **query, Filters=[{"Name": "availability-zone", "Values": [name]}])
    same(by_filter, found)


def test_two_accounts_name_the_same_zones_differently() -> None:
    aliases = {tuple(account_zones(f"{number:012d}", "us-east-1").items()) for number in range(20)}
    assert len(aliases) > 10
    assert len({tuple(sorted(zone_id for _, zone_id in alias)) for alias in aliases}) == 1


def test_filters_take_wildcards_and_unknown_ones_are_refused(clients: Clients) -> None:
    ec2, start = clients("ec2"), datetime.now(UTC) - timedelta(hours=12)
    filters = [
        {"Name": "instance-type", "Values": ["c6g.*"]},
        {"Name": "product-description", "Values": ["Linux/UNIX (Amazon VPC)"]},
    ]
    found, _ = listing(ec2, StartTime=start, Filters=filters)
    assert set(found["instance_type"]) == {"c6g.large", "c6g.xlarge", "c6g.2xlarge", "c6g.4xlarge"}
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_spot_price_history(Filters=[{"Name": "colour", "Values": ["red"]}])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_spot_price_history(AvailabilityZone="us-east-1z")
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_spot_price_history(NextToken="nonsense")


def test_a_token_belongs_to_its_question(clients: Clients) -> None:
    ec2 = clients("ec2")
    token = ec2.describe_spot_price_history(InstanceTypes=["m5.large"], MaxResults=5)["NextToken"]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_spot_price_history(InstanceTypes=["c5.large"], MaxResults=5, NextToken=token)


def test_a_region_without_prices_answers_with_none(clients: Clients) -> None:
    found, sizes = listing(clients("ec2", "eu-central-1"), "eu-central-1")
    assert (len(found), sizes) == (0, [0])


def test_malformed_prices_can_be_injected(local_aws: LocalAws, clients: Clients) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for price in ("0", "-1", "NaN"):
        local_aws.inject_price(
            region="us-east-1", instance_type="m5.large", az_id="use1-az1", price=price, changed_at=tomorrow
        )
    page = clients("ec2").describe_spot_price_history(InstanceTypes=["m5.large"], MaxResults=5)["SpotPriceHistory"]
    assert [row["SpotPrice"] for row in page[:3]] == ["0", "-1", "NaN"]
    assert page[0]["Timestamp"] > datetime.now(UTC)
    other = clients("ec2").describe_spot_price_history(InstanceTypes=["c5.large"], MaxResults=5)["SpotPriceHistory"]
    assert float(other[0]["SpotPrice"]) > 0
    local_aws.clear_faults()
    page = clients("ec2").describe_spot_price_history(InstanceTypes=["m5.large"], MaxResults=5)["SpotPriceHistory"]
    assert float(page[0]["SpotPrice"]) > 0


def test_a_week_of_a_region_takes_seconds_of_work(clients: Clients) -> None:
    began = time.process_time()
    found, _ = listing(clients("ec2"), StartTime=datetime.now(UTC) - timedelta(days=7))
    assert len(found) > 5000
    assert time.process_time() - began < 10
