"""AWS's wire formats: a request's parameters, XML and JSON replies, errors in the caller's own protocol.

No behaviour of any service lives here.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/[^/]*/([^/]*)/([^/]*)/aws4_request")
NAMESPACES = {
    "ec2": "http://ec2.amazonaws.com/doc/2016-11-15/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
}
REQUEST_ID = "59dbff89-35bd-4eac-99ed-be587EXAMPLE"


class AwsError(Exception):
    """An error that AWS answers with; code and status as AWS documents them."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Call:
    """One signed call: whose key, which region, service and action, with its parameters as botocore names them."""

    access_key: str
    token: str | None
    region: str
    service: str
    action: str
    params: dict[str, Any]

    def filters(self, *known: str) -> dict[str, list[str]]:
        """The call's Filters, name → values.

        Raises:
            AwsError: InvalidParameterValue for a filter that is not among `known`.
        """
        filters = {entry["Name"]: entry.get("Values", []) for entry in self.params.get("Filters", [])}
        for name in filters:
            if name not in known:
                raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
        return filters


def partition_of(region: str) -> str:
    """The partition of a region: keys, roles and principals of one mean nothing in another."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def matches(value: str, patterns: list[str]) -> bool:
    """Whether a filter's patterns (with * and ?) take a value."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def read_call(request: Request) -> Call | None:
    """The AWS call that a request is, or None if it is not one of EC2, STS, IAM or Pricing."""
    signature = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    if signature is None:
        return None
    access_key, region, service = signature.groups()
    target = request.headers.get("X-Amz-Target")
    if target:
        action, params = target.rpartition(".")[2], _json_body(request)
    elif service in NAMESPACES:
        action = request.values.get("Action", "")
        params = _query_params(service, action, request)
    else:
        action, params = "", {}
    token = request.headers.get("X-Amz-Security-Token")
    return Call(access_key, token, region, service, action, params)


def _json_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.get_data() or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _query_params(service: str, action: str, request: Request) -> dict[str, Any]:
    from botocore.model import OperationNotFoundError
    from moto.core.parse import PROTOCOL_PARSERS

    try:
        operation = service_model(service).operation_model(action)
    except OperationNotFoundError:
        return {}
    parser = PROTOCOL_PARSERS["ec2" if service == "ec2" else "query"](operation)
    parts = {"method": request.method, "values": request.values, "headers": request.headers}
    return parser.parse({**parts, "body": b"", "url_path": request.path, "url_params": {}}) or {}


@cache
def service_model(service: str) -> Any:
    """botocore's model of a service, loaded once."""
    from moto.core.utils import get_service_model

    return get_service_model(service)


# Replies


def ec2_reply(action: str, inner: str) -> Response:
    """An EC2 reply around ready XML."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{NAMESPACES["ec2"]}">'
        f"<requestId>{REQUEST_ID}</requestId>{inner}</{action}Response>"
    )
    return Response(body, content_type="text/xml;charset=UTF-8")


def sts_reply(action: str, inner: str) -> Response:
    """An STS reply around ready XML."""
    body = (
        f'<{action}Response xmlns="{NAMESPACES["sts"]}"><{action}Result>{inner}</{action}Result>'
        f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></{action}Response>"
    )
    return Response(body, content_type="text/xml")


def json_reply(value: Any, *, status: int = 200, content_type: str = "application/x-amz-json-1.1") -> Response:
    """A JSON reply."""
    return Response(json.dumps(value), status=status, content_type=content_type)


def error_reply(service: str, error: AwsError) -> Response:
    """An error in the protocol of the service that was called."""
    code, message = escape(error.code), escape(error.message)
    if service == "ec2":
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{code}</Code>'
            f"<Message>{message}</Message></Error></Errors><RequestID>{REQUEST_ID}</RequestID></Response>"
        )
    elif service in NAMESPACES:
        body = (
            f'<ErrorResponse xmlns="{NAMESPACES[service]}"><Error><Type>Sender</Type><Code>{code}</Code>'
            f"<Message>{message}</Message></Error><RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
        )
    else:
        return json_reply({"__type": error.code, "message": error.message}, status=error.status)
    return Response(body, status=error.status, content_type="text/xml;charset=UTF-8")


def to_xml(shape: Any, value: Any) -> str:
    """A value in EC2's XML after botocore's shape of it, without its own tag."""
    if shape.type_name == "structure":
        parts = []
        for name, member in shape.members.items():
            if name in value:
                tag = member.serialization.get("name", name)
                parts.append(f"<{tag}>{to_xml(member, value[name])}</{tag}>")
        return "".join(parts)
    if shape.type_name == "list":
        return "".join(f"<item>{to_xml(shape.member, item)}</item>" for item in value)
    if shape.type_name == "boolean":
        return "true" if value else "false"
    if isinstance(value, datetime):
        return xml_time(value)
    return escape(str(value))


def xml_time(moment: datetime) -> str:
    """A time as EC2 writes it: UTC with milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


# Paging


def page_token(state: Mapping[str, Any]) -> str:
    """An opaque token for where a listing goes on."""
    return urlsafe_b64encode(json.dumps(state, sort_keys=True).encode()).decode()


def read_token(token: str) -> dict[str, Any]:
    """The state in a token.

    Raises:
        AwsError: InvalidParameterValue for a token that was not ours.
    """
    try:
        state = json.loads(urlsafe_b64decode(token.encode()))
    except ValueError:
        state = None
    if not isinstance(state, dict):
        raise AwsError("InvalidParameterValue", f"The token '{token}' is invalid")
    return state


def page_size(call: Call, *, default: int, low: int, high: int) -> int:
    """MaxResults of a call.

    Raises:
        AwsError: InvalidParameterValue outside [low, high].
    """
    size = int(call.params.get("MaxResults", default))
    if not low <= size <= high:
        raise AwsError("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
    return size
