"""The fleet: what EC2 reports is what `instances` holds, and nobody's steering is overwritten."""

import dataclasses
from datetime import UTC, datetime

import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts import zones
from spotlab_pipelines.accounts.fleet import load_fleet, sync_fleet
from spotlab_pipelines.accounts.frames import check_frame, fleet_schema
from spotlab_pipelines.accounts.policies import SessionPolicy, allow
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.spot_requests import read_spot_requests
from spotlab_pipelines.accounts.zones import availability_zones
from spotlab_pipelines.database.tables import Instance
from spotlab_pipelines.errors import SourceMalformed, Throttled
from spotlab_pipelines_tests.accounts.registering import FLEET, count_calls, register_in_aws
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance

A, B = "111122223333", "444455556666"
IRELAND = FleetInstance("m5.large", "eu-west-1", "euw1-az1", product="Windows", tags={"team": "api", "n": "ä"})

ANYTHING = SessionPolicy("anything", (allow("*"),))
"""What only an owner does to instances; no session of ours may."""


def stored_states(engine):
    with engine.connect() as connection:
        return dict(connection.execute(sa.select(Instance.instance_id, Instance.state)).tuples().all())


def test_the_fleet_of_all_regions_is_read_with_zone_ids_and_products(engine, local_aws):
    register_in_aws(engine, local_aws, A, fleet=[*FLEET, IRELAND], regions=["us-east-1", "eu-west-1"])
    fleet = sync_fleet(AccountSessions(engine), engine, A)
    columns = ["region", "az_id", "instance_type", "product", "lifecycle", "state"]
    assert sorted(fleet[columns].itertuples(index=False, name=None)) == [
        ("eu-west-1", "euw1-az1", "m5.large", "Windows", "spot", "running"),
        ("us-east-1", "use1-az1", "m5.large", "Linux/UNIX", "spot", "running"),
        ("us-east-1", "use1-az2", "c5.xlarge", "Linux/UNIX", "on-demand", "running"),
    ]
    spot = fleet["lifecycle"] == "spot"
    assert fleet["spot_request_id"].notna().equals(spot)
    assert fleet.loc[fleet["region"] == "eu-west-1", "tags"].item().items() >= IRELAND.tags.items()
    assert (fleet["launched_at"] <= datetime.now(UTC)).all()


