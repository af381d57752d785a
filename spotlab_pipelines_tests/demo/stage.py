"""The demo's stage: a local AWS that serves a market recording, four accounts of two owners on it, and a lax fifth.

What is set up here is what a real deployment has from elsewhere: AWS, its accounts and their fleets. Everything after
that is the product's own doing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from spotlab_pipelines.accounts.fleet import sync_fleet
from spotlab_pipelines.accounts.registry import Account, add_account, list_accounts
from spotlab_pipelines.accounts.sessions import AccountSessions
from spotlab_pipelines.accounts.steering import assign_version, set_shadow
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database.redis import connect_redis
from spotlab_pipelines.errors import AccessDenied, NotEnoughData
from spotlab_pipelines.experiments.as_of import PastEvaluation, bring_past, evaluate_past
from spotlab_pipelines.experiments.judging import HORIZON_H, Comparison, compare
from spotlab_pipelines.experiments.queries import list_experiments
from spotlab_pipelines.experiments.scorecards import VersionScorecard, version_scorecards
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.settings import Settings, get_settings
from spotlab_pipelines.training.first_models import FirstModel, register_first_models
from spotlab_pipelines_tests.demo.servers import Servers
from spotlab_pipelines_tests.local_aws.accounts import FleetInstance
from spotlab_pipelines_tests.local_aws.client import LocalAwsClient
from spotlab_pipelines_tests.local_aws.fleet import DemoAccount, demo_fleet
from spotlab_pipelines_tests.local_aws.generator import DEFAULT_NAME, generate
from spotlab_pipelines_tests.local_aws.recording import load_recording

ROLE_NAME = "SpotLab"
NAMES = {
    "111111111111": "ada-batch",
    "222222222222": "ada-web",
    "333333333333": "grace-render",
    "444444444444": "grace-shop",
}
OWNERS = {
    "111111111111": "ada@example.com",
    "222222222222": "ada@example.com",
    "333333333333": "grace@example.com",
    "444444444444": "grace@example.com",
}
LEGACY_ID, LEGACY_NAME, LEGACY_OWNER = "555555555555", "ben-legacy", "ben@example.com"
"""The account whose role was made by hand, without a condition on the external id: SpotLab refuses to enter it."""
PAST_EVERY = timedelta(hours=6)
PAST_WINDOWS = 30
"""How far apart the demo's past windows are, and how many: the last week."""

MARKET_DAYS, REQUEST_DAYS, TRAINING_DAYS = 63, 54, 36
"""The generated market is so long that of the past windows' week, the days that models are fitted on, and the week of
prices before those, each lies before the next, whatever the weekday."""


def market_folder(settings: Settings, market: Path | None) -> Path:
    """The recording to serve: the one asked for, else the generated default, which is made once."""
    if market is not None:
        return market
    folder = settings.data_dir / "markets" / DEFAULT_NAME
    if not (folder / "recording.json").is_file():
        generate(folder, days=MARKET_DAYS, request_days=REQUEST_DAYS)
    return folder


def market_key(folder: Path) -> str:
    """A name for what belongs to one recording: readable, and another one for a folder that is only called the same."""
    path = folder.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def fleets_of(settings: Settings, folder: Path) -> list[DemoAccount]:
    """The fleets that run on this market: chosen at the first demo and the same in every later one."""
    kept = settings.data_dir / "markets" / f"{market_key(folder)}-fleets.json"
    if not kept.is_file():
        fleets = demo_fleet(load_recording(folder))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([asdict(fleet) for fleet in fleets], indent=2))
    return [
        DemoAccount(**{**fleet, "fleet": tuple(FleetInstance(**instance) for instance in fleet["fleet"])})
        for fleet in json.loads(kept.read_text())
    ]


def start_local_aws(servers: Servers, folder: Path) -> LocalAwsClient:
    """Serve the recording from a process of its own, and point this process and its children at it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    aws = LocalAwsClient(f"http://127.0.0.1:{port}")
    module = "spotlab_pipelines_tests.local_aws"
    command = [sys.executable, "-m", module, "--market", str(folder), "--port", str(port)]
    aws.enter(os.environ)
    servers.start("local-aws", command, url=aws.advisor_url)
    get_settings.cache_clear()
    return aws


def write_environment(settings: Settings, aws: LocalAwsClient) -> Path:
    """Write a file that gives a shell this demo's settings and local AWS, and return its path."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("SPOTLAB_")}
    exported = ours | aws.environment() | {"SPOTLAB_DATA_DIR": str(settings.data_dir.absolute())}
    of_the_user = "for name in $(env | sed -n 's/^\\(AWS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset \"$name\"; done"
    lines = [of_the_user, *(f"export {name}={shlex.quote(value)}" for name, value in sorted(exported.items()))]
    path = settings.data_dir / "local-aws.sh"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def register_cast(settings: Settings, engine: sa.Engine, fleets: list[DemoAccount]) -> list[Account]:
    """Register the demo's users and accounts; those that are there from an earlier demo stay as they are."""
    for email in sorted(set(OWNERS.values())):
        add_user(engine, email)
    known = {account.account_id: account for account in list_accounts(engine)}
    for fleet in fleets:
        if fleet.account_id not in known:
            known[fleet.account_id] = add_account(
                engine,
                account_id=fleet.account_id,
                name=NAMES[fleet.account_id],
                owner_email=OWNERS[fleet.account_id],
                role_arn=f"arn:aws:iam::{fleet.account_id}:role/{ROLE_NAME}",
                environment=fleet.environment,
                regions=fleet.regions,
                interruption_cost_usd=settings.interruption_cost_usd,
                evaluation_interval_s=settings.evaluation_interval_s,
            )
    return [known[fleet.account_id] for fleet in fleets]


