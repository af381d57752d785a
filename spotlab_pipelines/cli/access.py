"""How the command line tries out an account's role, and how it tells what came of it. No command lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spotlab_pipelines.accounts.report import AccessReport
    from spotlab_pipelines.accounts.sessions import AccountSessions


def tried_out(sessions: AccountSessions, account_id: str) -> dict[str, str | None]:
    """What a first trial of a new account's role says: verdict, told, remedy; whatever happens, it is no error.

    Returns:
        verdict: ok, lax or broken, or unknown if AWS could not be asked; then no verdict is kept.
    """
    from spotlab_pipelines.errors import SpotLabError

    later = f"Then: `spotlab accounts validate {account_id}`."
    try:
        report = sessions.validate_account_access(account_id)
    except SpotLabError as error:
        told = f"AWS could not be asked about the role, so the account is not validated yet: {_one_line(error)}"
        return {"verdict": "unknown", "told": told, "remedy": later}
    except Exception as error:
        # A malformed profile of our own, say. The account is registered, and its owner has what to paste.
        told = f"The role could not be tried out, so the account is not validated yet ({type(error).__name__})."
        return {"verdict": "unknown", "told": told, "remedy": later}
    if report.verdict == "ok":
        told = "AWS lets SpotLab in with this external id, and not without it: ok."
        return {"verdict": "ok", "told": told, "remedy": None}
    told = f"The role is {report.verdict}, and the account skipped: {report.reason}"
    paste = (
        "Paste the trust policy above into the role" if report.verdict == "lax" else "Deploy the role with this policy"
    )
    remedy = f"{paste}, or use the template of `spotlab accounts onboarding {account_id}`. {later}"
    return {"verdict": report.verdict, "told": told, "remedy": remedy}


def deployed_remedy(report: AccessReport) -> str | None:
    """What to do about a report, without the external id that a policy to paste would hold."""
    if report.verdict != "lax":
        return report.remedy
    return f"Replace the role by the one of `spotlab accounts onboarding {report.account_id}`, then validate again."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def probes(report: AccessReport) -> list[dict[str, Any]]:
    """What was tried out at AWS, a row each: the door, the regions, the actions."""
    rows: list[dict[str, Any]] = []

    def tried(probe: str, region: str, expected: str, came: str, reason: str | None = None) -> None:
        rows.append({"probe": probe, "region": region, "expected": expected, "came": came, "reason": reason})

    for how, expected, opened in (
        ("with its external id", "granted", report.assumable),
        ("without an external id", "refused", report.granted_without_id),
        ("with a wrong external id", "refused", report.granted_with_wrong_id),
    ):
        came = {None: "not tried", True: "granted", False: "refused"}[opened]
        tried(f"AssumeRole {how}", "", expected, came)
    for each in report.regions:
        tried("EC2", each.region, "answers", "answers" if each.reachable else "no answer", each.reason)
    for each in report.permissions:
        tried(each.action, each.region, "allowed", "allowed" if each.allowed else "denied", each.reason)
    return rows
