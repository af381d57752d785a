"""What the tests of the local AWS share: an account, and real boto3 clients in its assumed role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config

from spotlab_pipelines_tests.local_aws.server import LocalAws

ACCOUNT, EXTERNAL_ID = "222222222222", "an-external-id-of-ours"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/SpotLab"
NO_RETRIES = Config(retries={"total_max_attempts": 1})

Clients = Callable[..., Any]


def session_of(account_id: str = ACCOUNT, external_id: str = EXTERNAL_ID, **parameters: Any) -> Any:
    """A boto3 session in an account's role."""
    reply = boto3.client("sts", config=NO_RETRIES).assume_role(
        RoleArn=f"arn:aws:iam::{account_id}:role/SpotLab",
        RoleSessionName="spotlab",
        ExternalId=external_id,
        **parameters,
    )
    held = reply["Credentials"]
    return boto3.Session(held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])


@pytest.fixture
def clients(local_aws: LocalAws) -> Clients:
    """`clients("ec2")`: a client of that service in the role of ACCOUNT, which is set up without a fleet."""
    local_aws.add_account(ACCOUNT, external_id=EXTERNAL_ID)
    session = session_of()

    def client(service: str, region: str = "us-east-1") -> Any:
        return session.client(service, region_name=region, config=NO_RETRIES)

    return client
