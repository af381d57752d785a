"""Instance types, zones and the price list through boto3, against the recording itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from spotlab_pipelines_tests.local_aws.conftest import Clients
from spotlab_pipelines_tests.local_aws.recording import Recording


def term(field: str, value: str) -> dict[str, str]:
    return {"Type": "TERM_MATCH", "Field": field, "Value": value}


def offers(pricing: Any, *terms: dict[str, str], **parameters: Any) -> list[dict[str, Any]]:
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonEC2", Filters=list(terms), PaginationConfig=parameters
    )
    return [json.loads(entry) for page in pages for entry in page["PriceList"]]


def test_every_offered_type_comes_once_over_pages(clients: Clients, market: Recording) -> None:
    pages = list(clients("ec2").get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 7}))
    names = [entry["InstanceType"] for page in pages for entry in page["InstanceTypes"]]
    assert names == market.offered("us-east-1")
    assert len(pages) == -(-len(names) // 7)


def test_a_type_has_the_recordings_figures(clients: Clients, market: Recording) -> None:
    ec2 = clients("ec2")
    (told,) = ec2.describe_instance_types(InstanceTypes=["g4dn.xlarge"])["InstanceTypes"]
    recorded = market.instance_types["g4dn.xlarge"]
    for part in ("VCpuInfo", "MemoryInfo", "ProcessorInfo", "GpuInfo", "NetworkInfo", "CurrentGeneration"):
        assert _within(told[part], recorded[part]), part
    assert told["GpuInfo"]["Gpus"][0]["Name"] == "T4"


def _within(told: Any, recorded: Any) -> bool:
    """Whether everything told is recorded so; the recording may know fields that botocore does not."""
    if isinstance(told, dict):
        return all(_within(value, recorded[key]) for key, value in told.items())
    if isinstance(told, list):
        return len(told) == len(recorded) and all(map(_within, told, recorded))
    return told == recorded


def test_an_unknown_type_or_a_bad_page_size_is_refused(clients: Clients) -> None:
    ec2 = clients("ec2")
    with pytest.raises(ClientError, match="InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["m5.large", "m5.gigantic"])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_instance_types(MaxResults=101)
    assert clients("ec2", "eu-central-1").describe_instance_types()["InstanceTypes"] == []


def test_zones_can_be_filtered(clients: Clients) -> None:
    ec2 = clients("ec2", "eu-west-1")
    (zone,) = ec2.describe_availability_zones(ZoneIds=["euw1-az2"])["AvailabilityZones"]
    by_name = ec2.describe_availability_zones(Filters=[{"Name": "zone-name", "Values": [zone["ZoneName"]]}])
    assert by_name["AvailabilityZones"] == [zone]
    assert (zone["ZoneId"], zone["RegionName"], zone["State"]) == ("euw1-az2", "eu-west-1", "available")


def test_the_price_list_holds_every_recorded_price_in_awss_shape(clients: Clients, market: Recording) -> None:
    wanted = market.on_demand[market.on_demand["region"] == "us-east-1"]
    plain = {"regionCode": "us-east-1", "tenancy": "Shared", "capacitystatus": "Used", "marketoption": "OnDemand"}
    listed = offers(clients("pricing"), *(term(name, value) for name, value in plain.items()))
    operations = ("RunInstances", "RunInstances:0002")
    found = [offer for offer in listed if offer["product"]["attributes"]["operation"] in operations]
    prices = {}
    for offer in found:
        attributes = offer["product"]["attributes"]
        (of_term,) = offer["terms"]["OnDemand"].values()
        (dimension,) = of_term["priceDimensions"].values()
        assert dimension["unit"] == "Hrs"
        prices[attributes["instanceType"], attributes["operatingSystem"]] = float(dimension["pricePerUnit"]["USD"])
    assert len(found) == len(wanted)
    assert prices == {
        (row.instance_type, row.operating_system): pytest.approx(row.usd_per_hour)
        for row in wanted.itertuples(index=False)
    }


def test_without_filters_a_type_has_neighbours_with_other_prices(clients: Clients) -> None:
    terms = (term("instanceType", "m5.large"), term("regionCode", "us-east-1"), term("operatingSystem", "Linux"))
    found = offers(clients("pricing"), *terms, PageSize=1)
    names = ("tenancy", "capacitystatus", "marketoption", "preInstalledSw")
    assert len({tuple(offer["product"]["attributes"][name] for name in names) for offer in found}) == len(found) == 6
    by_location = offers(clients("pricing"), term("location", "US East (N. Virginia)"), *terms)
    assert len(by_location) == 6
    assert offers(clients("pricing"), term("noSuchField", "x")) == []


def test_windows_has_several_prices_that_differ_by_operation_alone(clients: Clients) -> None:
    alike = {
        "instanceType": "m5.large",
        "regionCode": "us-east-1",
        "operatingSystem": "Windows",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }
    found = offers(clients("pricing"), *(term(name, value) for name, value in alike.items()))
    operations = sorted(offer["product"]["attributes"]["operation"] for offer in found)
    assert operations == ["RunInstances:0002", "RunInstances:0002:box", "RunInstances:0800"]


def test_pricing_lives_in_three_regions_and_sells_ec2_only(clients: Clients) -> None:
    assert clients("pricing", "ap-south-1").get_products(ServiceCode="AmazonEC2", MaxResults=1)["PriceList"]
    with pytest.raises(ClientError, match="no endpoint"):
        clients("pricing", "eu-west-1").get_products(ServiceCode="AmazonEC2")
    with pytest.raises(ClientError, match="NotFoundException"):
        clients("pricing").get_products(ServiceCode="AmazonS3")
