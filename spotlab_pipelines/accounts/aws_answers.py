"""How AWS answers: its errors put into our tree, and its pages followed to the end. No session is opened here.

botocore's exceptions are told apart by their names, because only sessions.py imports it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.errors import (
    AccessDenied,
    InvalidInput,
    PageLoop,
    SettingsError,
    SourceMalformed,
    SourceUnavailable,
    SpotLabError,
    Throttled,
)

DEFAULT_MAX_PAGES = 2000
NOT_AWS = "Check AWS_ENDPOINT_URL: what answered there is not AWS."

ENDPOINT_VARIABLES = "AWS_ENDPOINT_URL (or that of one service, AWS_ENDPOINT_URL_STS for instance)"

QUOTED_TOKEN = re.compile(r"(security-?token\W{1,4})[\w+/=%-]+", re.IGNORECASE | re.ASCII)
"""A session's token in the request that AWS quotes when the signature does not match, a wrong clock for instance."""

DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RegionDisabledException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
}
DENIED_REMEDY = "Check the role's permissions, and that its trust policy names our principal and the external id."
DENIED_REMEDIES = {
    "RegionDisabledException": "Enable the region, or STS in it: IAM console, Account settings, of the account asked.",
    "OptInRequired": "Enable the region in the account, or take it out of the account's registration.",
}
ROLE_REFUSED = frozenset({"AccessDenied", "AccessDeniedException"})
"""How STS says that a role does not let the caller in: the code that it sends, and the one that its reference names."""

THROTTLED = {
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
}
"""botocore's own list, which a test compares; botocore itself is imported in sessions.py alone."""

UNAVAILABLE = {
    "InternalError",
    "InternalFailure",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "Unavailable",
}

BY_CLASS: tuple[tuple[set[str], type[SpotLabError], str], ...] = (
    ({"ProfileNotFound"}, AccessDenied, "Correct AWS_PROFILE or SPOTLAB_…_PROFILE, or unset it."),
    (
        {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"},
        AccessDenied,
        "Give SpotLab AWS credentials of its own.",
    ),
    ({"ParamValidationError", "InvalidRegionError"}, InvalidInput, "Correct the account's registration."),
    ({"ResponseParserError"}, SourceMalformed, NOT_AWS),
    ({"BotoCoreError"}, SourceUnavailable, "Check the network and AWS_ENDPOINT_URL, then try again."),
)


def answer_of(error: BaseException) -> tuple[str, str | None]:
    """The code and the request id of AWS's answer in one of botocore's errors; ("", None) if AWS gave none."""
    response = getattr(error, "response", None) or {}
    return response.get("Error", {}).get("Code", ""), response.get("ResponseMetadata", {}).get("RequestId")


@contextmanager
def aws_errors(doing: str, account: Account | None = None) -> Iterator[None]:
    """Translate what botocore raises inside the block.

    AWS's text may echo what was sent: external id and token are struck out, and the original is not chained.

    Args:
        doing: what was being done, for the message.
        account: whose external id must not show.

    Raises:
        AccessDenied: AWS refused the role, the external id or the action, or the credentials are expired or absent.
        Throttled, SourceUnavailable: AWS does not serve us now.
        InvalidInput, SourceMalformed: AWS refused the request as wrong, or answered with something else.
        SettingsError: a variable names an endpoint that is no address.
    """
    try:
        yield
    except SpotLabError:
        raise
    except Exception as error:
        translated = _translate(error, doing, account)
        if translated is None:
            raise
        error.args = ("struck out",)
        raise translated from None


def silence_aws_debugging() -> None:
    """Keep botocore from writing requests, external id and tokens included, to a log whose level is DEBUG."""
    for name in ("botocore", "boto3", "urllib3"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.INFO, logger.getEffectiveLevel()))


def paginate(
    call: Callable[..., Mapping[str, Any]], items: str, *, max_pages: int = DEFAULT_MAX_PAGES, **arguments: Any
) -> Iterator[Any]:
    """Yield the records of a listing, following every token to the end.

    A page may be short or empty while the token goes on; the last token may be missing or "".

    Args:
        call: a client's method that takes and returns NextToken.
        items: the key of the records in its answer.

    Raises:
        PageLoop: a token comes twice, or there are more than `max_pages` pages.
        SourceMalformed: a page lacks its records.
    """
    seen: set[str] = set()
    name = getattr(call, "__name__", "The listing")
    for _ in range(max_pages):
        page = call(**arguments)
        if not isinstance(page.get(items), list):
            raise SourceMalformed(
                f"{name}: expected a list of {items}, got {type(page.get(items)).__name__}.",
                remedy=NOT_AWS,
            )
        yield from page[items]
        token = page.get("NextToken")
        if not token:
            return
        if token in seen:
            raise PageLoop(
                f"{name}: expected a new page token, got one again that came before, after {len(seen) + 1} pages.",
                remedy="Nothing was written; try again later.",
            )
        seen.add(token)
        arguments["NextToken"] = token
    raise PageLoop(
        f"{name}: expected an end after at most {max_pages} pages, and there are more.",
        remedy="Nothing was written; raise SPOTLAB_MAX_PAGES if the listing is that long.",
    )


def _translate(error: Exception, doing: str, account: Account | None) -> SpotLabError | None:
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.startswith("botocore.")}
    if type(error) is ValueError and "Invalid endpoint" in str(error):
        # Before any client exists, and of no class of botocore's. An address may hold a password: it is not quoted.
        return SettingsError(
            f"{doing} failed: the endpoint that AWS's variables name is not an address.",
            remedy=f"Expected a URL like https://host:port in {ENDPOINT_VARIABLES}; correct or unset the variable.",
        )
    if not names and _raised_while_parsing(error):
        # botocore lets out its own KeyError or ValueError, which may quote what came.
        return SourceMalformed(f"{doing} failed: the answer could not be read.", remedy=NOT_AWS)
    if not names:
        return None
    message = QUOTED_TOKEN.sub(r"\1***", str(error).rstrip("."))
    if account is not None:
        message = message.replace(account.external_id.get_secret_value(), "***")
    told = f"{doing} failed: {message}."
    if "ClientError" in names:
        return _from_answer(getattr(error, "response", {}), told)
    for classes, kind, remedy in BY_CLASS:
        if names & classes:
            return kind(told, remedy=remedy)
    return SourceUnavailable(told, remedy="Try again later.")


def _raised_while_parsing(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") != "botocore.parsers":
        trace = trace.tb_next
    return trace is not None


def _from_answer(response: Mapping[str, Any], told: str) -> SpotLabError:
    code = response.get("Error", {}).get("Code", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in THROTTLED or (status == 429 and code not in DENIED):
        return Throttled(told, remedy="Wait, and evaluate this account less often.")
    if code in DENIED or status in (401, 403):
        return AccessDenied(told, remedy=DENIED_REMEDIES.get(code, DENIED_REMEDY))
    if code in UNAVAILABLE or status >= 500:
        return SourceUnavailable(told, remedy="Try again later.")
    return InvalidInput(told, remedy="AWS refused the request as wrong: check the account's role and regions.")
