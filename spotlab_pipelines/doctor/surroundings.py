"""What the doctor looks at around the stores: settings that only make sense together, the Advisor, ports, AWS."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from spotlab_pipelines.doctor.findings import Doubt, Finding, failed, look
from spotlab_pipelines.errors import InvalidInput, NotFound, SettingsError
from spotlab_pipelines.settings import Settings

UI_PATHS = {"dagster": "/server_info", "mlflow": "/health"}
UI_WORDS = {"dagster": b"dagster", "mlflow": b"OK"}


def variables() -> str:
    """Whether every variable that begins like ours is one of ours."""
    known = {f"SPOTLAB_{name.upper()}" for name in Settings.model_fields}
    ours = {name for name in os.environ if name.upper().startswith("SPOTLAB_")}
    unknown = sorted(ours - known)
    if unknown:
        raise Doubt(f"Unknown variables: {', '.join(unknown)}.", "Correct their names; docs/settings.md lists all.")
    return f"{len(ours)} set, {len(known) - len(ours)} at their defaults"


def advisor(settings: Settings) -> str:
    """Whether the Advisor's feed can be fetched and read."""
    from spotlab_pipelines.market.fetch import fetch_document
    from spotlab_pipelines.market.parse_advisor import parse_advisor

    rows = parse_advisor(fetch_document(settings.advisor_url, settings.http_timeout_s).body)
    return f"{len(rows)} rows for {rows['region'].nunique()} regions from {settings.advisor_url}"


def catalogue_account(settings: Settings, *, registry_is_there: bool) -> str:
    """Whether the account that reads the catalogue is a registered, active one."""
    from spotlab_pipelines.accounts.registry import get_account, list_accounts
    from spotlab_pipelines.accounts.rules import check_account_id
    from spotlab_pipelines.database.engine import connect

    wanted = settings.catalogue_account_id
    if wanted:
        try:
            check_account_id(wanted)
            if not registry_is_there:
                return f"{wanted}; whether it is registered shows when Postgres is there"
            account = get_account(connect(settings), wanted)
        except (InvalidInput, NotFound) as error:
            raise type(error)(
                str(error).removesuffix(error.remedy or "").strip(),
                remedy="Set SPOTLAB_CATALOGUE_ACCOUNT_ID to one that `spotlab accounts list` shows, or unset it.",
            ) from error
        if account.state != "active":
            raise Doubt(f"{wanted} is {account.state}.", "Set SPOTLAB_CATALOGUE_ACCOUNT_ID to an active account.")
        return wanted
    active = list_accounts(connect(settings)) if registry_is_there else []
    if not active:
        raise Doubt("No account is known whose session could read it.", "Register one with `spotlab accounts add`.")
    return f"{active[0].account_id}, the first active account"


def products(settings: Settings) -> str:
    """Whether on-demand prices can be found for every product that is always scraped."""
    from spotlab_pipelines.market.frames import PRICING_OS

    unknown = [product for product in settings.products if product not in PRICING_OS]
    if unknown or not settings.products:
        raise SettingsError(
            f"Expected product descriptions of EC2 ({', '.join(PRICING_OS)}), got {', '.join(unknown) or 'none'}.",
            remedy="Correct SPOTLAB_PRODUCTS, without the suffix (Amazon VPC).",
        )
    return ", ".join(settings.products)


def pricing_region(settings: Settings) -> str:
    """Whether AWS is known to serve the Pricing API there."""
    from spotlab_pipelines.accounts.rules import REGION
    from spotlab_pipelines.market.pricing import PRICING_REGIONS

    serving = [name for regions in PRICING_REGIONS.values() for name in regions]
    region, remedy = settings.pricing_region, f"Set SPOTLAB_PRICING_REGION to one of {', '.join(serving)}."
    if not REGION.fullmatch(region):
        raise SettingsError(f"Expected an AWS region, got {region!r}.", remedy=remedy)
    if region not in serving:
        raise Doubt(f"{region} is not known to serve the Pricing API.", remedy)
    return region


def times_to_live(settings: Settings) -> str:
    """Whether what the schedules fill outlives one scrape that fails: it must last for two of their intervals."""
    from spotlab_pipelines.defs.run import scrape_intervals_s

    intervals_s = scrape_intervals_s()
    short = []
    for name, source in (("spot_risk_ttl_s", "spot_advisor"), ("instance_metadata_ttl_s", "instance_catalogue")):
        if getattr(settings, name) < 2 * intervals_s[source]:
            short.append((name, source))
    if short:
        raise Doubt(
            "; ".join(
                f"{name} is {getattr(settings, name)} s, and {source} is scraped every {intervals_s[source]} s"
                for name, source in short
            )
            + ": one failed scrape would leave evaluations without it.",
            " ".join(f"Set SPOTLAB_{name.upper()} to {2 * intervals_s[source]} or more." for name, source in short),
        )
    return "each spans two scrapes of its schedule"


def port(name: str, port: int) -> str:
    """Whether the port of a UI is free, or that UI has it."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise SettingsError(
                    f"Port {port} may not be opened by this user.",
                    remedy=f"Set SPOTLAB_{name.upper()}_PORT above 1024.",
                ) from error
        else:
            return f"{port} is free"
    if _is_ui(name, port):
        return f"{port} is {name}'s"
    raise Doubt(
        f"Port {port} is taken by another program.", f"End it, or set SPOTLAB_{name.upper()}_PORT to another port."
    )


def _is_ui(name: str, port: int) -> bool:
    import requests

    try:
        answer = requests.get(f"http://127.0.0.1:{port}{UI_PATHS[name]}", timeout=3)
    except requests.RequestException:
        return False
    return answer.ok and UI_WORDS[name] in answer.content[:1000]


def credentials(settings: Settings, *, registry_is_there: bool) -> str:
    """Whose AWS account SpotLab's own credentials belong to, in each partition that has accounts to enter."""
    from spotlab_pipelines.accounts.own import OwnKeys
    from spotlab_pipelines.accounts.registry import list_accounts
    from spotlab_pipelines.accounts.rules import MAIN_REGION, partition_of
    from spotlab_pipelines.accounts.sessions import own_account_id
    from spotlab_pipelines.database.engine import connect

    registered = list_accounts(connect(settings)) if registry_is_there else []
    partitions = sorted({partition_of(account.regions[0]) for account in registered}) or ["aws"]
    own_keys = OwnKeys(settings.own_profiles)
    return ", ".join(
        f"SpotLab is AWS account {own_account_id(MAIN_REGION[partition], own_keys)} in {partition}"
        for partition in partitions
    )


def accounts(settings: Settings) -> Iterator[Finding]:
    """Whether each active account's role can be assumed."""
    from spotlab_pipelines.accounts.access import MARKED_STATES
    from spotlab_pipelines.accounts.registry import Account, list_accounts
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.errors import AccountSkipped

    try:
        engine = connect(settings)
        registered = list_accounts(engine)
    except Exception as error:
        yield failed("accounts", error)
        return
    sessions = AccountSessions.of(settings, engine, "doctor")
    for account in registered:

        def assume(account: Account = account) -> str:
            if account.access_state in MARKED_STATES:
                raise AccountSkipped(
                    f"Its access is {account.access_state}: {account.access_reason or 'no reason given'}",
                    remedy=f"Correct the role, then `spotlab accounts validate {account.account_id}`.",
                )
            sessions.assumption(account, counts=False).fetch()
            return "its role can be assumed"

        yield look(f"account {account.account_id}", assume)
