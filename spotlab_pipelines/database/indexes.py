"""What each index is for: the query of the code that finds its rows by it. An index that has no reason here has to go.

A reason names a function as module:name below `spotlab_pipelines`. The indexes of primary keys and of unique
constraints need none, since the rule is their reason; where a query relies on one it is told all the same.
`make docs` writes docs/indexes.md from this; tests hold it against the database and against what the queries use.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why there is an index.

    Attributes:
        query: the function whose query uses it, as `accounts.registry:get_account`.
        why: what the query looks for, and how often.
        rule: the index is there to enforce a rule that no constraint can say; no query needs to use it.
    """

    query: str
    why: str
    rule: bool = False


REASONS: dict[str, Reason] = {
    "pk_users": Reason("accounts.acting:acting", "the role of the user who acts, for each act"),
    "uq_users_email": Reason("accounts.users:get_user", "a user by their e-mail address, at each login and command"),
    "ix_accounts_owner_id": Reason(
        "database.engine:acting_for", "row-level security's list of the asking user's accounts, for each statement"
    ),
    "uq_accounts_account_id": Reason("accounts.registry:get_account", "one account, before each call of AWS"),
    "ix_accounts_account_id_marked": Reason(
        "accounts.access:skipped_accounts", "the few accounts that are marked as lax or broken, at each tick"
    ),
    "uq_model_registry_version": Reason("inference.registry:ModelRegistry.get", "an assigned version, when it scores"),
    "uq_model_registry_champion": Reason(
        "inference.registry:ModelRegistry.promote", "there is one champion, whatever happens at once", rule=True
    ),
    "uq_instances_account_id_instance_id": Reason(
        "accounts.steering:set_mode", "the instances that are steered; also the fleet's upsert"
    ),
    "ix_instances_account_id_instance_id_present": Reason(
        "accounts.fleet:load_fleet", "an account's fleet without what it ever terminated, in each evaluation"
    ),
    "uq_evaluations_account_id_window_start": Reason(
        "experiments.queries:latest_decisions", "an account's latest logged window; also that a window is begun once"
    ),
    "uq_evaluations_account_id_step": Reason(
        "database.evaluations:begin_evaluation", "the account's last step, at the beginning of each evaluation"
    ),
    "ix_evaluations_window_start_account_id": Reason(
        "experiments.queries:list_experiments", "the latest evaluations of all accounts"
    ),
    "ix_evaluations_account_id_window_start_unsettled": Reason(
        "experiments.outcomes:resolve_outcomes", "the few windows whose outcomes are not settled, each hour"
    ),
    "uq_experiment_logs_grain": Reason(
        "experiments.queries:latest_decisions", "the rows of one account's window; also the upsert that writes once"
    ),
    "ix_experiment_logs_id": Reason(
        "experiments.queries:logged_row", "one row by its id alone, in whichever month it is, to be replayed"
    ),
    "ix_scrapes_source_account_id_fetched_at": Reason(
        "market.staleness:newest_scrapes", "the newest scrape of each source and account, in the staleness check"
    ),
    "pk_tracking_runs": Reason(
        "experiments.tracking:track_evaluation", "the MLflow run of an account and version, in each evaluation"
    ),
    "ix_audit_log_at": Reason("database.audit:list_entries", "what happened last"),
    "ix_audit_log_account_id_at": Reason("database.audit:list_entries", "what happened last to one account"),
    "ix_audit_log_action_at": Reason("database.audit:list_entries", "the last acts of one kind: approvals, denials"),
    "ix_audit_log_actor_at": Reason("database.audit:list_entries", "what one user or run did last"),
}
