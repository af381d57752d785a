"""What several nouns of the command line share: options, settings, the database, the market that is scraped first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from spotlab_pipelines.terminal import progress

if TYPE_CHECKING:
    import sqlalchemy as sa
    from dagster import DagsterInstance  # noqa: TID251

    from spotlab_pipelines.database.engine import Role
    from spotlab_pipelines.settings import Settings

EXIT_CODES = (
    "Exit codes: 0 done; 1 permanent error, someone has to change something; 2 wrong usage; 3 transient error, try "
    "again; 4 the doctor found problems."
)
PRINCIPAL_PLACEHOLDER = "<the AWS account id of SpotLab>"

Scrape = Annotated[bool, typer.Option(help="First scrape what all accounts share: the Advisor and the catalogue.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


def known_shape(account_id: str | None) -> str | None:
    """The account id that an argument or option gave, if it has the shape of one; nothing else is looked up."""
    from spotlab_pipelines.accounts.rules import check_account_id

    return account_id if account_id is None else check_account_id(account_id)


As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="EMAIL", help="Act as this user, within their rights. Default: the machine's operator."
    ),
]
AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="12-digit AWS account id.", callback=known_shape)]
OnlyAccount = Annotated[str | None, typer.Option(help="Only this account.", callback=known_shape)]


def scrape_shared(instance: DagsterInstance) -> None:
    """Scrape the Advisor and the catalogue through Dagster; end the command if that fails."""
    from spotlab_pipelines.definitions import defs
    from spotlab_pipelines.defs.run import scrape_shared_market

    for outcome in scrape_shared_market(instance, defs, progress=progress):
        if not outcome.success:
            raise outcome.failure()


def read_settings() -> Settings:
    """The process's settings."""
    from spotlab_pipelines.settings import get_settings

    return get_settings()


@contextmanager
def database(settings: Settings, *, role: Role = "pipeline") -> Iterator[sa.Engine]:
    """The domain database, at the revision of this code; a server that does not answer is an error with a name."""
    from spotlab_pipelines.database.engine import database_errors
    from spotlab_pipelines.database.migrate import require_current

    with database_errors():
        yield require_current(settings, role)


@contextmanager
def wrong_usage() -> Iterator[None]:
    """What a command line shows to be wrong by itself, before anything is read, is wrong usage, whoever knows it."""
    from spotlab_pipelines.errors import FeatureVersionMismatch, InvalidInput

    try:
        yield
    except (InvalidInput, FeatureVersionMismatch) as error:
        raise typer.BadParameter(str(error)) from error


def acting_as(engine: sa.Engine, email: str | None) -> str | None:
    """The actor that --as names; None for the operator of this machine, who needs nobody's leave."""
    from spotlab_pipelines.accounts.acting import actor_of
    from spotlab_pipelines.accounts.users import get_user

    return None if email is None else actor_of(get_user(engine, email).id)


def own_principal(settings: Settings, regions: list[str]) -> tuple[str, str | None]:
    """SpotLab's own AWS account in these regions' partition; where AWS does not tell, a placeholder and the reason."""
    from spotlab_pipelines.accounts.own import OwnKeys
    from spotlab_pipelines.accounts.rules import check_regions, sts_region
    from spotlab_pipelines.accounts.sessions import own_account_id
    from spotlab_pipelines.errors import SpotLabError

    try:
        return own_account_id(sts_region(check_regions(regions)), OwnKeys(settings.own_profiles)), None
    except SpotLabError as error:
        return PRINCIPAL_PLACEHOLDER, " ".join(str(error).split())
    except Exception as error:
        # Whatever is wrong with our own credentials, a customer's registration does not depend on it.
        return PRINCIPAL_PLACEHOLDER, f"SpotLab's own AWS account is not known ({type(error).__name__})."
