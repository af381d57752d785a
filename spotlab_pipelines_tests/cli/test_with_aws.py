"""The command line against the local AWS: what an owner pastes works, and an account goes the whole way by hand."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from spotlab_pipelines.accounts.access import skipped_accounts, store_verdict
from spotlab_pipelines.accounts.registry import Account
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.cli import accounts as cli_accounts
from spotlab_pipelines.errors import AccountSkipped
from spotlab_pipelines.settings import get_settings
from spotlab_pipelines_tests.accounts.registering import audit_rows, register
from spotlab_pipelines_tests.cli.conftest import Answer, Spotlab
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.credentials import OWN_ACCOUNT
from spotlab_pipelines_tests.local_aws.server import LocalAws

PROGRAM = str(Path(sys.executable).parent / "spotlab")
ONE, OTHER = "444455556666", "777788889999"
ADD_ONE = (
    "accounts", "add", "--account-id", ONE, "--name", ONE, "--owner", "bea@example.org",
    "--role-arn", f"arn:aws:iam::{ONE}:role/SpotLab", "--region", "us-east-1",
)  # fmt: skip


def add(spotlab: Spotlab, account_id: str, *options: str) -> dict[str, Any]:
    """Register an account; its role comes afterwards, so it is not tried out unless `options` say so."""
    options = options or ("--no-validate",)
    answer = spotlab(
        "accounts", "add", "--account-id", account_id, "--name", account_id, "--owner", "bea@example.org",
        "--role-arn", f"arn:aws:iam::{account_id}:role/SpotLab", "--region", "us-east-1", "--json", *options,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return answer.json


def test_the_pasted_trust_policy_lets_us_in_and_the_doctor_sees_it(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws
) -> None:
    shown = add(spotlab, ONE)
    local_aws.add_account(ONE, external_id=None, trust_policy=shown["trust_policy"])
    local_aws.add_account(OTHER, external_id=add(spotlab, OTHER)["external_id"], denies="assume")
    answer = spotlab("doctor", "--json")
    found = {finding["check"]: finding for finding in answer.json}
    assert found["aws credentials"]["state"] == "OK"
    assert found[f"account {ONE}"]["state"] == "OK"
    assert found[f"account {OTHER}"]["state"] == "FAIL"
    assert "AccessDenied" in found[f"account {OTHER}"]["found"]
    assert answer.code == 4
    assert shown["external_id"] not in answer.out


def test_the_doctor_marks_nothing_and_asks_nothing_of_a_marked_account(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOTLAB_ACCESS_DENIALS_MAX", "1")
    get_settings.cache_clear()
    local_aws.add_account(ONE, external_id=add(spotlab, ONE)["external_id"], denies="assume")
    rows = sa.text("select account_id, access_state, access_checked_at, denials, updated_at from accounts")
    with engine.connect() as connection:
        before = connection.execute(rows).all()
    assert spotlab("doctor", "--json").code == 4
    with engine.connect() as connection:
        assert connection.execute(rows).all() == before
    assert [(row["outcome"], row["actor"]) for row in audit_rows(engine, "assume_role")] == [("refused", "run:doctor")]
    store_verdict(engine, ONE, "lax", "It lets others in.", actor=None)
    found = {finding["check"]: finding for finding in spotlab("doctor", "--json").json}
    assert (found[f"account {ONE}"]["state"], "It lets others in" in found[f"account {ONE}"]["found"]) == ("FAIL", True)
    assert len(audit_rows(engine, "assume_role")) == 1


def test_the_doctor_asks_who_spotlab_is_in_the_partitions_that_have_accounts(
    spotlab: Spotlab, engine: sa.Engine, own_profiles: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(engine, ONE, role_arn=f"arn:aws-cn:iam::{ONE}:role/SpotLab", regions=["cn-northwest-1"])

    def found() -> dict[str, Any]:
        return next(one for one in spotlab("doctor", "--json").json if one["check"] == "aws credentials")

    assert found()["state"] == "FAIL"
    assert "SPOTLAB_AWS_CN_PROFILE" in found()["remedy"]
    monkeypatch.setenv("SPOTLAB_AWS_CN_PROFILE", own_profiles["aws-cn"])
    get_settings.cache_clear()
    assert (found()["state"], found()["found"]) == ("OK", f"SpotLab is AWS account {OWN_ACCOUNT} in aws-cn")


def test_validation_shows_each_probe_and_its_exit_code_tells_the_verdict(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws
) -> None:
    secret = add(spotlab, ONE)["external_id"]
    seen = {}
    for verdict, role in {
        "ok": {"external_id": secret},
        "lax": {"external_id": None},
        "broken": {"external_id": secret, "denied_actions": ["ec2:DescribeInstances"]},
    }.items():
        local_aws.add_account(ONE, **role)
        answer, table = spotlab("accounts", "validate", ONE, "--json"), spotlab("accounts", "validate", ONE)
        assert answer.code == table.code == (0 if verdict == "ok" else 1), answer.err
        assert answer.json["verdict"] == verdict
        seen[verdict] = {probe["probe"]: probe["came"] for probe in answer.json["probes"]}
        assert all(probe in table.out for probe in seen[verdict])
        assert f"Account {ONE}: {verdict}." in table.out
        (account,) = spotlab("accounts", "list", "--json").json
        assert account["access_state"] == {"broken": "access_broken"}.get(verdict, verdict)
        assert (account["access_reason"] is None) == (verdict == "ok")
        assert secret not in answer.out + table.out + spotlab("accounts", "list").out
        assert verdict == "ok" or f"accounts onboarding {ONE}" in answer.json["remedy"]
    assert seen["ok"]["AssumeRole without an external id"] == "refused"
    assert seen["lax"]["AssumeRole without an external id"] == "granted"
    assert seen["broken"]["ec2:DescribeInstances"] == "denied"
    assert seen["broken"]["ec2:DescribeSpotPriceHistory"] == "allowed"


def test_the_onboarding_template_is_what_lets_us_in(spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws) -> None:
    secret = add(spotlab, ONE)["external_id"]
    answer = spotlab("accounts", "onboarding", ONE)
    assert answer.code == 0, answer.err
    role = answer.json["Resources"]["SpotLabRole"]["Properties"]
    trust = role["AssumeRolePolicyDocument"]
    principal = trust["Statement"][0]["Principal"]
    assert principal == {"AWS": {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{OWN_ACCOUNT}:root"}}
    principal["AWS"] = f"arn:aws:iam::{OWN_ACCOUNT}:root"  # what CloudFormation makes of it
    local_aws.add_account(ONE, external_id=None, trust_policy=trust)
    assert spotlab("accounts", "validate", ONE).code == 0
    assert secret in answer.out
    assert secret not in answer.err
    assert spotlab("accounts", "onboarding", OTHER).code == 1


def listed(spotlab: Spotlab) -> dict[str, Any]:
    (account,) = spotlab("accounts", "list", "--json").json
    return account


@pytest.mark.parametrize("verdict", ["ok", "lax", "broken"])
def test_a_new_account_is_tried_out_and_stays_whatever_comes_of_it(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    show = cli_accounts._print_registered

    def deploy(account: Account, policy: str) -> None:
        """An owner who is quick: the role is there once the policy is shown."""
        show(account, policy)
        role = {"ok": {"trust_policy": json.loads(policy)}, "lax": {}, "broken": {"denies": "assume"}}[verdict]
        local_aws.add_account(ONE, external_id=None, **role)

    monkeypatch.setattr(cli_accounts, "_print_registered", deploy)
    answer = spotlab(*ADD_ONE)
    assert answer.code == 0, answer.err
    last = answer.out.splitlines()[-1]
    expected = {
        "ok": "AWS lets SpotLab in with this external id, and not without it: ok.",
        "lax": "Paste the trust policy above into the role",
        "broken": "Deploy the role with this policy",
    }
    assert expected[verdict] in last
    assert (f"spotlab accounts validate {ONE}" in last) == (verdict != "ok")
    account = listed(spotlab)
    assert account["access_state"] == {"broken": "access_broken"}.get(verdict, verdict)
    with engine.connect() as connection:
        secret = connection.scalar(sa.text("select external_id from accounts"))
    assert answer.out.count(secret) == 2, "once for the owner to read, once in the policy"
    assert secret not in answer.err
    if verdict != "ok":
        assert spotlab("evaluate", ONE, "--no-scrape").code == 1
        skipped = skipped_accounts(engine, datetime.now(UTC), retry_s=60)
        assert list(skipped) == [ONE]


def test_an_account_whose_role_is_not_tried_out_stays_unvalidated(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws
) -> None:
    assert "access" not in add(spotlab, ONE)
    assert listed(spotlab)["access_state"] == "unknown"
    assert audit_rows(engine, "validate_access") == []


@pytest.mark.parametrize("what", ["AWS is down", "no keys of ours"])
def test_an_account_is_registered_although_aws_cannot_be_asked(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "AWS is down":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
    shown = add(spotlab, ONE, "--validate")
    assert shown["external_id"]
    assert shown["access"]["verdict"] == "unknown"
    assert "not validated yet" in shown["access"]["told"]
    assert f"spotlab accounts validate {ONE}" in shown["access"]["remedy"]
    assert listed(spotlab)["access_state"] == "unknown"
    (row,) = audit_rows(engine, "validate_access")
    assert row["outcome"] == "failed"


def test_an_environment_is_changed_and_on_record(spotlab: Spotlab, engine: sa.Engine) -> None:
    add(spotlab, ONE)
    assert spotlab("accounts", "set-environment", ONE, "PROD").code == 0
    (account,) = spotlab("accounts", "list", "--json").json
    assert account["environment"] == "PROD"
    assert spotlab("accounts", "set-environment", ONE, "TEST").code == 1
    (row,) = audit_rows(engine, "change_environment")
    assert (row["details"], row["actor"][:4]) == ({"before": "LAB", "after": "PROD"}, "cli:")


def test_a_disabled_account_is_not_entered_until_it_is_enabled(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws
) -> None:
    local_aws.add_account(ONE, external_id=add(spotlab, ONE)["external_id"])
    sessions = AccountSessions(engine)
    assert spotlab("accounts", "disable", ONE).code == 0
    with pytest.raises(AccountSkipped, match=f"spotlab accounts enable {ONE}"):
        sessions.get_ec2_client(ONE, "us-east-1")
    assert spotlab("accounts", "list", "--json").json == []
    assert spotlab("accounts", "enable", ONE).out == f"Account {ONE} is active.\n"
    sessions.get_ec2_client(ONE, "us-east-1").describe_instances()
    told = [(row["action"], row["details"]) for row in audit_rows(engine) if row["action"].endswith("able_account")]
    assert told == [
        ("disable_account", {"before": "active", "after": "disabled"}),
        ("enable_account", {"before": "disabled", "after": "active"}),
    ]
    assert spotlab("accounts", "disable", OTHER).code == 1


def test_the_trust_policy_names_the_principal_that_is_asked_for(spotlab: Spotlab, engine: sa.Engine) -> None:
    ours = "arn:aws:iam::123456789012:role/SpotLabPipeline"
    policy = add(spotlab, ONE, "--no-validate", "--principal", ours)["trust_policy"]
    assert policy["Statement"][0]["Principal"] == {"AWS": ours}
    refused = spotlab(*(word.replace(ONE, OTHER) for word in ADD_ONE), "--no-validate", "--principal", "everybody")
    assert refused.code == 1
    assert "everybody" in refused.err
    assert listed(spotlab)["account_id"] == ONE, "what is refused is not registered"


@pytest.mark.timeout(600)  # two processes that load Dagster and MLflow anew
def test_an_account_goes_the_whole_way_by_hand(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws, environment: dict[str, str], mlflow_database: str
) -> None:
    fleet = [FleetInstance("m5.large", "us-east-1", "use1-az1")]
    local_aws.add_account(ONE, external_id=add(spotlab, ONE)["external_id"], fleet=fleet)
    everything = os.environ | environment | local_aws.environment()
    everything["SPOTLAB_ADVISOR_URL"] = local_aws.advisor_url

    def program(*arguments: str) -> str:
        done = subprocess.run(
            [PROGRAM, *arguments], env=everything, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert spotlab("up").code == 0
    assert "champion" in {model["role"] for model in json.loads(program("models", "bootstrap", "--json"))}
    assert spotlab("models", "list", "--json").json[0]["role"] == "champion"
    told = program("evaluate", ONE, "--no-scrape")
    assert told.count("champion, decides") == 1
    (show,) = (line.partition("spotlab ")[2] for line in told.splitlines() if line.startswith("As logged"))
    rows = spotlab(*show.split(), "--json").json["rows"]
    assert {row["decision"] for row in rows} <= {"STAY", "SWITCH", "FALLBACK_ON_DEMAND"}
    assert all(row["decision"] in told for row in rows)
    (evaluation,) = spotlab("experiments", "list", "--json").json
    assert (evaluation["account_id"], evaluation["state"]) == (ONE, "logged")


class Page(http.server.BaseHTTPRequestHandler):
    """An HTML page where the Advisor's feed should be."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html><body>Sign in to the guest network</body></html>")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def html_page() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/feed.json"
        server.shutdown()


