"""The local AWS seen from outside: every command of its control endpoint, from any process that knows its address."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from spotlab_pipelines_tests.local_aws.accounts import Denies, FleetInstance
from spotlab_pipelines_tests.local_aws.app import ADVISOR_PATH, CONTROL_PATH
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT

HOST = "127.0.0.1"
NO_AWS_OF_THE_MACHINE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class LocalAwsError(Exception):
    """The local AWS could not be started, or refused a command; the message says why."""


def forget_aws(environment: MutableMapping[str, str]) -> None:
    """Drop every AWS_* variable and shut out the files and the metadata service that botocore asks by itself.

    Even loading moto's market opens a session, which fails on a profile that is set and not written down.
    """
    for name in [name for name in environment if name.startswith("AWS_")]:
        del environment[name]
    environment.update(NO_AWS_OF_THE_MACHINE)


class LocalAwsClient:
    """A running local AWS at `endpoint_url`."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url.rstrip("/")

    @property
    def advisor_url(self) -> str:
        """Where the Spot Advisor's feed is."""
        return self.endpoint_url + ADVISOR_PATH

    def enter(self, environment: MutableMapping[str, str]) -> None:
        """Let an environment use this AWS and nothing else of AWS.

        Every AWS_* variable that was there is dropped: a profile, a service's own AWS_ENDPOINT_URL_EC2 or
        AWS_IGNORE_CONFIGURED_ENDPOINT_URLS would lead past this endpoint, to the real AWS.
        """
        forget_aws(environment)
        environment.update(self.environment())
        for name in ("NO_PROXY", "no_proxy"):
            kept = environment.get(name, "")
            if HOST not in kept.split(","):
                environment[name] = f"{kept},{HOST}".lstrip(",")

    def environment(self) -> dict[str, str]:
        """The environment variables with which a process uses this AWS, as SpotLab's own account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "AKIASPOTLABOWNKEY000",
            "AWS_SECRET_ACCESS_KEY": "only-for-the-local-aws",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            **NO_AWS_OF_THE_MACHINE,
            "SPOTLAB_ADVISOR_URL": self.advisor_url,
        }

    def health(self) -> dict[str, Any]:
        """market, regions, start, end, accounts."""
        return self._send("health")

    def add_account(
        self,
        account_id: str,
        *,
        role_name: str = "SpotLab",
        external_id: str | None,
        principal_account: str = OWN_ACCOUNT,
        regions: Sequence[str] = ("us-east-1",),
        fleet: Sequence[FleetInstance] = (),
        denies: Denies | None = None,
        trust_policy: Mapping[str, Any] | None = None,
        max_session_duration_s: int = 3600,
        denied_actions: Sequence[str] = (),
    ) -> AddedAccount:
        """Set up an account: its role (replaced if it is there) and a fleet (added to what runs).

        Args:
            external_id: what the role's trust policy demands; None: it demands none.
            denies: "assume": the trust policy denies us; "actions": the role can be assumed but may do nothing.
            trust_policy: a document instead of the one made from external id and principal.
            regions: where it is; the first says in which partition its role is.
            denied_actions: `service:Action` names that the role may not call.
        """
        reply = self._send(
            "account",
            account_id=account_id,
            role_name=role_name,
            external_id=external_id,
            principal_account=principal_account,
            regions=list(regions),
            fleet=[_plain(instance) for instance in fleet],
            denies=denies,
            trust_policy=trust_policy,
            max_session_duration_s=max_session_duration_s,
            denied_actions=list(denied_actions),
        )
        return AddedAccount(reply["role_arn"], reply["instance_ids"])

    def add_instances(self, account_id: str, fleet: Sequence[FleetInstance]) -> list[str]:
        """Start more instances in an account; returns their ids."""
        reply = self._send("instances", account_id=account_id, fleet=[_plain(instance) for instance in fleet])
        return reply["instance_ids"]

    def set_denies(self, account_id: str, denies: Denies | None) -> None:
        """Let an account's role deny us from now on, or no longer."""
        self._send("denies", account_id=account_id, denies=denies)

    def set_trust_policy(self, account_id: str, policy: Mapping[str, Any]) -> None:
        """Replace the trust policy of an account's role."""
        self._send("trust", account_id=account_id, policy=dict(policy))

    def interrupt(
        self,
        account_id: str,
        region: str,
        instance_id: str,
        *,
        status_code: str = "instance-terminated-no-capacity",
    ) -> None:
        """Interrupt a running Spot instance now; with `instance-terminated-by-user` its owner ends it."""
        self._send("interrupt", account_id=account_id, region=region, instance_id=instance_id, status_code=status_code)

    def refuse(
        self, account_id: str, region: str, instance_type: str, az_id: str, *, product: str = "Linux/UNIX"
    ) -> str:
        """Leave a Spot request of the account open for want of capacity; its id."""
        where = {"region": region, "instance_type": instance_type, "az_id": az_id, "product": product}
        return self._send("refuse", account_id=account_id, **where)["request_id"]

    def add_fault(self, action: str, **fields: Any) -> None:
        """Set a fault; the fields are those of `faults.Fault`."""
        self._send("fault", action=action, **fields)

    def clear_faults(self) -> None:
        """Forget faults and injected prices."""
        self._send("clear-faults")

    def inject_price(
        self,
        *,
        region: str,
        instance_type: str,
        az_id: str,
        price: str,
        changed_at: datetime,
        product: str = "Linux/UNIX",
    ) -> None:
        """Let the first page of every matching price history open with this row, as it is."""
        when = changed_at.isoformat()
        pool = {"region": region, "instance_type": instance_type, "az_id": az_id, "product": product}
        self._send("price", **pool, price=price, changed_at=when)

    def expire_sessions(self, account_id: str) -> int:
        """End every assumed session of an account now; returns how many there were."""
        return self._send("sessions", expire=account_id)["expired"]

    def revoke_sessions(self, account_id: str) -> int:
        """Deny every assumed session of an account everything, as IAM's console does; returns how many there were."""
        return self._send("sessions", revoke=account_id)["revoked"]

    def shorten_sessions(self, lifetime_s: float | None) -> None:
        """Let every new session live this long, whatever was asked for; None: as asked for."""
        self._send("sessions", lifetime_s=lifetime_s)

    def reset(self) -> None:
        """Forget accounts, instances, sessions, faults and injected prices."""
        self._send("reset")

    def _send(self, command: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (our own http address)
            self.endpoint_url + CONTROL_PATH + command,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                raise LocalAwsError(f"{command}: {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise LocalAwsError(f"No local AWS answers at {self.endpoint_url} ({error}).") from None


class AddedAccount:
    """What add_account made.

    Attributes:
        role_arn: the role to assume.
        instance_ids: ids of the fleet's instances, in its order.
    """

    def __init__(self, role_arn: str, instance_ids: list[str]) -> None:
        self.role_arn, self.instance_ids = role_arn, instance_ids


def setup_account(endpoint_url: str, account_id: str, **fields: Any) -> AddedAccount:
    """`LocalAwsClient(endpoint_url).add_account(…)`."""
    return LocalAwsClient(endpoint_url).add_account(account_id, **fields)


def _plain(instance: FleetInstance) -> dict[str, Any]:
    return {**asdict(instance), "tags": dict(instance.tags)}
