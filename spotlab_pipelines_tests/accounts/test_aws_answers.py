"""AWS's answers: pages are followed to their end and no further, and every error has its place in the tree."""

import traceback
from typing import Any

import pytest
from botocore import exceptions as aws
from pydantic import SecretStr

from spotlab_pipelines.accounts.aws_answers import aws_errors, paginate
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.sessions import own_account_id
from spotlab_pipelines.errors import (
    AccessDenied,
    InvalidInput,
    NotFound,
    PageLoop,
    SettingsError,
    SourceMalformed,
    SourceUnavailable,
    Throttled,
    TransientError,
)

CANARY = "canary-external-id-0123456789"
ACCOUNT = Account(
    account_id="111122223333",
    name="A",
    owner_email="ana@example.com",
    environment="LAB",
    role_arn="arn:aws:iam::111122223333:role/SpotLab",
    external_id=SecretStr(CANARY),
    regions=("us-east-1",),
    evaluation_interval_s=1800,
    interruption_cost_usd=1.0,
    state="active",
)


def listing(*pages):
    """A call that gives these (items, token) pages by token."""
    tokens = [None, *(token for _, token in pages)]

    def call(NextToken=None):  # noqa: N803 - AWS's own name
        items, token = pages[tokens.index(NextToken)]
        return {"Items": items} if token is None else {"Items": items, "NextToken": token}

    return call


@pytest.mark.parametrize("last", [None, ""])
def test_every_token_is_followed_over_empty_pages_to_the_last(last):
    assert list(paginate(listing(([1], "a"), ([], "b"), ([2, 3], last)), "Items")) == [1, 2, 3]


def test_a_token_that_comes_again_is_a_loop():
    with pytest.raises(PageLoop, match="came before"):
        list(paginate(listing(([1], "a"), ([2], "a")), "Items"))


def test_a_listing_without_end_stops_at_the_page_cap():
    count = iter(range(1000))
    with pytest.raises(PageLoop, match="at most 10 pages"):
        list(paginate(lambda **_: {"Items": [], "NextToken": str(next(count))}, "Items", max_pages=10))


def test_a_listing_of_exactly_the_page_cap_is_whole():
    assert list(paginate(listing(([1], "a"), ([2], None)), "Items", max_pages=2)) == [1, 2]


def test_a_page_without_its_records_is_malformed():
    with pytest.raises(SourceMalformed, match="list of Items"):
        list(paginate(dict, "Items"))


def answer(code, status=400, message="Said no."):
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return aws.ClientError(response, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("AccessDenied", 403), AccessDenied),
        (answer("UnauthorizedOperation", 403), AccessDenied),
        (answer("ExpiredToken"), AccessDenied),
        (answer("RequestExpired"), AccessDenied),
        (answer("AuthFailure", 401), AccessDenied),
        (answer("SomethingNew", 403), AccessDenied),
        (answer("RequestLimitExceeded", 503), Throttled),
        (answer("Throttling"), Throttled),
        (answer("InternalError", 500), SourceUnavailable),
        (answer("Whatever", 502), SourceUnavailable),
        (answer("RequestTimeout"), SourceUnavailable),
        (answer("SomethingNew", 429), Throttled),
        (answer("", 429), Throttled),
        (answer("InvalidSignatureException"), AccessDenied),
        (answer("MissingAuthenticationTokenException"), AccessDenied),
        (answer("NotAuthorized"), AccessDenied),
        (answer("InvalidAccessKeyId"), AccessDenied),
        (answer("RegionDisabledException"), AccessDenied),
        (answer("InvalidParameterValue"), InvalidInput),
        (aws.EndpointConnectionError(endpoint_url="http://x"), SourceUnavailable),
        (aws.ConnectTimeoutError(endpoint_url="http://x"), SourceUnavailable),
        (aws.ReadTimeoutError(endpoint_url="http://x"), SourceUnavailable),
        (aws.NoCredentialsError(), AccessDenied),
        (aws.ParamValidationError(report="bad"), InvalidInput),
        (aws.NoRegionError(), SourceUnavailable),
    ],
)
def test_each_error_of_aws_has_its_place(error, kind):
    with pytest.raises(kind, match="Reading failed") as caught, aws_errors("Reading"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.remedy


def test_what_botocore_takes_for_throttled_or_passing_is_so_for_us_too():
    from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker

    # By name, because they are botocore's own affair.
    for code in vars(ThrottledRetryableChecker)["_THROTTLED_ERROR_CODES"]:
        with pytest.raises(Throttled), aws_errors("Reading"):
            raise answer(code)
    for code in vars(TransientRetryableChecker)["_TRANSIENT_ERROR_CODES"]:
        with pytest.raises(TransientError), aws_errors("Reading"):
            raise answer(code)


def test_a_region_without_sts_is_told_what_to_do():
    with pytest.raises(AccessDenied, match="Enable the region, or STS in it"), aws_errors("Assuming"):
        raise answer("RegionDisabledException", 403)


def test_our_own_errors_and_bugs_pass_through():
    with pytest.raises(NotFound), aws_errors("Reading"):
        raise NotFound("x")
    with pytest.raises(ZeroDivisionError), aws_errors("Reading"):
        _ = 1 / 0


def test_an_external_id_that_aws_echoes_shows_nowhere():
    with pytest.raises(AccessDenied) as caught, aws_errors("Assuming", ACCOUNT):
        raise answer("AccessDenied", 403, f"sts:ExternalId {CANARY} does not match")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert CANARY not in shown
    assert "***" in shown


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
def test_an_endpoint_that_is_no_address_names_its_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(variable, "user:hidden-word@garbage")
    with pytest.raises(SettingsError, match=variable) as refused:
        own_account_id()
    assert "hidden-word" not in "".join(traceback.format_exception(refused.value))