def fill_accounts(aws: LocalAwsClient, accounts: list[Account], fleets: list[DemoAccount]) -> None:
    """Give each account its role, which demands the external id that SpotLab generated, and its fleet."""
    for account, fleet in zip(accounts, fleets, strict=True):
        aws.add_account(
            account.account_id,
            role_name=ROLE_NAME,
            external_id=account.external_id.get_secret_value(),
            regions=fleet.regions,
            fleet=fleet.fleet,
        )


def register_legacy(settings: Settings, engine: sa.Engine, aws: LocalAwsClient, regions: Sequence[str]) -> Account:
    """Register the account with the lax role, unless an earlier demo did, and give it that role."""
    aws.add_account(LEGACY_ID, role_name=ROLE_NAME, external_id=None, regions=regions)
    for account in list_accounts(engine):
        if account.account_id == LEGACY_ID:
            return account
    add_user(engine, LEGACY_OWNER)
    return add_account(
        engine,
        account_id=LEGACY_ID,
        name=LEGACY_NAME,
        owner_email=LEGACY_OWNER,
        role_arn=f"arn:aws:iam::{LEGACY_ID}:role/{ROLE_NAME}",
        regions=regions,
        interruption_cost_usd=settings.interruption_cost_usd,
        evaluation_interval_s=settings.evaluation_interval_s,
    )


def steer(engine: sa.Engine, accounts: list[Account], challenger: str | None) -> None:
    """Let the challenger act for every third LAB instance, and only watch one instance of each account."""
    sessions = AccountSessions(engine)
    for account in accounts:
        fleet = sync_fleet(sessions, engine, account.account_id)
        instance_ids = sorted(fleet["instance_id"])
        set_shadow(engine, account.account_id, instance_ids[-1:], shadow=True)
        if challenger is not None and account.environment == "LAB":
            assign_version(engine, account.account_id, instance_ids[::3], challenger)


def past_instants(count: int) -> list[datetime]:
    """The beginnings of the past windows, the latest first."""
    latest = datetime.now(UTC).timestamp() // PAST_EVERY.total_seconds() * PAST_EVERY.total_seconds()
    return [datetime.fromtimestamp(latest, UTC) - number * PAST_EVERY for number in range(count)]


def past_windows(
    settings: Settings,
    engine: sa.Engine,
    accounts: list[Account],
    instants: list[datetime],
    say: Callable[[str, str], None],
) -> list[PastEvaluation]:
    """Evaluate the accounts' last days, so that MLflow's charts begin with lines; those that have a past are left out.

    What a fresh laboratory did not know then, its first scrapes stand in for. An account that cannot be read has no
    past to show: its own evaluation will say why.
    """
    sessions, archive = AccountSessions(engine), Archive(settings.archive_location)
    fresh = []
    for account in accounts:
        say(f"the past of {account.account_id}", "reading")
        if list_experiments(engine, account.account_id, 1).empty:
            with contextlib.suppress(AccessDenied):
                bring_past(settings, engine, sessions, archive, [account.account_id], instants)
                fresh.append(account.account_id)
    if not fresh:
        return []
    registry = ModelRegistry(engine, settings)
    return evaluate_past(settings, engine, archive, registry, fresh, instants, first_known=True, progress=say)


@dataclass(frozen=True)
class Judgement:
    """The scorecards of the serving versions, and each challenger's comparison with the champion."""

    cards: list[VersionScorecard]
    comparisons: list[Comparison]


def judgement(settings: Settings, engine: sa.Engine) -> Judgement:
    """What the log says of the serving versions, once outcomes were learned and scorecards made."""
    since = datetime.now(UTC) - timedelta(days=settings.scorecard_days)
    serving = [row for row in ModelRegistry(engine, settings).versions() if row.status == "approved"]
    cards: list[VersionScorecard] = []
    for row in serving:
        with contextlib.suppress(NotEnoughData):
            cards += version_scorecards(engine, row.version, horizon_h=HORIZON_H, since=since)
    champions = [row.version for row in serving if row.role == "champion"]
    pairs = [(first, row.version) for first in champions for row in serving if row.version != first]
    found = [compare(engine, *pair, horizon_h=HORIZON_H, since=since) for pair in pairs]
    return Judgement([card for card in cards if card.card is not None], [each for each in found if each is not None])


def first_models(
    settings: Settings, engine: sa.Engine, instants: list[datetime], say: Callable[[str, str], None]
) -> list[FirstModel]:
    """What `spotlab models bootstrap` does, on what was known before the past windows: they judge what it fits."""
    return register_first_models(
        settings,
        engine,
        AccountSessions(engine),
        connect_redis(settings),
        ModelRegistry(engine, settings),
        lambda what: say(what, ""),
        until=min(instants, default=None),
        training_days=TRAINING_DAYS,
    )
