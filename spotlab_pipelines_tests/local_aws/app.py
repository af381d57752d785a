"""The WSGI application: what answers each request, moto or one of the modules beside this one.

Order of a signed call: who is it (expired, unknown keys), a fault set on purpose, is the account's role allowed to,
then the action. Whatever is not handled here goes to moto with the caller's account in moto's own header.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import Any

from werkzeug.http import http_date
from werkzeug.wrappers import Request, Response

from spotlab_pipelines_tests.local_aws.accounts import AccountSetup, create_role, finish_instance, start_fleet
from spotlab_pipelines_tests.local_aws.catalogue import PRICING_REGIONS, Catalogue, describe_availability_zones
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT, Credentials
from spotlab_pipelines_tests.local_aws.faults import ADVISOR, Faults, fault_reply, looped
from spotlab_pipelines_tests.local_aws.prices import PriceHistory
from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.spot_requests import SpotRequests
from spotlab_pipelines_tests.local_aws.trust import Caller
from spotlab_pipelines_tests.local_aws.wire import AwsError, Call, error_reply, read_call

ADVISOR_PATH = "/spot-bid-advisor/spot-advisor-data.json"
CONTROL_PATH = "/_local_aws/"
_UNSUPPORTED = ("RequestSpotInstances", "RequestSpotFleet", "CreateFleet", "GetSpotPlacementScores")
_SERVICES = ("ec2", "sts", "iam", "pricing")


class Application:
    """A local AWS over one recording; everything that can change is an attribute, so that reset() can renew it."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.prices = PriceHistory(recording)
        self.catalogue = Catalogue(recording)
        self.started_at = datetime.now(UTC)
        self._moto: Callable[..., Iterable[bytes]] | None = None
        self._moto_lock = Lock()
        self._run_lock = Lock()
        self._recording = recording
        self.reset()

    def reset(self) -> None:
        """Forget accounts, sessions, instances, faults and injected prices."""
        self.credentials, self.faults = Credentials(), Faults()
        self.requests = SpotRequests(self._recording)
        self.accounts: dict[str, AccountSetup] = {}
        self._launched: dict[tuple[str, str, str], tuple[str, Response]] = {}
        self.prices.injected.clear()
        if self._moto is not None:
            from moto.core.base_backend import BackendDict

            BackendDict.reset()

    def add_account(self, setup: AccountSetup) -> list[str]:
        """Set up an account (its role is replaced if it is there); returns the ids of its new instances."""
        self._load_moto()
        create_role(setup)
        self.accounts[setup.account_id] = setup
        self.requests.accounts.add(setup.account_id)
        return start_fleet(setup.account_id, setup.fleet, self.requests)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        if request.path == ADVISOR_PATH:
            return self._advisor(request)(environ, start_response)
        if request.path.startswith(CONTROL_PATH):
            from spotlab_pipelines_tests.local_aws.control import control_reply

            return control_reply(self, request)(environ, start_response)
        service = re.search(r"Credential=[^,\s]*/([^/]*)/aws4_request", request.headers.get("Authorization", ""))
        if service is None or service[1] not in _SERVICES:
            return self._load_moto()(environ, start_response)
        data = request.get_data(cache=True, parse_form_data=False)
        call = read_call(request)
        assert call is not None
        return self._answer(call, environ, data)(environ, start_response)

    def _answer(self, call: Call, environ: dict[str, Any], data: bytes) -> Response:
        try:
            caller = self.credentials.caller(call)
            fault = self.faults.take(call.action, account_id=caller.account_id, region=call.region)
            if fault is not None:
                if (reply := fault_reply(fault, call.service)) is not None:
                    return reply
                if fault.page_loop:
                    call.params.pop("NextToken", None)
                    data = re.sub(rb"&?NextToken=[^&]*", b"", data)
                    return looped(self._act(call, caller, environ, data), call.service)
            return self._act(call, caller, environ, data)
        except AwsError as error:
            return error_reply(call.service, error)

    def _act(self, call: Call, caller: Caller, environ: dict[str, Any], data: bytes) -> Response:
        self._authorize(call, caller)
        account_id = caller.account_id
        own: dict[tuple[str, str], Callable[[], Response]] = {
            ("sts", "AssumeRole"): lambda: self.credentials.assume_role(call, caller),
            ("sts", "GetCallerIdentity"): lambda: self.credentials.identity(call, caller),
            ("ec2", "DescribeSpotPriceHistory"): lambda: self.prices.describe(call, account_id),
            ("ec2", "DescribeSpotInstanceRequests"): lambda: self.requests.describe(call, account_id),
            ("ec2", "DescribeInstanceTypes"): lambda: self.catalogue.describe_instance_types(call),
            ("ec2", "DescribeAvailabilityZones"): lambda: describe_availability_zones(call, account_id),
            ("pricing", "GetProducts"): lambda: self._price_list(call),
        }
        if handler := own.get((call.service, call.action)):
            if call.params.get("DryRun"):
                raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
            return handler()
        if call.action in _UNSUPPORTED or call.service == "pricing":
            raise AwsError("UnsupportedOperation", f"The local AWS has no {call.service}:{call.action}.")
        if (call.service, call.action) == ("ec2", "RunInstances"):
            return self._run_instances(call, account_id, environ, data)
        response = self._ask_moto(account_id, environ, data)
        if (call.service, call.action) == ("ec2", "TerminateInstances") and response.status_code == 200:
            for instance_id in call.params.get("InstanceIds", []):
                self.requests.end(instance_id, "instance-terminated-by-user", datetime.now(UTC))
        return response

    def _authorize(self, call: Call, caller: Caller) -> None:
        action, setup = f"{call.service}:{call.action}", self.accounts.get(caller.account_id)
        if action == "sts:GetCallerIdentity":
            # Needs no permission, as in AWS.
            return
        beyond = setup is not None and (action in setup.denied_actions or setup.denies == "actions")
        if not self.credentials.allows(call, action):
            missing = "session"
        elif self.credentials.is_revoked(call) or (beyond and call.service != "sts"):
            missing = "identity-based"
        else:
            return
        reason = f"User: {caller.arn} is not authorized to perform: {action}"
        reason += f" because no {missing} policy allows the {action} action"
        if call.service == "ec2":
            raise AwsError("UnauthorizedOperation", f"You are not authorized to perform this operation. {reason}", 403)
        if call.service == "pricing":
            raise AwsError("AccessDeniedException", reason)
        raise AwsError("AccessDenied", reason, 403)

    def _price_list(self, call: Call) -> Response:
        if call.region not in PRICING_REGIONS:
            raise AwsError("UnknownOperationException", f"Pricing has no endpoint in {call.region}.", 404)
        return self.catalogue.get_products(call)

    def _run_instances(self, call: Call, account_id: str, environ: dict[str, Any], data: bytes) -> Response:
        kind = call.params.get("InstanceType", "m1.small")
        if kind not in self.catalogue.offered.get(call.region, []):
            raise AwsError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        token = call.params.get("ClientToken", "")
        if len(token) > 64 or not token.isascii():
            raise AwsError("InvalidParameterValue", "A client token has at most 64 ASCII characters.")
        if call.params.get("DryRun"):
            return self._ask_moto(account_id, environ, data)
        digest = hashlib.sha256(json.dumps(call.params, sort_keys=True, default=str).encode()).hexdigest()
        # One launch at a time: the same token in two threads must not start two instances.
        with self._run_lock:
            launched = self._launched.get((account_id, call.region, token)) if token else None
            if launched is None:
                response = self._launch(call, account_id, environ, data)
                if token and response.status_code == 200:
                    self._launched[account_id, call.region, token] = (digest, response)
                return response
        if launched[0] != digest:
            raise AwsError(
                "IdempotentParameterMismatch",
                f"The client token '{token}' was used before with other parameters.",
            )
        return launched[1]

    def _launch(self, call: Call, account_id: str, environ: dict[str, Any], data: bytes) -> Response:
        from moto.ec2.models import ec2_backends

        response = self._ask_moto(account_id, environ, data)
        if response.status_code != 200:
            return response
        text = response.get_data(as_text=True)
        backend = ec2_backends[account_id][call.region]
        for instance_id in dict.fromkeys(re.findall(r"<instanceId>(i-\w+)</instanceId>", text)):
            request = finish_instance(backend.get_instance(instance_id), account_id, call.region, self.requests)
            if request is not None:
                tag = f"<instanceId>{instance_id}</instanceId>"
                text = text.replace(tag, f"{tag}<spotInstanceRequestId>{request.request_id}</spotInstanceRequestId>", 1)
        response.set_data(text)
        return response

    def _ask_moto(self, account_id: str, environ: dict[str, Any], data: bytes) -> Response:
        inner = {key: value for key, value in environ.items() if not key.startswith("werkzeug.request")}
        inner |= {"wsgi.input": BytesIO(data), "CONTENT_LENGTH": str(len(data)), "HTTP_X_MOTO_ACCOUNT_ID": account_id}
        return Response.from_app(self._load_moto(), inner, buffered=True)

    def _load_moto(self) -> Callable[..., Iterable[bytes]]:
        with self._moto_lock:
            if self._moto is None:
                from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

                self._moto = DomainDispatcherApplication(create_backend_app)
            return self._moto

    def _advisor(self, request: Request) -> Response:
        fault = self.faults.take(ADVISOR)
        if fault is not None and (reply := fault_reply(fault, "s3")) is not None:
            return reply
        response = Response(self.recording.advisor, content_type="application/json")
        response.headers["Last-Modified"] = http_date(self.started_at)
        response.add_etag()
        return response.make_conditional(request.environ)


__all__ = ["ADVISOR_PATH", "CONTROL_PATH", "OWN_ACCOUNT", "Application"]
