"""Setting up an AWS account inside moto: a role with its trust policy, and a fleet of running instances.

Also the one way in which an instance is made a Spot instance, used by fleets and by RunInstances alike. Which account
may do what, and who is asked, lives in app.py.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT
from spotlab_pipelines_tests.local_aws.spot_requests import SpotRequest, SpotRequests
from spotlab_pipelines_tests.local_aws.wire import AwsError, partition_of
from spotlab_pipelines_tests.local_aws.zones import account_zones, zone_names

Denies = Literal["assume", "actions"]
IMAGES = {
    "Linux/UNIX": "ami-0spotlab0linux000",
    "Red Hat Enterprise Linux": "ami-0spotlab0rhel0000",
    "SUSE Linux": "ami-0spotlab0suse0000",
    "Windows": "ami-0spotlab0windows0",
}
"""An image id per product: an instance started from one runs that product."""
_PRODUCT_OF_IMAGE = {image: product for product, image in IMAGES.items()}


@dataclass(frozen=True)
class FleetInstance:
    """One running instance of an account, where it is by zone id, and for how many hours it has been running."""

    instance_type: str
    region: str
    az_id: str
    product: str = "Linux/UNIX"
    lifecycle: Literal["spot", "on-demand"] = "spot"
    tags: Mapping[str, str] = field(default_factory=dict)
    age_h: float = 0.0


@dataclass(frozen=True)
class AccountSetup:
    """A customer's account.

    Attributes:
        external_id: what the trust policy demands; None leaves the condition out (a careless customer).
        principal_account: whom the trust policy lets in.
        denies: "assume" adds a Deny to the trust policy; "actions" lets the role be assumed and refuses its calls.
        trust_policy: a policy document of your own instead of the one made from the above.
        denied_actions: `service:Action` names that the role's permissions leave out; all others it may do.
    """

    account_id: str
    role_name: str
    external_id: str | None
    principal_account: str = OWN_ACCOUNT
    regions: tuple[str, ...] = ("us-east-1",)
    fleet: tuple[FleetInstance, ...] = ()
    denies: Denies | None = None
    trust_policy: Mapping[str, Any] | None = None
    max_session_duration_s: int = 3600
    denied_actions: tuple[str, ...] = ()

    @property
    def partition(self) -> str:
        return partition_of(self.regions[0])

    @property
    def role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:role/{self.role_name}"

    def policy(self) -> dict[str, Any]:
        """The role's trust policy."""
        if self.trust_policy is not None:
            return dict(self.trust_policy)
        principal = {"AWS": f"arn:{self.partition}:iam::{self.principal_account}:root"}
        allow: dict[str, Any] = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
        if self.external_id is not None:
            allow["Condition"] = {"StringEquals": {"sts:ExternalId": self.external_id}}
        deny = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        return {"Version": "2012-10-17", "Statement": [allow, deny] if self.denies == "assume" else [allow]}


def create_role(setup: AccountSetup) -> None:
    """Create the account's role, or replace it if it is there."""
    from moto.iam.models import iam_backends

    backend = iam_backends[setup.account_id][setup.partition]
    for role in list(backend.roles.values()):
        if role.name == setup.role_name:
            del backend.roles[role.id]
    backend.create_role(
        role_name=setup.role_name,
        assume_role_policy_document=json.dumps(setup.policy()),
        path="/",
        permissions_boundary=None,
        description="What SpotLab may do in this account.",
        tags=[],
        max_session_duration=str(setup.max_session_duration_s),
    )


def start_fleet(account_id: str, fleet: tuple[FleetInstance, ...], requests: SpotRequests) -> list[str]:
    """Start instances in an account; returns their ids in the order of the fleet.

    An id follows from account, pool and count, so that the same fleet has the same ids after a restart.

    Raises:
        AwsError: InvalidParameterValue for a zone id that the region does not have.
    """
    from moto.ec2.models import ec2_backends
    from moto.moto_api._internal import mock_random

    started = []
    for wanted in fleet:
        names = zone_names(account_id, wanted.region)
        if wanted.az_id not in names:
            raise AwsError("InvalidParameterValue", f"{wanted.region} has no zone {wanted.az_id}.")
        backend = ec2_backends[account_id][wanted.region]
        reservation = backend.run_instances(
            IMAGES[wanted.product],
            1,
            None,
            [],
            instance_type=wanted.instance_type,
            is_instance_type_default=False,
            placement=names[wanted.az_id],
            region_name=wanted.region,
            instance_market_options="spot" if wanted.lifecycle == "spot" else {},
        )
        instance = reservation.instances[0]
        instance.id = _instance_id(account_id, wanted, {held.id for held in backend.all_instances()})
        # AWS tells whole seconds.
        instance.launch_time = instance.launch_time.replace(microsecond=0) - timedelta(hours=wanted.age_h)
        # Tags are kept by id: only now does the instance have its own.
        instance.add_tags(dict(wanted.tags))
        finish_instance(instance, account_id, wanted.region, requests)
        started.append(instance.id)
    mock_random.seed(None)
    return started


def _instance_id(account_id: str, wanted: FleetInstance, taken: set[str]) -> str:
    pool = f"{account_id}/{wanted.instance_type}/{wanted.az_id}/{wanted.product}/{wanted.lifecycle}"
    ids = (f"i-0{hashlib.sha256(f'{pool}/{count}'.encode()).hexdigest()[:16]}" for count in itertools.count())
    return next(identity for identity in ids if identity not in taken)


def finish_instance(instance: Any, account_id: str, region: str, requests: SpotRequests) -> SpotRequest | None:
    """Give a new moto instance its platform and, if it is a Spot instance, its request; returns the request."""
    product = _PRODUCT_OF_IMAGE.get(instance.image_id, "Windows" if instance.platform == "windows" else "Linux/UNIX")
    instance.platform_details = product
    instance.platform = "windows" if product == "Windows" else None
    if instance.lifecycle != "spot":
        return None
    request = SpotRequest(
        request_id=f"sir-{instance.id[-8:]}",
        account_id=account_id,
        region=region,
        instance_id=instance.id,
        instance_type=instance.instance_type,
        az_id=account_zones(account_id, region)[instance.placement.zone],
        product=product,
        image_id=instance.image_id,
        started_at=instance.launch_time.replace(tzinfo=UTC),
    )
    instance.spot_instance_request_id = request.request_id
    requests.live.append(request)
    return request


def interrupt(account_id: str, region: str, instance_id: str, *, status_code: str, requests: SpotRequests) -> None:
    """Let AWS take a Spot instance back now.

    Raises:
        AwsError: InvalidInstanceID.NotFound, or the instance is not a running Spot instance.
    """
    from moto.ec2.models import ec2_backends
    from moto.ec2.models.instances import StateReason

    found = [held for held in ec2_backends[account_id][region].all_instances() if held.id == instance_id]
    if not found:
        raise AwsError("InvalidInstanceID.NotFound", f"{account_id} has no instance {instance_id} in {region}.")
    instance = found[0]
    if instance.lifecycle != "spot" or instance.state != "running":
        raise AwsError("IncorrectInstanceState", f"{instance_id} is not a running Spot instance.")
    instance.terminate()
    now = datetime.now(UTC)
    by_user = status_code == "instance-terminated-by-user"
    code = "Client.UserInitiatedShutdown" if by_user else "Server.SpotInstanceTermination"
    instance._reason = f"{'User initiated' if by_user else code} ({now:%Y-%m-%d %H:%M:%S} UTC)"
    instance.state_reason = StateReason(f"{code}: Spot instance termination", code)
    requests.end(instance_id, status_code, now)
