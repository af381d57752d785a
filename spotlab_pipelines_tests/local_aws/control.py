"""The control endpoint: JSON over HTTP, from this machine only, by which tests and the demo set up the local AWS.

`POST /_local_aws/<command>` with a JSON object; the commands are the functions of `_COMMANDS`, and client.py speaks
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from spotlab_pipelines_tests.local_aws.accounts import AccountSetup, FleetInstance, create_role, interrupt, start_fleet
from spotlab_pipelines_tests.local_aws.faults import Fault
from spotlab_pipelines_tests.local_aws.prices import InjectedPrice
from spotlab_pipelines_tests.local_aws.wire import AwsError, json_reply

if TYPE_CHECKING:
    from spotlab_pipelines_tests.local_aws.app import Application

JSON = "application/json"


def control_reply(app: Application, request: Request) -> Response:
    """Carry out one command; 400 with a reason if it cannot be."""
    if not ip_address(request.remote_addr or "0.0.0.0").is_loopback:  # noqa: S104 (compared, not bound)
        return json_reply({"error": "The control endpoint answers this machine only."}, status=403, content_type=JSON)
    command = _COMMANDS.get(request.path.rpartition("/")[2])
    if command is None:
        return json_reply({"error": f"Unknown command {request.path}."}, status=404, content_type=JSON)
    try:
        body = request.get_json(silent=True) if request.get_data() else {}
        return json_reply(command(app, **(body or {})), content_type=JSON)
    except (AwsError, TypeError, ValueError, KeyError) as error:
        return json_reply({"error": f"{type(error).__name__}: {error}"}, status=400, content_type=JSON)


def _health(app: Application) -> dict[str, Any]:
    recording = app.recording
    return {
        "market": recording.name,
        "regions": recording.regions,
        "start": recording.start.isoformat(),
        "end": recording.end.isoformat(),
        "accounts": sorted(app.accounts),
    }


def _account(
    app: Application,
    *,
    fleet: list[dict[str, Any]],
    regions: list[str],
    denied_actions: list[str],
    **fields: Any,
) -> dict[str, Any]:
    instances = tuple(FleetInstance(**entry) for entry in fleet)
    setup = AccountSetup(fleet=instances, regions=tuple(regions), denied_actions=tuple(denied_actions), **fields)
    return {"role_arn": setup.role_arn, "instance_ids": app.add_account(setup)}


def _instances(app: Application, *, account_id: str, fleet: list[dict[str, Any]]) -> dict[str, Any]:
    instances = tuple(FleetInstance(**entry) for entry in fleet)
    return {"instance_ids": start_fleet(account_id, instances, app.requests)}


def _denies(app: Application, *, account_id: str, denies: str | None) -> dict[str, Any]:
    if denies not in (None, "assume", "actions"):
        raise ValueError('denies must be "assume", "actions" or null')
    app.accounts[account_id] = replace(app.accounts[account_id], denies=denies)
    create_role(app.accounts[account_id])
    return {}


def _trust(app: Application, *, account_id: str, policy: dict[str, Any]) -> dict[str, Any]:
    app.accounts[account_id] = replace(app.accounts[account_id], trust_policy=policy)
    create_role(app.accounts[account_id])
    return {}


def _interrupt(
    app: Application,
    *,
    account_id: str,
    region: str,
    instance_id: str,
    status_code: str = "instance-terminated-no-capacity",
) -> dict[str, Any]:
    interrupt(account_id, region, instance_id, status_code=status_code, requests=app.requests)
    return {}


def _refuse(app: Application, **fields: str) -> dict[str, Any]:
    return {"request_id": app.requests.refuse(**fields)}


def _fault(app: Application, **fields: Any) -> dict[str, Any]:
    app.faults.add(Fault(**fields))
    return {}


def _clear_faults(app: Application) -> dict[str, Any]:
    app.faults.clear()
    app.prices.injected.clear()
    return {}


def _price(app: Application, *, changed_at: str, **fields: Any) -> dict[str, Any]:
    app.prices.injected.append(InjectedPrice(changed_at=datetime.fromisoformat(changed_at), **fields))
    return {}


def _sessions(
    app: Application, *, expire: str | None = None, revoke: str | None = None, lifetime_s: float | None = None
) -> dict[str, Any]:
    app.credentials.lifetime_s = lifetime_s
    if revoke:
        return {"revoked": app.credentials.revoke(revoke)}
    return {"expired": app.credentials.expire(expire) if expire else 0}


def _reset(app: Application) -> dict[str, Any]:
    app.reset()
    return {}


_COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "health": _health,
    "account": _account,
    "instances": _instances,
    "denies": _denies,
    "trust": _trust,
    "interrupt": _interrupt,
    "refuse": _refuse,
    "fault": _fault,
    "clear-faults": _clear_faults,
    "price": _price,
    "sessions": _sessions,
    "reset": _reset,
}
