"""Faults, the Advisor's feed, the control endpoint and the command line."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.client import LocalAwsClient, LocalAwsError, setup_account
from spotlab_pipelines_tests.local_aws.conftest import ACCOUNT, EXTERNAL_ID, Clients
from spotlab_pipelines_tests.local_aws.server import LocalAws

MODULE = [sys.executable, "-m", "spotlab_pipelines_tests.local_aws"]


def test_the_next_calls_of_an_action_fail_as_told_and_then_no_more(local_aws: LocalAws, clients: Clients) -> None:
    ec2 = clients("ec2")
    local_aws.add_fault("DescribeInstances", times=2, code="RequestLimitExceeded", status=503)
    for _ in range(2):
        with pytest.raises(ClientError, match="RequestLimitExceeded"):
            ec2.describe_instances()
    assert ec2.describe_instances()["Reservations"] == []


def test_botocore_retries_what_it_should(local_aws: LocalAws) -> None:
    local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID)
    local_aws.add_fault("GetCallerIdentity", times=2, code="Throttling", status=400)
    sts = boto3.client("sts", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
    assert sts.get_caller_identity()["Account"] == "123456789012"


def test_a_fault_can_be_kept_to_an_account_or_a_region(local_aws: LocalAws, clients: Clients) -> None:
    local_aws.add_fault("DescribeInstances", times=None, region="eu-west-1", code="InternalError", status=500)
    local_aws.add_fault("DescribeInstances", times=None, account_id="999999999999", code="InternalError", status=500)
    assert clients("ec2").describe_instances()["Reservations"] == []
    for _ in range(3):
        with pytest.raises(ClientError, match="InternalError"):
            clients("ec2", "eu-west-1").describe_instances()
    local_aws.clear_faults()
    assert clients("ec2", "eu-west-1").describe_instances()["Reservations"] == []


def test_a_fault_can_be_slow(local_aws: LocalAws, clients: Clients) -> None:
    ec2 = clients("ec2")
    local_aws.add_fault("DescribeAvailabilityZones", latency_s=0.4)
    began = time.perf_counter()
    assert ec2.describe_availability_zones()["AvailabilityZones"]
    assert time.perf_counter() - began >= 0.4


@pytest.mark.parametrize(
    ("service", "action", "parameters", "rows"),
    [
        ("ec2", "describe_spot_price_history", {"MaxResults": 5}, "SpotPriceHistory"),
        ("ec2", "describe_instances", {"MaxResults": 5}, "Reservations"),
        ("ec2", "describe_instance_types", {"MaxResults": 5}, "InstanceTypes"),
        ("ec2", "describe_spot_instance_requests", {"MaxResults": 5}, "SpotInstanceRequests"),
        ("pricing", "get_products", {"ServiceCode": "AmazonEC2", "MaxResults": 5}, "PriceList"),
    ],
)
def test_pages_can_loop_for_ever(
    local_aws: LocalAws, clients: Clients, service: str, action: str, parameters: dict[str, Any], rows: str
) -> None:
    fleet = [FleetInstance("m5.large", "us-east-1", "use1-az1")] * 7
    local_aws.add_instances(ACCOUNT, fleet)
    call = getattr(clients(service), action)
    local_aws.add_fault("".join(part.title() for part in action.split("_")), times=None, page_loop=True)
    first = call(**parameters)
    second = call(**parameters, NextToken=first["NextToken"])
    assert len(first[rows]) == 5
    assert second["NextToken"] == first["NextToken"]
    assert second[rows] == first[rows]


def test_the_advisor_is_the_recordings_and_knows_conditional_requests(local_aws: LocalAws, market_dir: Path) -> None:
    reply = requests.get(local_aws.advisor_url, timeout=10)
    assert reply.content == (market_dir / "advisor.json").read_bytes()
    assert reply.headers["Last-Modified"]
    for header, value in (
        ("If-None-Match", reply.headers["ETag"]),
        ("If-Modified-Since", reply.headers["Last-Modified"]),
    ):
        assert requests.get(local_aws.advisor_url, headers={header: value}, timeout=10).status_code == 304


@pytest.mark.parametrize("body", ["", "<html>Service unavailable</html>", '{"spot_advisor": {"us-e', "{}"])
def test_the_advisor_can_be_broken(local_aws: LocalAws, body: str) -> None:
    local_aws.add_fault("Advisor", body=body, status=200, content_type="application/json")
    reply = requests.get(local_aws.advisor_url, timeout=10)
    assert (reply.status_code, reply.text) == (200, body)
    assert requests.get(local_aws.advisor_url, timeout=10).json()["spot_advisor"]


def test_a_command_that_cannot_be_carried_out_says_why(local_aws: LocalAws) -> None:
    with pytest.raises(LocalAwsError, match="az99"):
        local_aws.add_account(
            ACCOUNT, external_id=EXTERNAL_ID, fleet=[FleetInstance("m5.large", "us-east-1", "use1-az99")]
        )
    with pytest.raises(LocalAwsError, match="unexpected keyword"):
        local_aws.add_fault("DescribeInstances", colour="red")
    assert requests.post(local_aws.endpoint_url + "/_local_aws/dance", timeout=10).status_code == 404
    with pytest.raises(LocalAwsError, match="No local AWS answers"):
        LocalAwsClient("http://127.0.0.1:9").health()


def test_the_control_endpoint_answers_this_machine_only(local_aws: LocalAws) -> None:
    from werkzeug.test import Client

    client = Client(local_aws.app)
    assert client.post("/_local_aws/health", environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code == 403
    assert client.post("/_local_aws/health", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200


def test_services_that_are_only_motos_work_too(local_aws: LocalAws) -> None:
    assert local_aws.endpoint_url
    s3 = boto3.client("s3", region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
    s3.create_bucket(Bucket="archive")
    s3.put_object(Bucket="archive", Key="a/b", Body=b"content")
    assert s3.get_object(Bucket="archive", Key="a/b")["Body"].read() == b"content"


def test_it_serves_from_a_process_of_its_own(market_dir: Path) -> None:
    process = subprocess.Popen(
        [*MODULE, "--market", str(market_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[3]
        added = setup_account(
            url, ACCOUNT, external_id=EXTERNAL_ID, fleet=[FleetInstance("m5.large", "us-east-1", "use1-az1")]
        )
        assert added.role_arn == f"arn:aws:iam::{ACCOUNT}:role/SpotLab"
        assert LocalAwsClient(url).health()["accounts"] == [ACCOUNT]
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


def test_a_bad_recording_and_a_taken_port_are_one_clear_line(market_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["--market", str(tmp_path / "nothing")], "is not a folder"),
            (["--market", str(tmp_path)], "recording.json is missing"),
            (["--market", str(market_dir), "--port", port], f"Port {port} cannot be taken"),
        ):
            ended = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, timeout=120, check=False)
            assert ended.returncode == 2
            assert message in ended.stderr
            assert len(ended.stderr.splitlines()) == 1


def test_the_environment_is_all_that_a_process_needs(local_aws: LocalAws) -> None:
    code = (
        "import boto3, json; account = boto3.client('sts').get_caller_identity()['Account']; "
        "print(json.dumps([account, boto3.client('ec2').meta.endpoint_url]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=local_aws.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(ended.stdout) == ["123456789012", local_aws.endpoint_url]