@pytest.fixture
def evaluate_with(
    spotlab: Spotlab, engine: sa.Engine, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """`spotlab evaluate` of an account that can be entered, with changed settings."""
    local_aws.add_account(ONE, external_id=add(spotlab, ONE)["external_id"])

    def run(**changes: str) -> Answer:
        for name, value in changes.items():
            monkeypatch.setenv(f"SPOTLAB_{name.upper()}", value)
        get_settings.cache_clear()
        return spotlab("evaluate", ONE)

    return run


def complaint(answer: Answer) -> str:
    """The one line that says what went wrong, after the lines of progress."""
    (line,) = [line for line in answer.err.splitlines() if line.startswith("spotlab: ")]
    return line


def test_an_advisor_that_is_a_web_page_is_named_and_permanent(
    evaluate_with: Callable[..., Answer], html_page: str
) -> None:
    answer = evaluate_with(advisor_url=html_page)
    assert complaint(answer).startswith("spotlab: spot_advisor failed: SourceMalformed: "), answer.err
    assert complaint(answer).endswith("look at what the source returned and scrape again.")
    assert answer.code == 1


def test_an_advisor_that_is_down_is_named_and_worth_another_try(evaluate_with: Callable[..., Answer]) -> None:
    answer = evaluate_with(advisor_url="http://127.0.0.1:1/feed.json", http_timeout_s="2")
    assert complaint(answer).startswith("spotlab: spot_advisor failed: SourceUnavailable: "), answer.err
    assert "SPOTLAB_ADVISOR_URL" in complaint(answer)
    assert answer.code == 3


def test_a_cache_that_is_down_is_named_and_worth_another_try(evaluate_with: Callable[..., Answer]) -> None:
    answer = evaluate_with(redis_url="redis://127.0.0.1:1/0")
    assert ": StoreUnavailable: " in complaint(answer)
    assert answer.code == 3
