"""Faults on purpose: what the next calls of an action answer instead of, or beside, the truth."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from threading import Lock

from werkzeug.wrappers import Response

from spotlab_pipelines_tests.local_aws.wire import AwsError, error_reply

ADVISOR = "Advisor"
"""The action name under which the Advisor feed's faults are set."""
LOOP_TOKEN = "bG9vcA=="


@dataclass
class Fault:
    """One fault.

    Attributes:
        action: the AWS action, e.g. `DescribeInstances`, or `Advisor`.
        times: how many calls it hits; None for all until it is cleared.
        account_id, region: only calls of this account or in this region; None for any.
        code: an AWS error code to answer with, with `status` and `message`.
        body: a literal body to answer with, with `status` and `content_type`.
        latency_s: seconds to wait first; alone, the true answer follows.
        page_loop: every page is the first page and its token never changes.
    """

    action: str
    times: int | None = 1
    account_id: str | None = None
    region: str | None = None
    status: int = 400
    code: str | None = None
    message: str = "A fault set by a test."
    body: str | None = None
    content_type: str = "text/xml"
    latency_s: float = 0.0
    page_loop: bool = False


@dataclass
class Faults:
    """The faults that are set now."""

    pending: list[Fault] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self.pending.append(fault)

    def clear(self) -> None:
        with self._lock:
            self.pending.clear()

    def take(self, action: str, *, account_id: str | None = None, region: str | None = None) -> Fault | None:
        """The first fault that hits this call, used up by one; its latency is waited for here."""
        with self._lock:
            fault = next((fault for fault in self.pending if _hits(fault, action, account_id, region)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self.pending.remove(fault)
        if fault is not None and fault.latency_s:
            time.sleep(fault.latency_s)
        return fault


def fault_reply(fault: Fault, service: str) -> Response | None:
    """What a fault answers by itself, or None if the truth is to be told (late, or in a loop)."""
    if fault.code is not None:
        return error_reply(service, AwsError(fault.code, fault.message, fault.status))
    if fault.body is not None:
        return Response(fault.body, status=fault.status, content_type=fault.content_type)
    return None


def looped(response: Response, service: str) -> Response:
    """The response with a next token that never changes."""
    text = response.get_data(as_text=True)
    if service == "ec2":
        text = re.sub(r"<nextToken>[^<]*</nextToken>|<nextToken ?/>", "", text)
        text = re.sub(r"</(\w+Response)>\s*$", rf"<nextToken>{LOOP_TOKEN}</nextToken></\1>", text)
    else:
        text = re.sub(r', "NextToken": "[^"]*"', "", text).rstrip("}") + f', "NextToken": "{LOOP_TOKEN}"' + "}"
    response.set_data(text)
    return response


def _hits(fault: Fault, action: str, account_id: str | None, region: str | None) -> bool:
    return fault.action == action and fault.account_id in (None, account_id) and fault.region in (None, region)