def test_the_stored_fleet_is_the_one_that_was_read_with_its_steering(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    read = sync_fleet(AccountSessions(engine), engine, A)
    loaded = load_fleet(engine, A)
    steering = ["assigned_version", "pipeline_mode", "shadow"]
    expected = read.sort_values("instance_id", ignore_index=True)
    pd.testing.assert_frame_equal(loaded.drop(columns=steering), expected)
    assert loaded[steering].isna().sum().tolist() == [2, 0, 0]
    assert loaded["pipeline_mode"].tolist() == ["LINEAR", "LINEAR"]
    assert loaded["shadow"].tolist() == [False, False]


def test_a_sync_overwrites_no_steering_and_marks_what_is_gone(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    first = sync_fleet(sessions, engine, A)
    kept, gone = first["instance_id"]
    with engine.begin() as connection:
        connection.execute(sa.update(Instance).values(shadow=True, pipeline_mode="CLUSTER"))
    sessions.get_ec2_client(A, "us-east-1", policy=ANYTHING).terminate_instances(InstanceIds=[gone])
    (new,) = local_aws.add_instances(A, [dataclasses.replace(FLEET[0], az_id="use1-az3")])
    sync_fleet(sessions, engine, A)
    assert stored_states(engine) == {kept: "running", gone: "terminated", new: "running"}
    steering = load_fleet(engine, A).set_index("instance_id")[["shadow", "pipeline_mode"]]
    assert steering.loc[kept].tolist() == [True, "CLUSTER"]
    assert steering.loc[new].tolist() == [False, "LINEAR"]


def test_stopped_instances_are_kept_but_not_evaluated(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    on_demand = sync_fleet(sessions, engine, A).query("lifecycle == 'on-demand'")["instance_id"].item()
    sessions.get_ec2_client(A, "us-east-1", policy=ANYTHING).stop_instances(InstanceIds=[on_demand])
    sync_fleet(sessions, engine, A)
    assert stored_states(engine)[on_demand] in ("stopping", "stopped")
    assert on_demand not in set(load_fleet(engine, A)["instance_id"])


def test_a_region_that_fails_fails_the_account_and_changes_nothing(engine, local_aws):
    register_in_aws(engine, local_aws, A, fleet=[*FLEET, IRELAND], regions=["us-east-1", "eu-west-1"])
    sessions = AccountSessions(engine)
    sync_fleet(sessions, engine, A)
    before = stored_states(engine)
    local_aws.add_fault("DescribeInstances", region="eu-west-1", times=None, code="RequestLimitExceeded", status=503)
    with pytest.raises(Throttled, match="eu-west-1"):
        sync_fleet(sessions, engine, A)
    assert stored_states(engine) == before


def answer(inside):
    return (
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId>'
        f"<reservationSet>{inside}</reservationSet></DescribeInstancesResponse>"
    )


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ("<item><reservationId>r-1</reservationId></item>", "a list of Instances, got one with ReservationId only"),
        ("<item><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item>", "InstanceType"),
    ],
)
def test_reservations_of_another_shape_are_refused_and_change_nothing(engine, local_aws, inside, says):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    sync_fleet(sessions, engine, A)
    before = stored_states(engine)
    local_aws.add_fault("DescribeInstances", status=200, body=answer(inside))
    with pytest.raises(SourceMalformed, match=f"DescribeInstances of account {A} in us-east-1: expected .*{says}"):
        sync_fleet(sessions, engine, A)
    assert stored_states(engine) == before


def test_zones_of_another_shape_are_refused(engine, local_aws):
    register_in_aws(engine, local_aws, A)
    body = '<DescribeAvailabilityZonesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"/>'
    local_aws.add_fault("DescribeAvailabilityZones", status=200, body=body)
    with pytest.raises(SourceMalformed, match=f"DescribeAvailabilityZones of account {A} in us-east-1: expected zones"):
        availability_zones(AccountSessions(engine), A, "us-east-1")


def test_an_empty_account_is_an_empty_fleet_of_the_same_shape(engine, local_aws):
    register_in_aws(engine, local_aws, A, fleet=[])
    sync_fleet(AccountSessions(engine), engine, A)
    fleet = load_fleet(engine, A)
    assert fleet.empty
    check_frame(fleet_schema(), fleet, "empty")


def test_zone_names_are_each_accounts_own_and_ids_are_shared(engine, local_aws):
    for account_id in (A, B):
        register_in_aws(engine, local_aws, account_id)
    sessions = AccountSessions(engine)
    mappings = [availability_zones(sessions, account_id, "us-east-1") for account_id in (A, B)]
    assert set(mappings[0].values()) == set(mappings[1].values())
    assert mappings[0] != mappings[1]


def test_zones_are_asked_for_once_and_again_for_a_name_that_is_new_or_after_a_while(engine, local_aws, monkeypatch):
    register_in_aws(engine, local_aws, A)
    sessions = AccountSessions(engine)
    asked = count_calls(local_aws, monkeypatch, "DescribeAvailabilityZones")
    for _ in range(2):
        sync_fleet(sessions, engine, A)
    zones_of = availability_zones(sessions, A, "us-east-1", naming=["us-east-1a", ""])
    assert len(asked) == 1
    assert availability_zones(sessions, A, "us-east-1", naming=["us-east-1x"]) == zones_of
    assert len(asked) == 2
    monkeypatch.setattr(zones, "KEPT_FOR_S", 0.0)
    availability_zones(sessions, A, "us-east-1")
    assert len(asked) == 3


def test_spot_requests_tell_what_ec2_interrupted(engine, local_aws):
    account = register_in_aws(engine, local_aws, A, fleet=[FLEET[0], dataclasses.replace(FLEET[0], az_id="use1-az2")])
    sessions = AccountSessions(engine)
    fleet = sync_fleet(sessions, engine, A)
    interrupted = fleet["instance_id"].iloc[0]
    before = read_spot_requests(sessions, account)
    local_aws.interrupt(A, "us-east-1", interrupted)
    after = read_spot_requests(sessions, account).set_index("instance_id")
    running = set(fleet["instance_id"])
    assert running <= set(before["instance_id"])
    untouched = before[before["instance_id"].isin(running)]
    assert untouched["interrupted"].tolist() == [False, False]
    assert untouched["ended_at"].isna().tolist() == [True, True]
    (end,) = after[after.index == interrupted].to_dict("records")
    assert (end["interrupted"], end["status_code"]) == (True, "instance-terminated-no-capacity")
    assert end["ended_at"] >= end["started_at"]
    ended = after[after["ended_at"].notna()]
    assert (ended["ended_at"] >= ended["started_at"]).all()
    assert set(after["az_id"]) <= set(availability_zones(sessions, A, "us-east-1").values())
