"""`spotlab users`: who owns accounts or works in the laboratory. A password comes from a prompt or from stdin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from spotlab_pipelines.cli.shared import EXIT_CODES, Json, database, read_settings
from spotlab_pipelines.terminal import print_rows

app = typer.Typer(no_args_is_help=True, help="People: who owns accounts, who works in the lab.", epilog=EXIT_CODES)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="E-mail address.")]
ROLE_HELP = "user: owns accounts; lab: may train versions too; admin: sees and does all."


@app.command("add")
def users_add(email: Email, role: Annotated[str, typer.Option(help=ROLE_HELP)] = "user") -> None:
    """Add a user, who can log in once a password is set; one that is there already stays as they are."""
    from spotlab_pipelines.accounts.users import add_user

    with database(read_settings(), role="owner") as engine:
        person = add_user(engine, email, role)
    print(f"{person.email} is a user with the role {person.role}{'' if person.active else ', disabled'}.")


@app.command("list")
def users_list(as_json: Json = False) -> None:
    """List all users."""
    from spotlab_pipelines.accounts.users import list_users

    with database(read_settings(), role="owner") as engine:
        people = list_users(engine)
    print_rows([vars(person) for person in people], as_json=as_json, empty="No user yet: `spotlab users add`.")


@app.command("disable")
def users_disable(email: Email) -> None:
    """Lock a user out; their accounts go on being evaluated. The last active admin stays."""
    from spotlab_pipelines.accounts.users import disable_user

    with database(read_settings(), role="owner") as engine:
        print(f"{disable_user(engine, email).email} is disabled.")


@app.command("set-role")
def users_set_role(email: Email, role: Annotated[str, typer.Argument(help=ROLE_HELP)]) -> None:
    """Give a user another role. The last active admin stays one."""
    from spotlab_pipelines.accounts.users import set_role

    with database(read_settings(), role="owner") as engine:
        person = set_role(engine, email, role)
    print(f"{person.email} now has the role {person.role}.")


@app.command("set-password")
def users_set_password(email: Email) -> None:
    """Set a user's password of 12 to 256 characters: asked for at a terminal, else the first line of stdin."""
    from spotlab_pipelines.accounts.users import get_user, set_password

    with database(read_settings(), role="owner") as engine:
        person = get_user(engine, email)
        set_password(engine, email, _password())
    print(f"{person.email} has a new password.")


def _password() -> str:
    """Never an argument: those are in process lists and in the shell's history."""
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return sys.stdin.readline().rstrip("\r\n")
