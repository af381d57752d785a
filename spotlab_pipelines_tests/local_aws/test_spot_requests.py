"""Spot instances, their requests, and how they end, through boto3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from botocore.exceptions import ClientError

from spotlab_pipelines_tests.local_aws.accounts import IMAGES, FleetInstance
from spotlab_pipelines_tests.local_aws.client import LocalAwsError
from spotlab_pipelines_tests.local_aws.conftest import ACCOUNT, EXTERNAL_ID, Clients, session_of
from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.server import LocalAws
from spotlab_pipelines_tests.local_aws.zones import account_zones

SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
LAUNCH: dict[str, Any] = {
    "ImageId": IMAGES["Linux/UNIX"],
    "InstanceType": "m5.large",
    "MinCount": 1,
    "MaxCount": 1,
    "InstanceMarketOptions": SPOT,
}


def instance_of(ec2: Any, instance_id: str) -> dict[str, Any]:
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def requests_of(ec2: Any, **parameters: Any) -> list[dict[str, Any]]:
    pages = ec2.get_paginator("describe_spot_instance_requests").paginate(**parameters)
    return [row for page in pages for row in page["SpotInstanceRequests"]]


def test_a_fleet_runs_where_and_as_what_it_was_asked_for(local_aws: LocalAws, clients: Clients) -> None:
    fleet = [
        FleetInstance("m5.large", "us-east-1", "use1-az2", tags={"team": "search"}, age_h=5.0),
        FleetInstance("c5.large", "us-east-1", "use1-az4", product="Windows", lifecycle="on-demand"),
        FleetInstance("r5.large", "us-east-1", "use1-az1", product="Red Hat Enterprise Linux"),
    ]
    ids = local_aws.add_instances(ACCOUNT, fleet)
    ec2 = clients("ec2")
    spot, on_demand, red_hat = (instance_of(ec2, instance_id) for instance_id in ids)
    zones = account_zones(ACCOUNT, "us-east-1")
    assert zones[spot["Placement"]["AvailabilityZone"]] == "use1-az2"
    assert (spot["InstanceType"], spot["PlatformDetails"], spot["State"]["Name"]) == (
        "m5.large",
        "Linux/UNIX",
        "running",
    )
    assert spot["InstanceLifecycle"] == "spot"
    assert spot["Tags"] == [{"Key": "team", "Value": "search"}]
    assert spot["LaunchTime"] == pytest.approx(datetime.now(UTC) - timedelta(hours=5), abs=timedelta(minutes=2))
    assert (on_demand["Platform"], on_demand["PlatformDetails"]) == ("windows", "Windows")
    assert "InstanceLifecycle" not in on_demand
    assert "SpotInstanceRequestId" not in on_demand
    assert red_hat["PlatformDetails"] == "Red Hat Enterprise Linux"
    (request,) = requests_of(ec2, SpotInstanceRequestIds=[spot["SpotInstanceRequestId"]])
    assert (request["InstanceId"], request["State"], request["Status"]["Code"]) == (ids[0], "active", "fulfilled")
    assert request["CreateTime"] == spot["LaunchTime"]


def test_a_fleet_has_the_same_ids_after_a_reset_and_instances_of_one_pool_have_their_own(local_aws: LocalAws) -> None:
    fleet = [FleetInstance("m5.large", "us-east-1", "use1-az2")] * 3
    first = local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, fleet=fleet).instance_ids
    local_aws.reset()
    assert local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID, fleet=fleet).instance_ids == first
    assert len(set(first)) == 3


def test_an_instance_run_as_spot_has_a_request(clients: Clients) -> None:
    ec2 = clients("ec2")
    zone = next(name for name, zone_id in account_zones(ACCOUNT, "us-east-1").items() if zone_id == "use1-az6")
    run = ec2.run_instances(**LAUNCH, Placement={"AvailabilityZone": zone})["Instances"][0]
    assert run["InstanceLifecycle"] == "spot"
    (request,) = requests_of(ec2, Filters=[{"Name": "instance-id", "Values": [run["InstanceId"]]}])
    assert request["SpotInstanceRequestId"] == run["SpotInstanceRequestId"]
    assert request["LaunchedAvailabilityZone"] == zone
    assert instance_of(ec2, run["InstanceId"])["SpotInstanceRequestId"] == run["SpotInstanceRequestId"]


def test_an_instance_run_without_market_options_is_on_demand(clients: Clients) -> None:
    launch = {key: value for key, value in LAUNCH.items() if key != "InstanceMarketOptions"}
    run = clients("ec2").run_instances(**launch)["Instances"][0]
    assert "InstanceLifecycle" not in run
    assert "SpotInstanceRequestId" not in run


def test_a_client_token_starts_one_instance(clients: Clients) -> None:
    ec2 = clients("ec2")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: ec2.run_instances(**LAUNCH, ClientToken="once"), range(4)))
    assert len({run["Instances"][0]["InstanceId"] for run in runs}) == 1
    assert len(ec2.describe_instances()["Reservations"]) == 1
    again = ec2.run_instances(**LAUNCH, ClientToken="twice")["Instances"][0]["InstanceId"]
    assert again != runs[0]["Instances"][0]["InstanceId"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        ec2.run_instances(**{**LAUNCH, "InstanceType": "m5.xlarge"}, ClientToken="once")
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.run_instances(**LAUNCH, ClientToken="x" * 65)


def test_a_dry_run_and_an_unknown_type_start_nothing(clients: Clients) -> None:
    ec2 = clients("ec2")
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.run_instances(**LAUNCH, DryRun=True, ClientToken="dry")
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.run_instances(**{**LAUNCH, "InstanceType": "m5.gigantic"})
    assert ec2.describe_instances()["Reservations"] == []


def test_terminating_a_spot_instance_closes_its_request(clients: Clients) -> None:
    ec2 = clients("ec2")
    run = ec2.run_instances(**LAUNCH)["Instances"][0]
    ec2.terminate_instances(InstanceIds=[run["InstanceId"]])
    (request,) = requests_of(ec2, SpotInstanceRequestIds=[run["SpotInstanceRequestId"]])
    assert (request["State"], request["Status"]["Code"]) == ("closed", "instance-terminated-by-user")
    assert request["Status"]["UpdateTime"] >= request["CreateTime"]


def test_an_interruption_shows_in_the_instance_and_in_its_request(local_aws: LocalAws, clients: Clients) -> None:
    ec2 = clients("ec2")
    spot, kept = local_aws.add_instances(
        ACCOUNT,
        [
            FleetInstance("m5.large", "us-east-1", "use1-az2"),
            FleetInstance("m5.large", "us-east-1", "use1-az2", lifecycle="on-demand"),
        ],
    )
    local_aws.interrupt(ACCOUNT, "us-east-1", spot)
    gone = instance_of(ec2, spot)
    assert gone["State"]["Name"] == "terminated"
    assert gone["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    (request,) = requests_of(ec2, Filters=[{"Name": "instance-id", "Values": [spot]}])
    assert request["Status"]["Code"] == "instance-terminated-no-capacity"
    assert instance_of(ec2, kept)["State"]["Name"] == "running"
    for instance_id in (spot, kept, "i-00000000000000000"):
        with pytest.raises(LocalAwsError, match="AwsError"):
            local_aws.interrupt(ACCOUNT, "us-east-1", instance_id)


def test_past_requests_are_shared_out_once_and_told_in_the_accounts_zone_names(
    local_aws: LocalAws, market: Recording
) -> None:
    accounts = {"222222222222": EXTERNAL_ID, "333333333333": "another-id-of-ours", "444444444444": "a-third-id"}
    for account_id, external_id in accounts.items():
        local_aws.add_account(account_id, external_id=external_id)
    now = pd.Timestamp(datetime.now(UTC))
    rows = []
    for account_id, external_id in accounts.items():
        ec2 = session_of(account_id, external_id).client("ec2", region_name="eu-west-1")
        zones = account_zones(account_id, "eu-west-1")
        rows += [row | {"az_id": zones[row["LaunchedAvailabilityZone"]]} for row in requests_of(ec2)]
    past = market.interruptions[market.interruptions["started_at"] <= now]
    past = past[past["region"] == "eu-west-1"]
    assert len(rows) == len(past)
    assert len({row["SpotInstanceRequestId"] for row in rows}) > 0.99 * len(rows)
    told = sorted((row["CreateTime"], row["LaunchSpecification"]["InstanceType"], row["az_id"]) for row in rows)
    recorded = sorted(zip(past["started_at"], past["instance_type"], past["az_id"], strict=True))
    assert told == recorded
    ended = past["ended_at"] <= now
    closed = [row for row in rows if row["State"] == "closed"]
    assert len(closed) == ended.sum()
    assert sorted(row["Status"]["UpdateTime"] for row in closed) == sorted(past.loc[ended, "ended_at"])
    assert {row["Status"]["Code"] for row in rows if row["State"] == "active"} == {"fulfilled"}
    counts = past.loc[ended, "status_code"].value_counts()
    for code in ("instance-terminated-no-capacity", "instance-terminated-by-price", "instance-terminated-by-user"):
        assert sum(row["Status"]["Code"] == code for row in closed) == counts[code]


def test_a_further_account_takes_its_share_and_moves_nothing_else(local_aws: LocalAws) -> None:
    requests = local_aws.app.requests
    requests.accounts.update({"222222222222", "333333333333"})
    before = requests.share("222222222222")
    requests.accounts.add("444444444444")
    after = requests.share("222222222222")
    assert not (after & ~before).any()
    assert 0.2 < requests.share("444444444444").mean() < 0.47


def test_requests_come_in_pages_and_by_filter(clients: Clients) -> None:
    ec2 = clients("ec2")
    of_type = {"Name": "launch.instance-type", "Values": ["m5.*xlarge"]}
    everything = requests_of(ec2, Filters=[of_type])
    assert len(everything) > 100
    assert {row["LaunchSpecification"]["InstanceType"] for row in everything} == {
        "m5.2xlarge",
        "m5.4xlarge",
        "m5.xlarge",
    }
    by_pages = requests_of(ec2, Filters=[of_type], PaginationConfig={"PageSize": 30})
    assert by_pages == everything
    found = requests_of(
        ec2,
        Filters=[
            {"Name": "status-code", "Values": ["instance-terminated-no-*"]},
            {"Name": "launch.instance-type", "Values": ["m5.2xlarge"]},
        ],
    )
    assert found == [
        row
        for row in everything
        if row["Status"]["Code"] == "instance-terminated-no-capacity"
        and row["LaunchSpecification"]["InstanceType"] == "m5.2xlarge"
    ]
    assert found
    with pytest.raises(ClientError, match=r"InvalidSpotInstanceRequestID\.NotFound"):
        requests_of(ec2, SpotInstanceRequestIds=["sir-00000000"])


def test_what_the_local_aws_does_not_do_it_refuses(clients: Clients) -> None:
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        clients("ec2").request_spot_instances(InstanceCount=1)
