"""The registry: external ids are ours, a registration is never overwritten, and secrets do not show."""

import json
import math

import pytest

from spotlab_pipelines.accounts.registry import get_account, list_accounts, trust_policy
from spotlab_pipelines.accounts.users import add_user, get_user
from spotlab_pipelines.errors import InvalidInput, NotFound
from spotlab_pipelines_tests.accounts.registering import ANA, register


def test_an_account_is_registered_as_given(engine):
    account = register(engine, environment="PROD", interruption_cost_usd=2.5, evaluation_interval_s=600)
    assert account == get_account(engine, "111122223333")
    assert (account.environment, account.interruption_cost_usd, account.evaluation_interval_s) == ("PROD", 2.5, 600)
    assert (account.owner_email, account.regions, account.state) == (ANA, ("us-east-1",), "active")
    assert list_accounts(engine) == [account]


def test_external_ids_have_at_least_128_bits_and_differ(engine):
    ids = {register(engine, f"{number:012d}").external_id.get_secret_value() for number in range(8)}
    assert len(ids) == 8
    assert all(len(value) * math.log2(64) >= 128 for value in ids)


def test_an_external_id_cannot_be_given_from_outside(engine):
    with pytest.raises(TypeError, match="external_id"):
        register(engine, external_id="mine")


def test_an_account_shows_no_external_id(engine):
    account = register(engine)
    secret = account.external_id.get_secret_value()
    assert secret not in repr(account)
    assert secret not in str(account)


def test_a_second_registration_is_refused_and_the_first_stays(engine):
    first = register(engine)
    with pytest.raises(InvalidInput, match="registered already"):
        register(engine, name="Other", regions=["eu-west-1"])
    assert get_account(engine, first.account_id) == first


def test_the_owner_must_exist(engine):
    with pytest.raises(NotFound, match=r"nobody@example\.com"):
        register(engine, owner_email="nobody@example.com")
    assert list_accounts(engine) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"account_id": "12"}, "12 digits"),
        ({"role_arn": "arn:aws:iam::999988887777:role/SpotLab"}, "999988887777"),
        ({"regions": []}, "at least one region"),
        ({"environment": "TEST"}, "LAB or PROD"),
        ({"name": " "}, "1 to 100 characters"),
        ({"evaluation_interval_s": 1}, "60 to 86400"),
        ({"interruption_cost_usd": -1.0}, "0 to 1,000,000 USD"),
        ({"interruption_cost_usd": math.nan}, "0 to 1,000,000 USD"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(engine, changes, expected):
    with pytest.raises(InvalidInput, match=expected) as caught:
        register(engine, **changes)
    assert caught.value.remedy
    assert list_accounts(engine) == []


def test_an_unknown_account_is_not_found(engine):
    with pytest.raises(NotFound, match="123456789012"):
        get_account(engine, "123456789012")


def test_the_trust_policy_lets_in_our_principal_with_the_external_id_only(engine):
    account = register(engine)
    (statement,) = json.loads(trust_policy(account, "123456789012"))["Statement"]
    assert statement["Principal"] == {"AWS": "123456789012"}
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": account.external_id.get_secret_value()}}


def test_adding_a_user_twice_gives_the_same_user_with_the_first_role(engine):
    first = add_user(engine, "Ana@Example.com", "lab")
    assert add_user(engine, ANA, "admin") == first == get_user(engine, ANA)
    assert first.role == "lab"


@pytest.mark.parametrize(("email", "role"), [("ana", "user"), ("a b@c.de", "user"), (ANA, "king")])
def test_bad_users_are_refused(engine, email, role):
    with pytest.raises(InvalidInput):
        add_user(engine, email, role)
