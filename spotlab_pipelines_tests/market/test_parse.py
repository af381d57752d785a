"""The parsers take the documented shapes and nothing else, and say what was expected and what came."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import SourceMalformed
from spotlab_pipelines.market.catalogue import all_prices
from spotlab_pipelines.market.frames import ON_DEMAND_COLUMNS, PRICE_COLUMNS
from spotlab_pipelines.market.parse import (
    CLOCK_SKEW,
    on_demand_attributes,
    parse_instance_types,
    parse_price_history,
    parse_price_list,
)
from spotlab_pipelines.market.pricing import pricing_region

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
ZONES = {"us-east-1a": "use1-az4", "us-east-1b": "use1-az1"}


def record(**changes):
    return {
        "InstanceType": "g4dn.xlarge",
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "ProcessorInfo": {"SupportedArchitectures": ["i386", "x86_64"]},
        "GpuInfo": {"Gpus": [{"Name": "T4", "Manufacturer": "NVIDIA", "Count": 1}]},
        "CurrentGeneration": True,
        "NetworkInfo": {"NetworkPerformance": "Up to 25 Gigabit"},
    } | changes


def test_an_instance_type_is_read_with_its_primary_architecture_and_accelerators():
    frame = parse_instance_types([record(), record()])
    assert frame.to_dict("records") == [
        {
            "instance_type": "g4dn.xlarge",
            "vcpus": 4,
            "memory_mib": 16384,
            "architecture": "x86_64",
            "accelerators": "1x NVIDIA T4",
            "current_generation": True,
            "network_performance": "Up to 25 Gigabit",
        }
    ]


def test_a_type_without_accelerators_has_none():
    (kind,) = parse_instance_types([record(GpuInfo={})])["accelerators"]
    assert kind == ""


@pytest.mark.parametrize(
    "records", [[], [{}], [record(VCpuInfo={})], [record(ProcessorInfo={"SupportedArchitectures": []})]]
)
def test_incomplete_instance_types_are_refused(records):
    with pytest.raises(SourceMalformed, match="DescribeInstanceTypes: expected"):
        parse_instance_types(records)


def test_memory_and_vcpus_must_be_above_zero():
    with pytest.raises(SourceMalformed, match="vcpus"):
        parse_instance_types([record(VCpuInfo={"DefaultVCpus": 0})])


def product(name, *prices, unit="Hrs", os="Linux", **attributes):
    dimensions = {str(n): {"unit": unit, "pricePerUnit": {"USD": price}} for n, price in enumerate(prices)}
    return {
        "product": {"attributes": on_demand_attributes("us-east-1", os) | {"instanceType": name} | attributes},
        "terms": {"OnDemand": {"x": {"priceDimensions": dimensions}}},
    }


def test_the_price_list_gives_hourly_prices_above_zero():
    items = [
        json.dumps(product("m5.large", "0.0960000000", os="RHEL")),
        product("c5.large", "0.0000000000", os="RHEL"),
        product("r5.large", "3.5", unit="Quantity", os="RHEL"),
        product("z", os="RHEL") | {"terms": {"Reserved": {}}},
    ]
    frame = parse_price_list(items, region="us-east-1", os="RHEL")
    assert frame.to_dict("records") == [
        {
            "region": "us-east-1",
            "os": "RHEL",
            "instance_type": "m5.large",
            "on_demand_usd_per_hour": 0.096,
            "price_source": "pricing",
        }
    ]


NEIGHBOURS = [
    {"operation": "RunInstances:0800"},
    {"operation": "RunInstances:0002:box"},
    {"operation": "RunInstances:0006", "preInstalledSw": "SQL Std"},
    {"operation": "RunInstances"},
    {"marketoption": "CapacityBlock"},
    {"marketoption": "Reserved"},
    {"capacitystatus": "UnusedCapacityReservation"},
    {"tenancy": "Dedicated"},
    {"operatingSystem": "Linux"},
    {"regionCode": "us-east-1-bos-1"},
]


@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=lambda neighbour: " ".join(neighbour.values()))
def test_a_products_neighbours_have_no_say_in_its_price(neighbour):
    """The API is asked to filter, and not trusted to have done so."""
    items = [product("m5.large", "0.188", os="Windows"), product("m5.large", "0.096", os="Windows", **neighbour)]
    for listed in (items, items[::-1]):
        frame = parse_price_list(listed, region="us-east-1", os="Windows")
        assert frame["on_demand_usd_per_hour"].tolist() == [0.188]


def test_a_product_that_does_not_say_what_it_is_is_not_taken_for_the_plain_one():
    vague = product("c5.large", "1", os="SUSE")
    del vague["product"]["attributes"]["marketoption"]
    frame = parse_price_list([vague, product("m5.large", "1", os="SUSE")], region="us-east-1", os="SUSE")
    assert frame["instance_type"].tolist() == ["m5.large"]


def test_a_price_list_of_neighbours_alone_is_refused():
    with pytest.raises(SourceMalformed, match=r"expected a product with .*RunInstances:0002.*, got none among 2"):
        parse_price_list([product("m5.large", "1"), product("c5.large", "1")], region="us-east-1", os="Windows")


def test_an_empty_price_list_has_no_rows_and_the_same_shape():
    empty = parse_price_list([], region="us-east-1", os="SUSE")
    full = parse_price_list([product("m5.large", "1", os="SUSE")], region="us-east-1", os="SUSE")
    assert empty.empty
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)


@pytest.mark.parametrize("items", [["{"], [{"product": {}}], [product("m5.large", "free")]])
def test_another_price_list_is_refused(items):
    with pytest.raises(SourceMalformed, match="expected"):
        parse_price_list(items, region="us-east-1", os="Linux")


def test_two_prices_for_one_type_contradict_each_other():
    with pytest.raises(SourceMalformed, match="unique"):
        parse_price_list([product("m5.large", "1"), product("m5.large", "2")], region="us-east-1", os="Linux")


def change(price: Any = "0.0415", minutes: float = -60, zone="us-east-1a", product="Linux/UNIX", kind="m5.large"):
    return {
        "AvailabilityZone": zone,
        "InstanceType": kind,
        "ProductDescription": product,
        "SpotPrice": price,
        "Timestamp": NOW + timedelta(minutes=minutes),
    }


def history(*rows):
    return parse_price_history(rows, region="us-east-1", zone_ids=ZONES, now=NOW)


def test_price_changes_are_read_by_zone_id_sorted_and_once():
    frame = history(change(minutes=-5), change("0.04", -60), change("0.04", -60), change("0.05", -9, "us-east-1b"))
    assert list(frame.columns) == list(PRICE_COLUMNS)
    assert frame["az_id"].tolist() == ["use1-az1", "use1-az4", "use1-az4"]
    assert frame["spot_price_usd_per_hour"].tolist() == [0.05, 0.04, 0.0415]
    assert frame["changed_at"].is_monotonic_increasing is False
    assert frame["changed_at"].dtype == "datetime64[us, UTC]"


def test_the_vpc_suffix_of_products_is_dropped():
    assert history(change(product="Linux/UNIX (Amazon VPC)"))["product"].tolist() == ["Linux/UNIX"]


def test_no_rows_give_an_empty_frame_of_the_same_shape():
    pd.testing.assert_series_equal(history().dtypes, history(change()).dtypes)


@pytest.mark.parametrize("price", ["0", "0.000000", "-0.01", "NaN", "nan", "inf", "", "cheap", None, np.nan])
def test_a_price_that_cannot_be_is_refused_with_pool_and_row(price):
    with pytest.raises(SourceMalformed, match="a price above 0") as caught:
        history(change(), change(price, zone="us-east-1b", kind="c5.large"))
    assert "c5.large Linux/UNIX in us-east-1b in row 1" in str(caught.value)


def test_a_price_from_the_future_is_refused_beyond_clock_skew():
    skew = CLOCK_SKEW.total_seconds() / 60
    assert len(history(change(minutes=skew - 1))) == 1
    with pytest.raises(SourceMalformed, match=r"a time up to .* for pool m5.large"):
        history(change(minutes=skew + 1))


def test_a_zone_that_is_not_the_accounts_is_refused():
    with pytest.raises(SourceMalformed, match="us-east-1z"):
        history(change(zone="us-east-1z"))


@pytest.mark.parametrize("field", ["AvailabilityZone", "InstanceType", "ProductDescription", "SpotPrice", "Timestamp"])
def test_a_row_without_a_field_is_refused(field):
    row = change()
    del row[field]
    with pytest.raises(SourceMalformed, match=field):
        history(row)


def test_chinas_prices_are_in_its_own_currency():
    item = product("m5.large", "0.1")
    (dimension,) = item["terms"]["OnDemand"]["x"]["priceDimensions"].values()
    dimension["pricePerUnit"] = {"CNY": "0.6700000000"}
    frame = parse_price_list([item], region="us-east-1", os="Linux", currency="CNY")
    assert frame["on_demand_usd_per_hour"].tolist() == [0.67]
    assert parse_price_list([item], region="us-east-1", os="Linux").empty


@pytest.mark.parametrize(
    ("preferred", "partition", "asked"),
    [
        ("eu-central-1", "aws", "eu-central-1"),
        ("sa-east-1", "aws", "sa-east-1"),
        ("cn-northwest-1", "aws", "us-east-1"),
        ("us-east-1", "aws-cn", "cn-northwest-1"),
        ("us-east-1", "aws-us-gov", None),
    ],
)
def test_prices_are_asked_for_where_the_partition_tells_them(preferred, partition, asked):
    assert pricing_region(preferred, partition) == asked


def test_where_there_is_no_price_list_there_are_no_prices_but_one_that_is_empty_is_an_error():
    assert list(all_prices([], ["us-gov-west-1"])) == list(ON_DEMAND_COLUMNS)
    with pytest.raises(SourceMalformed, match="on-demand prices in us-east-1, got none"):
        all_prices([all_prices([], [])], ["us-east-1"])
