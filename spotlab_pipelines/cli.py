"""`spotlab`: the services of the rooms, by hand. Each command imports its room when it runs and holds no logic itself.

Exit codes: 0 done; 1 a permanent error, someone has to change something; 2 wrong usage; 3 a transient error, try
again; 4 the doctor found problems. An error is one line on stderr; `spotlab --traceback …` shows where it came from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotlab_pipelines.terminal import (
    PERMANENT,
    PROBLEMS,
    complain,
    print_json,
    print_rows,
    progress,
    records,
    unwritable,
)

if TYPE_CHECKING:
    import sqlalchemy as sa
    from dagster import DagsterInstance  # noqa: TID251

    from spotlab_pipelines.settings import Settings

EXIT_CODES = (
    "Exit codes: 0 done; 1 permanent error, someone has to change something; 2 wrong usage; 3 transient error, try "
    "again; 4 the doctor found problems."
)
PRINCIPAL_PLACEHOLDER = "<the AWS account id of SpotLab>"

app = typer.Typer(
    help="SpotLab: predict EC2 Spot interruptions, place instances, compare models.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
accounts_app = typer.Typer(no_args_is_help=True, help="AWS accounts that are evaluated.", epilog=EXIT_CODES)
experiments_app = typer.Typer(no_args_is_help=True, help="What was evaluated and decided.", epilog=EXIT_CODES)
models_app = typer.Typer(no_args_is_help=True, help="Model versions that may be served.", epilog=EXIT_CODES)
app.add_typer(accounts_app, name="accounts")
app.add_typer(experiments_app, name="experiments")
app.add_typer(models_app, name="models")

Scrape = Annotated[bool, typer.Option(help="First scrape what all accounts share: the Advisor and the catalogue.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.callback()
def _all(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    """`run` looks for --traceback itself."""


def main() -> None:
    """Entry point of the `spotlab` program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    from spotlab_pipelines.errors import SpotLabError

    try:
        app(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else PERMANENT
    except SpotLabError as error:
        if "--traceback" in arguments:
            raise
        return complain(error)
    except OSError as error:
        known = unwritable(error)
        if known is None or "--traceback" in arguments:
            raise
        return complain(known)
    return 0


@app.command()
def up() -> None:
    """Start the stores that are not configured elsewhere, create the databases, migrate them."""
    from spotlab_pipelines.database.migrate import current_revision, ensure_databases, require_current, upgrade
    from spotlab_pipelines.local import status
    from spotlab_pipelines.local import up as start

    settings = _settings()
    started = start(settings).started
    created = ensure_databases(settings)
    upgrade(settings)
    for store in status(settings):
        print(f"{store.name}: {'started' if store.name in started else store.state} at {store.address}")
    print(f"databases: {', '.join(created) + ' created' if created else 'there'}")
    print(f"schema: revision {current_revision(require_current(settings))}")


@app.command()
def down() -> None:
    """Stop the embedded stores of the data directory, and nothing else; the data stays."""
    from spotlab_pipelines.local import down as stop

    stopped = stop(_settings())
    print(f"stopped: {', '.join(stopped)}" if stopped else "No embedded store was running.")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check every setting and store, and say what is wrong and what to do. Nothing is started or changed."""
    from spotlab_pipelines.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            colour = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "FAIL": typer.colors.RED}[finding.state]
            typer.echo(f"{typer.style(f'{finding.state:4}', fg=colour)}  {finding.check}: {finding.found}")
            if finding.remedy is not None:
                typer.echo(f"      {finding.remedy}")
    if as_json:
        print_json([vars(finding) for finding in findings])
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(PROBLEMS)


@accounts_app.command("add")
def accounts_add(
    *,
    account_id: Annotated[str, typer.Option(help="12-digit AWS account id.")],
    name: Annotated[str, typer.Option(help="What people call it.")],
    owner: Annotated[str, typer.Option(help="E-mail address of its owner; a new one becomes a user.")],
    role_arn: Annotated[str, typer.Option(help="ARN of the role in the account that SpotLab assumes.")],
    region: Annotated[list[str], typer.Option(help="Region of its fleet; repeat for more.")],
    environment: Annotated[str, typer.Option(help="LAB, or PROD: decided and logged, never acted on.")] = "LAB",
    interruption_cost_usd: Annotated[
        float | None, typer.Option(help="What one interruption costs, in USD. Default: the setting.")
    ] = None,
    interval_s: Annotated[
        int | None, typer.Option(help="Seconds between evaluations. Default: the setting evaluation_interval_s.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Register an account; print its external id and the trust policy for its role, which only its owner may see."""
    from spotlab_pipelines.accounts.registry import add_account, trust_policy
    from spotlab_pipelines.accounts.users import add_user
    from spotlab_pipelines.errors import NotFound

    settings = _settings()
    cost = settings.interruption_cost_usd if interruption_cost_usd is None else interruption_cost_usd
    values: dict[str, Any] = {
        "account_id": account_id, "name": name, "owner_email": owner, "role_arn": role_arn, "regions": region,
        "environment": environment, "interruption_cost_usd": cost,
        "evaluation_interval_s": settings.evaluation_interval_s if interval_s is None else interval_s,
    }  # fmt: skip
    with _database(settings) as engine:
        # Asked first: once the account is in, nothing may come between it and its external id, which is shown only now.
        principal, unknown_because = _own_principal()
        try:
            account = add_account(engine, **values)
        except NotFound:
            # Only the owner is missing: everything else was checked before. So a mistake leaves no new user behind.
            add_user(engine, owner)
            account = add_account(engine, **values)
    policy = trust_policy(account, principal)
    if unknown_because is not None:
        typer.echo(f"Fill in the principal of the trust policy by hand: {unknown_because}", err=True)
    if as_json:
        shown = {"account_id": account_id, "external_id": account.external_id.get_secret_value()}
        print_json(shown | {"trust_policy": json.loads(policy)})
        return
    print(f"Account {account_id} is registered. For its owner only:")
    print(f"External id: {account.external_id.get_secret_value()}")
    print(f"Trust policy of {role_arn}:\n{policy}")


@accounts_app.command("list")
def accounts_list(
    every: Annotated[bool, typer.Option("--all", help="Disabled accounts as well.")] = False, as_json: Json = False
) -> None:
    """List the accounts; external ids are never shown again."""
    from spotlab_pipelines.accounts.registry import list_accounts

    with _database(_settings()) as engine:
        accounts = list_accounts(engine, None if every else "active")
    print_rows(
        [{name: value for name, value in vars(account).items() if name != "external_id"} for account in accounts],
        as_json=as_json,
        empty="No account is registered yet: `spotlab accounts add`.",
    )


@app.command()
def evaluate(
    account: Annotated[str, typer.Argument(help="12-digit AWS account id.")],
    scrape: Scrape = True,
    as_json: Json = False,
) -> None:
    """Evaluate one account now, through Dagster: scrape, predict, decide, log. Prints the decisions."""
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import evaluate_account, open_instance
    from spotlab_pipelines.experiments.queries import latest_decisions

    with _database(_settings()) as engine:
        get_account(engine, account)
        with open_instance() as instance:
            if scrape:
                _scrape_shared(instance)
            outcome = evaluate_account(instance, defs, account, progress=progress)
        if not outcome.success:
            raise outcome.failure()
        decisions = latest_decisions(engine, account, outcome.window_start)
    print_rows(records(decisions), as_json=as_json, empty="The account has no running instances.")


@experiments_app.command("list")
def experiments_list(
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    limit: Annotated[int, typer.Option(help="How many, latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the evaluations, latest first."""
    from spotlab_pipelines.experiments.queries import list_experiments

    with _database(_settings()) as engine:
        found = list_experiments(engine, account, limit)
    print_rows(records(found), as_json=as_json, empty="Nothing was evaluated yet: `spotlab evaluate ACCOUNT`.")


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """List the registered versions: the champion, the challengers, then the others."""
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = _settings()
    with _database(settings) as engine:
        versions = ModelRegistry(engine, settings).versions()
    rows = [vars(version) for version in versions]
    if not as_json:
        shown = ("version", "role", "status", "feature_spec", "horizons_h", "metrics", "registered_by")
        rows = [{name: row[name] for name in shown} for row in rows]
    print_rows(rows, as_json=as_json, empty="No version is registered yet: `spotlab models bootstrap`.")


@models_app.command("bootstrap")
def models_bootstrap(scrape: Scrape = True, as_json: Json = False) -> None:
    """Fit and register the first versions where there are none; otherwise nothing is done."""
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.defs.run import open_instance
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.training.first_models import register_first_models

    settings = _settings()
    with _database(settings) as engine:
        if scrape:
            with open_instance() as instance:
                _scrape_shared(instance)
        registered = register_first_models(
            settings, engine, AccountSessions(engine), connect_redis(settings), ModelRegistry(engine, settings),
            progress=lambda text: typer.echo(text, err=True),
        )  # fmt: skip
    print_rows([vars(report) for report in registered], as_json=as_json, empty="Nothing was registered.")


def _scrape_shared(instance: DagsterInstance) -> None:
    """Scrape the Advisor and the catalogue through Dagster; end the command if that fails."""
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import scrape_shared_market

    for outcome in scrape_shared_market(instance, defs, progress=progress):
        if not outcome.success:
            raise outcome.failure()


def _settings() -> Settings:
    from spotlab_pipelines.settings import get_settings

    return get_settings()


@contextmanager
def _database(settings: Settings) -> Iterator[sa.Engine]:
    from spotlab_pipelines.database.engine import database_errors
    from spotlab_pipelines.database.migrate import require_current

    with database_errors():
        yield require_current(settings)


def _own_principal() -> tuple[str, str | None]:
    """SpotLab's own AWS account, for a trust policy; where AWS does not tell, a placeholder and the reason."""
    from spotlab_pipelines.accounts.sessions import own_account_id
    from spotlab_pipelines.errors import SpotLabError

    try:
        return own_account_id(), None
    except SpotLabError as error:
        return PRINCIPAL_PLACEHOLDER, " ".join(str(error).split())
    except Exception as error:
        # Whatever is wrong with our own credentials, a customer's registration does not depend on it.
        return PRINCIPAL_PLACEHOLDER, f"SpotLab's own AWS account is not known ({type(error).__name__})."
