"""Canaries in the place of every secret, and a hunt for them wherever something is kept or shown: 0 hits.

The accounts' external ids, the secrets and tokens that the local AWS issues, and SpotLab's own secret key are
recognisable here. The runs go well, are denied, fail, and meet an AWS that echoes what it was sent.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from spotlab_pipelines.cli import run
from spotlab_pipelines.database.engine import database_url, engine_for
from spotlab_pipelines.definitions import defs
from spotlab_pipelines.defs.run import scrape_shared_market
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.integration.conftest import Laboratory
from spotlab_pipelines_tests.integration.leaks import database_text, files_text, redis_text
from spotlab_pipelines_tests.local_aws import credentials

CANARY = "CaNaRy0"
TOKEN, SECRET, EXTERNAL_ID, OWN_SECRET = (f"{CANARY}{kind}" for kind in ("token", "secret", "external", "own"))

Program = Callable[..., str]


@pytest.fixture
def birds(laboratory: Laboratory, owner: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    """The laboratory, every secret of which is a canary before anybody has read one."""
    count = itertools.count()

    def token_urlsafe(size: int) -> str:
        """What the local AWS makes secrets (30 bytes) and tokens (120) of."""
        return f"{SECRET if size == 30 else TOKEN}{next(count)}".ljust(size, "x")

    monkeypatch.setattr(credentials, "secrets", SimpleNamespace(**vars(credentials.secrets)))
    monkeypatch.setattr(credentials.secrets, "token_urlsafe", token_urlsafe)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWN_SECRET)
    for account in laboratory.accounts:
        external_id = f"{EXTERNAL_ID}-{account.account_id}"
        with owner.begin() as connection:
            connection.execute(
                sa.text("update accounts set external_id = :e where account_id = :a"),
                {"e": external_id, "a": account.account_id},
            )
        laboratory.aws.add_account(account.account_id, external_id=external_id, regions=account.regions)
    return laboratory


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run a command line in this process; returns all that it showed."""

    def spotlab(*arguments: str) -> str:
        capfd.readouterr()
        code = run(arguments)
        shown = capfd.readouterr()
        return f"spotlab {' '.join(arguments)}: {code}\n{shown.out}\n{shown.err}"

    return spotlab


def provoke(birds: Laboratory, program: Program) -> str:
    """Runs that go well, are denied and fail, and every command that looks at accounts; returns what was shown."""
    well, denied, failing, lax = (account.account_id for account in birds.accounts)
    assert all(outcome.success for outcome in scrape_shared_market(birds.instance, defs))
    birds.aws.set_denies(denied, "assume")
    # A wrong clock or key: AWS then quotes the request, with its token.
    quoted = f"The canonical string should have been 'POST\n/\n\nhost:ec2\nx-amz-security-token:{TOKEN}9xx\n\nhost'"
    signature = {"code": "SignatureDoesNotMatch", "status": 403, "message": quoted}
    birds.aws.add_fault("DescribeSpotPriceHistory", account_id=failing, times=None, **signature)
    assert not birds.run("evaluation", well, denied, failing, lax).success
    states = dict(birds.rows("select account_id, state from evaluations"))
    assert states == {well: "logged", denied: "failed", failing: "failed", lax: "logged"}
    shown = program("evaluate", well, "--no-scrape", "--json")
    assert ": 0\n" in shown
    shown += program("evaluate", denied, "--no-scrape") + program("--traceback", "accounts", "validate", denied)
    birds.aws.add_account(lax, external_id=None, regions=birds.accounts[3].regions)
    for account_id in (well, denied, failing, lax):
        shown += program("accounts", "validate", account_id) + program("accounts", "validate", account_id, "--json")
    echo = f"1 validation error detected: Value '{EXTERNAL_ID}-{well}' at 'externalId' failed to satisfy constraint"
    birds.aws.add_fault("AssumeRole", code="ValidationError", message=echo)
    shown += program("accounts", "validate", well)
    assert "'***' at 'externalId'" in shown, "AWS did echo it"
    for command in ("doctor", "accounts list", "experiments list", "models list", "users list"):
        shown += program(*command.split()) + program(*command.split(), "--json")
    return shown


@pytest.mark.timeout(900)
def test_no_secret_is_kept_or_shown_anywhere(
    birds: Laboratory,
    owner: sa.Engine,
    program: Program,
    stores_directory: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = provoke(birds, program)
    captured = capfd.readouterr()
    servers = {name: engine_for(database_url(birds.settings, name), pool_size=1) for name in ("dagster", "mlflow")}
    places = {
        "command line": shown + captured.out + captured.err,
        "log records": "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records),
        "files": files_text(tmp_path),
        "server logs": "\n".join(path.read_text(errors="replace") for path in stores_directory.rglob("server.log")),
        "redis": redis_text(birds.redis),
        "domain database": database_text(owner, but=("accounts", "external_id")),
        **{f"{name} database": database_text(engine) for name, engine in servers.items()},
    }
    for engine in servers.values():
        engine.dispose()

    # The hunt would find them: they were in play, and each place was read.
    kept = birds.aws.app.credentials.sessions.values()
    assert len(kept) > 5
    assert all(session.token.startswith(TOKEN) for session in kept)
    assert database_text(owner).count(EXTERNAL_ID) == len(birds.accounts)
    assert len(audit_rows(owner, "assume_role")) > 10
    witnesses = {
        "redis": "m5.",
        "server logs": "database system is ready",
        "log records": "Check the role's permissions",
    }
    for name, text in places.items():
        assert witnesses.get(name, birds.accounts[0].account_id) in text, name

    password = owner.url.password
    assert password
    for name, text in places.items():
        for secret in (CANARY, password):
            at = text.find(secret)
            assert at < 0, f"{name}: {text[max(0, at - 300) : at + 100]}"
