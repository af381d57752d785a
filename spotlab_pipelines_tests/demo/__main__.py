"""`make demo` and `make dev`: the whole flow on a fresh machine, and everything kept up to look around.

Starts the stores and a local AWS, registers accounts and models, evaluates every account through Dagster, prints what
was decided. Whatever this process started, it stops.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from spotlab_pipelines.errors import LocalStackError, SpotLabError
from spotlab_pipelines.settings import Settings, default_data_dir, get_settings
from spotlab_pipelines.terminal import console, unwritable

if TYPE_CHECKING:
    from rich.console import Console

    from spotlab_pipelines_tests.demo.servers import Servers
    from spotlab_pipelines_tests.local_aws.client import LocalAwsClient


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 if every account was evaluated, 1 with one line that says why not."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--market", type=Path, metavar="DIR", help="a market recording; default: the generated one")
    parser.add_argument("--keep-up", action="store_true", help="then keep Dagster, MLflow and the stores up")
    options = parser.parse_args(arguments)

    from spotlab_pipelines_tests.demo.signals import end_on_signals
    from spotlab_pipelines_tests.local_aws.client import LocalAwsError
    from spotlab_pipelines_tests.local_aws.recording import RecordingError

    end_on_signals()
    try:
        return run(options.market and options.market.resolve(), keep_up=options.keep_up)
    except (SpotLabError, LocalAwsError, RecordingError) as error:
        why: Exception = error
    except OSError as error:
        known = unwritable(error)
        if known is None:
            raise
        why = known
    except KeyboardInterrupt:
        return 130
    print(f"make {'dev' if options.keep_up else 'demo'}: {' '.join(str(why).split())}", file=sys.stderr)
    return 1


def run(market: Path | None, *, keep_up: bool) -> int:
    """Set the stage, evaluate every account, show it; then keep everything up, or end what was started."""
    from spotlab_pipelines_tests.demo.alone import alone
    from spotlab_pipelines_tests.local_aws.client import forget_aws

    forget_aws(os.environ)
    settings = settings_for(market)
    with alone(settings.data_dir):
        return run_alone(settings, market, keep_up=keep_up)


def run_alone(settings: Settings, market: Path | None, *, keep_up: bool) -> int:
    """`run`, once no other demo is on this data directory."""
    from spotlab_pipelines.cli.decisions import WIDTH
    from spotlab_pipelines.doctor.stores import mlruns
    from spotlab_pipelines.local import down, up
    from spotlab_pipelines_tests.demo import show, stage
    from spotlab_pipelines_tests.demo.servers import Servers, require_free
    from spotlab_pipelines_tests.demo.signals import postponed, undisturbed

    began = time.monotonic()
    if keep_up:
        require_free(settings.dagster_port, setting="SPOTLAB_DAGSTER_PORT", what="the Dagster UI")
        require_free(settings.mlflow_port, setting="SPOTLAB_MLFLOW_PORT", what="MLflow")
    # Before anything is started: it would only show when the first model is registered.
    mlruns(settings)
    screen = console(WIDTH)
    servers = Servers(settings.data_dir / "logs")
    started: tuple[str, ...] = ()
    try:
        with show.told(screen, "Postgres and Redis are up"), postponed():
            started = up(settings).started
        folder = stage.market_folder(settings, market)
        with show.told(screen, f"A local AWS serves the market recording {folder.name}"):
            aws = stage.start_local_aws(servers, folder)
        success = False
        try:
            success = evaluate_everything(screen, get_settings(), aws, folder, past_windows=stage.PAST_WINDOWS)
        except SpotLabError as error:
            if not keep_up:
                raise
            # Whoever asked for the UIs wants to see there why it failed.
            show.print_failure(screen, str(error))
        screen.print(f"\nDone in {time.monotonic() - began:.0f} s.")
        if keep_up:
            keep_everything_up(screen, get_settings(), servers, aws)
        show.how_to_look_further(screen, market)
        return 0 if success else 1
    finally:
        with undisturbed():
            servers.stop()
            down(settings, only=started)


def settings_for(market: Path | None) -> Settings:
    """The process's settings; another market than the default one gets a data directory of its own.

    Accounts, prices and models of one market mean nothing in another.
    """
    from spotlab_pipelines_tests.demo.stage import market_key

    if market is not None and "SPOTLAB_DATA_DIR" not in os.environ:
        default = default_data_dir()
        os.environ["SPOTLAB_DATA_DIR"] = str(default.with_name(f"{default.name}-{market_key(market)}"))
        get_settings.cache_clear()
    return get_settings()


def evaluate_everything(
    screen: Console, settings: Settings, aws: LocalAwsClient, folder: Path, *, past_windows: int
) -> bool:
    """Register accounts and models, evaluate every account but the lax one, first its past, then the present through
    Dagster, print what was decided.

    Returns:
        Whether every account that is evaluated came through.

    Raises:
        SpotLabError: what all accounts share could not be scraped, or a store or AWS failed.
    """
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.database.migrate import ensure_databases, upgrade
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import (
        evaluate_account,
        judge_versions,
        learn_of_account,
        open_instance,
        scrape_shared_market,
    )
    from spotlab_pipelines_tests.demo import show, stage
    from spotlab_pipelines_tests.demo.holdings import holdings

    with show.told(screen, "Databases are migrated"):
        ensure_databases(settings)
        upgrade(settings)
        engine = connect(settings)
    before = holdings(settings, engine)
    fleets = stage.fleets_of(settings, folder)
    with show.told(screen, "Three LAB accounts and one PROD account of two owners"):
        accounts = stage.register_cast(settings, engine, fleets)
        stage.fill_accounts(aws, accounts, fleets)
    sessions = AccountSessions(engine, run_id="demo")
    with show.told(screen, "A fifth account: validated before anything else, and skipped while its role is lax"):
        legacy = stage.register_legacy(settings, engine, aws, fleets[0].regions)
        reports = [sessions.validate_account_access(legacy.account_id)]
    outcomes, instants = {}, stage.past_instants(past_windows)
    with open_instance() as instance:
        with show.told(screen, "Dagster: Spot Advisor and instance catalogue") as say:
            for outcome in scrape_shared_market(instance, defs, progress=say):
                if not outcome.success:
                    raise outcome.failure()
        with show.told(screen, "The first models, fitted on the accounts' history before the past windows") as say:
            models = stage.first_models(settings, engine, instants, say)
        for model in models:
            screen.print(
                f"      {model.version or model.family} ({model.role}): {model.note}", highlight=False, markup=False
            )
        stage.steer(engine, accounts, next((model.version for model in models if model.role == "challenger"), None))
        with show.told(screen, f"{past_windows} past windows of each account, 6 hours apart, in one process") as say:
            past = stage.past_windows(settings, engine, accounts, instants, say)
        show.print_past(screen, past)
        for account in accounts:
            with show.told(screen, f"Dagster: evaluation of {account.account_id} {account.name}") as say:
                outcome = evaluate_account(instance, defs, account.account_id, progress=say)
                outcomes[account.account_id] = outcome
                if not outcome.success:
                    say.fail(str(outcome.failure()))
        with show.told(screen, "Dagster: what became of the instances, and each version judged by it") as say:
            for account in accounts:
                learned = learn_of_account(instance, defs, account.account_id, progress=say)
                if not learned.success:
                    say.fail(f"{account.account_id}: {learned.failure()}")
            judged = judge_versions(instance, defs, progress=say)
            if not judged.success:
                raise judged.failure()
    for account in accounts:
        show.print_decisions(screen, engine, account, outcomes[account.account_id])
    show.print_stores(screen, settings, before, holdings(settings, engine))
    reports = [*(sessions.validate_account_access(account.account_id) for account in accounts), *reports]
    show.print_access(screen, [*accounts, legacy], reports)
    show.print_scorecards(screen, stage.judgement(settings, engine))
    return all(outcome.success for outcome in outcomes.values())


def keep_everything_up(screen: Console, settings: Settings, servers: Servers, aws: LocalAwsClient) -> NoReturn:
    """Start the two UIs and wait for Ctrl-C."""
    from spotlab_pipelines.inference.mlflow_store import ui_page
    from spotlab_pipelines_tests.demo.servers import dagster_command, mlflow_command, server_environment
    from spotlab_pipelines_tests.demo.show import told, versions_page
    from spotlab_pipelines_tests.demo.stage import write_environment

    environment = server_environment(settings)
    dagster, mlflow = (f"http://127.0.0.1:{port}" for port in (settings.dagster_port, settings.mlflow_port))
    with told(screen, "The Dagster UI with its daemon, and the MLflow UI"):
        servers.launch("dagster", dagster_command(settings), environment=environment)
        servers.launch("mlflow", mlflow_command(settings), environment=environment)
        servers.await_answer("dagster", f"{dagster}/server_info")
        servers.await_answer("mlflow", f"{mlflow}/health")
    file = write_environment(settings, aws)
    screen.print(
        f"\n  Dagster UI  {dagster}\n  MLflow      {mlflow}\n    versions  {versions_page(settings)}"
        " (select some, then Compare or the charts)\n"
        f"    models    {ui_page(settings, 'models')}\n  logs        {servers.log_dir}\n"
        f"\nIn another terminal, with this local AWS:  source {file}\n"
        "  .venv/bin/spotlab doctor                 each setting, store and account\n"
        "  .venv/bin/spotlab evaluate 111111111111  one more evaluation of an account\n"
        "  .venv/bin/spotlab experiments list       every evaluation so far\n"
        "  .venv/bin/spotlab models scorecard logistic/1               what a version was worth\n"
        "  .venv/bin/spotlab models compare advisor-rate/1 logistic/1  two of them side by side\n"
        "\nCtrl-C ends it all.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    ended = servers.wait()
    raise LocalStackError(f"{ended} has ended by itself.", remedy=f"Its log: {servers.log_dir / ended}.log")


if __name__ == "__main__":
    sys.exit(main())
