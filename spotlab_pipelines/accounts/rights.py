"""Who may do what: one pure answer per role and act, for whoever acts as a user. Nothing here asks the database.

`user` steers his own LAB accounts; `lab` may besides register versions and import traces; `admin` does all, alone
approves, promotes and retires versions, removes traces and takes an account to PROD or back. Who acts, and putting a
refusal on record, is acting.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal["own LAB account", "self", "lab", "admin"]

RIGHTS: dict[str, Needs] = {
    "add_account": "own LAB account",
    "disable_account": "own LAB account",
    "enable_account": "own LAB account",
    "assign_version": "own LAB account",
    "set_mode": "own LAB account",
    "set_shadow": "own LAB account",
    "register_model": "lab",
    "import_trace": "lab",
    "remove_trace": "admin",
    "set_password": "self",
    "change_environment": "admin",
    "approve_model": "admin",
    "promote_model": "admin",
    "retire_model": "admin",
    "add_user": "admin",
    "disable_user": "admin",
    "set_role": "admin",
}
"""What each act asks of the user who does it, by the name it has in the audit log; an admin may do them all."""


@dataclass(frozen=True)
class ActedUpon:
    """What an act is about, as far as rights depend on it: an account's environment and whose it is, or which user.

    Attributes:
        environment: LAB or PROD; None if the act is about no account, or about one that is not registered.
        own: the account, or the user, is the acting user's own.
    """

    environment: str | None = None
    own: bool = False


def refusal(role: str, act: str, upon: ActedUpon) -> str | None:
    """Why a user of this role may not do this, as the end of "expected …"; None if they may.

    An account of somebody else and one that does not exist are answered alike: ids are not to be tried out.

    Raises:
        KeyError: the act has no rule. A new act needs one before anybody can do it.
    """
    needs = RIGHTS[act]
    if role == "admin":
        return None
    match needs:
        case "own LAB account":
            allowed, expected = upon.own and upon.environment == "LAB", "a LAB account of one's own, or the role admin"
        case "self":
            allowed, expected = upon.own, "oneself, or the role admin"
        case "lab":
            allowed, expected = role == "lab", "the role lab or admin"
        case "admin":
            allowed, expected = False, "the role admin"
    return None if allowed else expected
