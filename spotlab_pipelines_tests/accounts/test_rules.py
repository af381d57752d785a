"""What a person types is refused by AWS's own rules, with what was expected, what came and what to do."""

import re

import pytest

from spotlab_pipelines.accounts.rules import (
    check_account_id,
    check_external_id,
    check_region,
    check_regions,
    check_role_arn,
    session_name,
)
from spotlab_pipelines.errors import InvalidInput

ACCOUNT = "111122223333"


@pytest.mark.parametrize("wrong", ["", "1234", "1111-2222-3333", "1111222233334", "11112222333a", "١١١١٢٢٢٢٣٣٣٣"])
def test_an_account_id_is_twelve_ascii_digits(wrong):
    with pytest.raises(InvalidInput, match="12 digits") as caught:
        check_account_id(wrong)
    assert repr(wrong) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::111122223333:role/SpotLab",
        "arn:aws:iam::111122223333:role/ops/lab/Spot+Lab=,.@-_9",
    ],
)
def test_role_arns_with_and_without_a_path_are_taken(arn):
    assert check_role_arn(arn, ACCOUNT, ["us-east-1"]) == arn


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        ("arn:aws-cn:iam::111122223333:role/SpotLab", "cn-north-1"),
        ("arn:aws-us-gov:iam::111122223333:role/SpotLab", "us-gov-west-1"),
    ],
)
def test_the_other_partitions_are_taken_with_their_regions(arn, region):
    assert check_role_arn(arn, ACCOUNT, [region]) == arn


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("SpotLab", "Expected a role ARN like"),
        ("arn:aws:iam::111122223333:user/SpotLab", "Expected a role ARN like"),
        ("arn:aws:iam::111122223333:role/", "Expected a role ARN like"),
        ("arn:aws:iam::111122223333:role/Spöt", "Expected a role ARN like"),
        (f"arn:aws:iam::111122223333:role/{'x' * 65}", "Expected a role ARN like"),
        ("arn:aws:iam::111122223333:role/SpotLab\n", "Expected a role ARN like"),
        ("arn:aws:iam::999988887777:role/SpotLab", "belongs to account 999988887777"),
        ("arn:aws-cn:iam::111122223333:role/SpotLab", "in partition aws-cn, but region us-east-1 is in aws"),
    ],
)
def test_a_wrong_role_arn_is_refused_with_what_is_wrong(arn, expected):
    with pytest.raises(InvalidInput, match=re.escape(expected)):
        check_role_arn(arn, ACCOUNT, ["us-east-1"])


@pytest.mark.parametrize("wrong", [[], ["us-east"], ["US-EAST-1"], ["us-east-1\n"], ["us-east-1", "cn-north-1"]])
def test_wrong_regions_are_refused(wrong):
    with pytest.raises(InvalidInput, match="region"):
        check_regions(wrong)


@pytest.mark.parametrize(
    "wrong", ["us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "us-east-1 ", "", None, "ú-e-1"]
)
def test_a_region_of_another_partition_or_none_at_all_is_refused(wrong):
    with pytest.raises(InvalidInput, match="region") as caught:
        check_region(wrong)
    assert caught.value.remedy


@pytest.mark.parametrize("right", ["ab", "x" * 1224, "aZ0_+=,.@:/-"])
def test_an_external_id_that_sts_takes_is_taken(right):
    assert check_external_id(right) == right


@pytest.mark.parametrize("wrong", ["", "a", "x" * 1225, "with space", "ünïcode-canary", "canary;", "canary\n"])
def test_another_external_id_is_refused_and_not_shown(wrong):
    with pytest.raises(InvalidInput, match="2 to 1224") as caught:
        check_external_id(wrong)
    assert "canary" not in str(caught.value)


def test_regions_keep_their_order_and_lose_repeats():
    assert check_regions(["us-gov-west-1", "us-gov-east-1", "us-gov-west-1"]) == ["us-gov-west-1", "us-gov-east-1"]


@pytest.mark.parametrize("run_id", [None, "", "a" * 200, "run/ä ö 7", "0f1e2d3c-0000-4000-8000-000000000000"])
def test_a_session_name_is_always_one_that_sts_takes(run_id):
    assert re.fullmatch(r"[\w+=,.@-]{2,64}", session_name(run_id), re.ASCII)


def test_a_session_name_carries_the_run_id():
    assert session_name("0f1e2d3c-0000-4000-8000-000000000000") == "spotlab-0f1e2d3c-0000-4000-8000-000000000000"
