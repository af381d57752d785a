"""`spotlab accounts`: AWS accounts that are evaluated, and SpotLab's access to them.

An external id is shown by `add` and `onboarding` alone, for the account's owner.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotlab_pipelines.cli.access import deployed_remedy, probes, tried_out
from spotlab_pipelines.cli.shared import (
    EXIT_CODES,
    AccountId,
    As,
    Json,
    acting_as,
    database,
    own_principal,
    read_settings,
)
from spotlab_pipelines.terminal import PERMANENT, print_json, print_rows, visible

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.registry import Account

LISTED = {
    "account": "account_id", "name": "name", "owner": "owner_email", "env": "environment", "access": "access_state",
}  # fmt: skip
"""The columns of `accounts list` in a terminal, and the fields that they show."""

Principal = Annotated[
    str | None, typer.Option(help="ARN of the role that SpotLab runs as. Default: its whole AWS account.")
]

app = typer.Typer(no_args_is_help=True, help="AWS accounts that are evaluated.", epilog=EXIT_CODES)


@app.command("add")
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
    validate: Annotated[
        bool, typer.Option(help="Then try out the role at AWS; it can be deployed and validated later as well.")
    ] = True,
    principal: Principal = None,
    as_user: As = None,
    as_json: Json = False,
) -> None:
    """Register an account and try out its role; print its external id and the role's trust policy, for its owner only.

    The account stays registered whatever AWS says; runs skip one whose access is lax or broken.
    """
    from spotlab_pipelines.accounts.registry import add_account, trust_policy
    from spotlab_pipelines.accounts.rules import check_principal
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.accounts.users import add_user
    from spotlab_pipelines.errors import NotFound

    settings = read_settings()
    cost = settings.interruption_cost_usd if interruption_cost_usd is None else interruption_cost_usd
    values: dict[str, Any] = {
        "account_id": account_id, "name": name, "owner_email": owner, "role_arn": role_arn, "regions": region,
        "environment": environment, "interruption_cost_usd": cost,
        "evaluation_interval_s": settings.evaluation_interval_s if interval_s is None else interval_s,
    }  # fmt: skip
    with database(settings) as engine:
        values["actor"] = acting_as(engine, as_user)
        # Asked first: once the account is in, nothing may come between it and its external id, which is shown only now.
        unknown_because = None
        if principal is None:
            principal, unknown_because = own_principal(settings, region)
        else:
            check_principal(principal)
        try:
            account = add_account(engine, **values)
        except NotFound:
            # Only the owner is missing: everything else was checked before. So a mistake leaves no new user behind.
            add_user(engine, owner, actor=values["actor"])
            account = add_account(engine, **values)
        policy = trust_policy(account, principal)
        if unknown_because is not None:
            typer.echo(f"Fill in the principal of the trust policy by hand: {visible(unknown_because)}", err=True)
        shown = {"account_id": account_id, "external_id": account.external_id.get_secret_value()}
        shown |= {"trust_policy": json.loads(policy)}
        if not as_json:
            _print_registered(account, policy)
        # Shown first: no end of the trial may come between the owner and the external id.
        access = tried_out(AccountSessions.of(settings, engine), account_id) if validate else None
    if as_json:
        print_json(shown | ({} if access is None else {"access": access}))
    elif access is not None:
        print(" ".join(visible(text) for text in (access["told"], access["remedy"]) if text))


def _print_registered(account: Account, policy: str) -> None:
    print(f"Account {account.account_id} is registered. For its owner only:")
    print(f"External id: {account.external_id.get_secret_value()}")
    print(f"Trust policy of {account.role_arn}:\n{policy}")


@app.command("list")
def accounts_list(
    every: Annotated[bool, typer.Option("--all", help="Disabled accounts as well.")] = False, as_json: Json = False
) -> None:
    """List the accounts; external ids are never shown again."""
    from spotlab_pipelines.accounts.registry import list_accounts

    with database(read_settings()) as engine:
        accounts = list_accounts(engine, None if every else "active")
    rows = [{name: value for name, value in vars(account).items() if name != "external_id"} for account in accounts]
    if not as_json:
        # A terminal's width: the whole rows are for scripts.
        columns = LISTED | ({"state": "state"} if every else {}) | {"regions": "regions"}
        rows = [{heading: row[field] for heading, field in columns.items()} for row in rows]
    print_rows(
        rows,
        as_json=as_json,
        empty="No account is registered yet: `spotlab accounts add`.",
    )


@app.command("onboarding")
def accounts_onboarding(
    account: AccountId,
    principal: Principal = None,
) -> None:
    """Print the CloudFormation template of the role to deploy in the account, for its owner only: it holds the id."""
    from spotlab_pipelines.accounts.onboarding import onboarding_template
    from spotlab_pipelines.accounts.registry import get_account
    from spotlab_pipelines.accounts.sessions import AccountSessions

    settings = read_settings()
    with database(settings) as engine:
        registered = get_account(engine, account)
        if principal is None:
            principal = AccountSessions.of(settings, engine).principal(registered)
    template = onboarding_template(registered, principal)
    typer.echo(f"For the owner of account {account} only: the template holds its external id.", err=True)
    print(template)


@app.command("validate")
def accounts_validate(account: AccountId, as_json: Json = False) -> None:
    """Try out the account's role at AWS, keep the verdict, and exit with 1 unless it is ok."""
    from spotlab_pipelines.accounts.sessions import AccountSessions

    settings = read_settings()
    with database(settings) as engine:
        report = AccountSessions.of(settings, engine).validate_account_access(account)
    remedy = deployed_remedy(report)
    if as_json:
        shown = {name: getattr(report, name) for name in ("account_id", "verdict", "reason")} | {"remedy": remedy}
        print_json(shown | {"probes": probes(report)})
    else:
        print_rows(probes(report), as_json=False, empty="")
        told = "".join(f" {visible(text)}" for text in (report.reason, remedy) if text)
        print(f"Account {account}: {report.verdict}.{told}")
    if report.verdict != "ok":
        raise typer.Exit(PERMANENT)


@app.command("set-environment")
def accounts_set_environment(
    account: AccountId,
    environment: Annotated[str, typer.Argument(help="LAB, or PROD: logged, never acted on.")],
    as_user: As = None,
) -> None:
    """Make a LAB account PROD, or back; of all users, admins alone may."""
    from spotlab_pipelines.accounts.standing import set_environment

    with database(read_settings()) as engine:
        changed = set_environment(engine, account, environment, actor=acting_as(engine, as_user))
    print(f"Account {account} is now {changed.environment}.")


@app.command("disable")
def accounts_disable(account: AccountId, as_user: As = None) -> None:
    """Enter an account no more: no session, no evaluation. What is on record stays."""
    from spotlab_pipelines.accounts.standing import disable_account

    with database(read_settings()) as engine:
        disable_account(engine, account, actor=acting_as(engine, as_user))
    print(f"Account {account} is disabled.")


@app.command("enable")
def accounts_enable(account: AccountId, as_user: As = None) -> None:
    """Take a disabled account up again."""
    from spotlab_pipelines.accounts.standing import enable_account

    with database(read_settings()) as engine:
        enable_account(engine, account, actor=acting_as(engine, as_user))
    print(f"Account {account} is active.")
