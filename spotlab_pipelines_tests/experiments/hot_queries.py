"""The queries of the code that somebody waits for, each with the index by which it has to find its rows.

Shared by the test over 100,000 log rows and by the bench over 1,000,000; how they are explained is plans.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from spotlab_pipelines.accounts.access import skipped_accounts
from spotlab_pipelines.accounts.acting import acting, actor_of
from spotlab_pipelines.accounts.fleet import load_fleet
from spotlab_pipelines.accounts.registry import get_account
from spotlab_pipelines.accounts.rights import ActedUpon
from spotlab_pipelines.accounts.steering import set_mode
from spotlab_pipelines.accounts.users import get_user
from spotlab_pipelines.database.audit import list_entries
from spotlab_pipelines.database.engine import acting_for
from spotlab_pipelines.database.evaluations import EvaluationKey, begin_evaluation, failed_accounts, logged_accounts
from spotlab_pipelines.experiments.learning import accounts_to_learn_of
from spotlab_pipelines.experiments.metrics import VersionMetrics, evaluation_metrics
from spotlab_pipelines.experiments.outcomes import resolve_outcomes
from spotlab_pipelines.experiments.queries import (
    due_accounts,
    evaluation_row,
    latest_decisions,
    list_experiments,
    logged_row,
    logged_rows,
)
from spotlab_pipelines.experiments.tracking import _Tracker
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.market.staleness import newest_scrapes
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHAMPION, WINDOW
from spotlab_pipelines_tests.experiments.large_log import IDLE_OWNER, Laboratory

KEY = EvaluationKey(ACCOUNT, WINDOW)
NOW = WINDOW + timedelta(minutes=40)
ONESELF = ActedUpon(own=True)


@dataclass(frozen=True)
class HotQuery:
    """One thing that is asked often.

    Attributes:
        name: what is asked, for the table.
        query: the function that asks, as in `database.indexes.Reason`; None for what the API asks in SQL.
        indexes: what its statements have to find their rows by; where two serve as well, the choice is Postgres'.
        work: asks it; every statement that it sends is explained.
        role: as whom.
    """

    name: str
    query: str | None
    indexes: tuple[str, ...]
    work: Callable[[Laboratory], object]
    role: Literal["pipeline", "owner", "api"] = "pipeline"


def _metrics(laboratory: Laboratory) -> None:
    with laboratory.pipeline.connect() as connection:
        evaluation_metrics(connection, KEY)


def _role_of_user(laboratory: Laboratory) -> None:
    with acting(laboratory.pipeline, "set_password", actor=actor_of(laboratory.user_id), upon=ONESELF):
        pass


def _run_of_version(laboratory: Laboratory) -> None:
    each = VersionMetrics("old/1", "old", "none", "LAB", None, {}, {})
    client: Any = None
    _Tracker(client, laboratory.pipeline, ACCOUNT, "0")._run_of(each)


def _accounts_of_user(laboratory: Laboratory) -> None:
    """What row-level security asks, with the rights it asks it with: a function's plan is not shown by its caller's."""
    with laboratory.owner.begin() as connection:
        connection.execute(sa.select(sa.func.set_config("app.login", laboratory.idle_login.get_secret_value(), True)))
        connection.exec_driver_sql(
            connection.scalar(sa.text("select prosrc from pg_proc where proname = 'app_accounts'")).strip()
        )


def _api(sql: str) -> Callable[[Laboratory], None]:
    def ask(laboratory: Laboratory) -> None:
        with acting_for(laboratory.api, laboratory.login) as connection:
            connection.exec_driver_sql(sql.format(account=ACCOUNT, window=WINDOW.isoformat()))

    return ask


GRAIN, WINDOWS = ("uq_experiment_logs_grain",), ("uq_evaluations_account_id_window_start",)
QUERIES = (
    HotQuery(
        "an account's latest decisions", "experiments.queries:latest_decisions", GRAIN + WINDOWS,
        lambda lab: latest_decisions(lab.pipeline, ACCOUNT),
    ),
    HotQuery(
        "the decisions of one window", "experiments.queries:latest_decisions", GRAIN,
        lambda lab: latest_decisions(lab.pipeline, ACCOUNT, WINDOW),
    ),
    HotQuery(
        "all rows of one window", "experiments.queries:logged_rows", GRAIN, lambda lab: logged_rows(lab.pipeline, KEY)
    ),
    HotQuery(
        "one row by its id", "experiments.queries:logged_row", ("ix_experiment_logs_id",),
        lambda lab: logged_row(lab.pipeline, lab.row_id),
    ),
    HotQuery(
        "an account's latest evaluation", "experiments.queries:evaluation_row", (),
        lambda lab: evaluation_row(lab.pipeline, ACCOUNT),
    ),
    HotQuery("an evaluation's metrics", "experiments.metrics:evaluation_metrics", GRAIN, _metrics),
    HotQuery(
        "the latest evaluations", "experiments.queries:list_experiments", ("ix_evaluations_window_start_account_id",),
        lambda lab: list_experiments(lab.pipeline),
    ),
    HotQuery(
        "an account's latest evaluations", "experiments.queries:list_experiments", (),
        lambda lab: list_experiments(lab.pipeline, ACCOUNT),
    ),
    HotQuery(
        "resolving an account's outcomes", "experiments.outcomes:resolve_outcomes",
        ("ix_evaluations_account_id_window_start_unsettled", *GRAIN, "ix_scrapes_source_account_id_fetched_at"),
        lambda lab: resolve_outcomes(lab.pipeline, ACCOUNT, NOW),
    ),
    HotQuery(
        "which accounts have outcomes to learn", "experiments.learning:accounts_to_learn_of",
        ("ix_evaluations_account_id_window_start_unsettled",),
        lambda lab: accounts_to_learn_of(lab.pipeline, NOW, retry_s=60),
    ),
    HotQuery(
        "which accounts are due", "experiments.queries:due_accounts", (),
        lambda lab: due_accounts(lab.pipeline, NOW, retry_s=60),
    ),
    HotQuery(
        "which accounts failed", "database.evaluations:failed_accounts", (),
        lambda lab: failed_accounts(lab.pipeline, WINDOW, [ACCOUNT]),
    ),
    HotQuery(
        "which accounts are logged", "database.evaluations:logged_accounts", (),
        lambda lab: logged_accounts(lab.pipeline, WINDOW, [ACCOUNT]),
    ),
    HotQuery(
        "beginning an evaluation", "database.evaluations:begin_evaluation",
        ("uq_evaluations_account_id_step",), lambda lab: begin_evaluation(lab.pipeline, KEY, "a-run"),
    ),
    HotQuery(
        "the MLflow run of a version", "experiments.tracking:track_evaluation", ("pk_tracking_runs",), _run_of_version
    ),
    HotQuery(
        "an account's fleet", "accounts.fleet:load_fleet", ("ix_instances_account_id_instance_id_present",),
        lambda lab: load_fleet(lab.pipeline, ACCOUNT),
    ),
    HotQuery(
        "steering instances", "accounts.steering:set_mode", ("uq_instances_account_id_instance_id",),
        lambda lab: set_mode(lab.pipeline, ACCOUNT, ["i-1", "i-2"], "LINEAR"),
    ),
    HotQuery(
        "one account", "accounts.registry:get_account", ("uq_accounts_account_id",),
        lambda lab: get_account(lab.pipeline, ACCOUNT),
    ),
    HotQuery(
        "which accounts are marked", "accounts.access:skipped_accounts", ("ix_accounts_account_id_marked",),
        lambda lab: skipped_accounts(lab.pipeline, NOW, retry_s=60),
    ),
    HotQuery(
        "each source's newest scrape", "market.staleness:newest_scrapes", ("ix_scrapes_source_account_id_fetched_at",),
        lambda lab: newest_scrapes(lab.pipeline, lab.settings, now=NOW),
    ),
    HotQuery(
        "a user by address", "accounts.users:get_user", ("uq_users_email",),
        lambda lab: get_user(lab.pipeline, IDLE_OWNER),
    ),
    HotQuery("the role of who acts", "accounts.acting:acting", ("pk_users",), _role_of_user),
    HotQuery(
        "whose accounts are the asking user's", "database.engine:acting_for", ("ix_accounts_owner_id",),
        _accounts_of_user, "owner",
    ),
    HotQuery(
        "an assigned version", "inference.registry:ModelRegistry.get", ("uq_model_registry_version",),
        lambda lab: ModelRegistry(lab.pipeline, lab.settings).get(CHAMPION),
    ),
    HotQuery(
        "the latest audit entries", "database.audit:list_entries", ("ix_audit_log_at",),
        lambda lab: list_entries(lab.pipeline),
    ),
    HotQuery(
        "an account's audit entries", "database.audit:list_entries", ("ix_audit_log_account_id_at",),
        lambda lab: list_entries(lab.pipeline, account_id=ACCOUNT),
    ),
    HotQuery(
        "audit entries of one kind", "database.audit:list_entries", ("ix_audit_log_action_at",),
        lambda lab: list_entries(lab.pipeline, action="approve_model"),
    ),
    HotQuery(
        "audit entries of one actor", "database.audit:list_entries", ("ix_audit_log_actor_at",),
        lambda lab: list_entries(lab.pipeline, actor="run:7"),
    ),
    HotQuery(
        "API: v_active_instances of an account", None, ("ix_instances_account_id_instance_id_present",),
        _api("select * from v_active_instances where account_id = '{account}'"), "api",
    ),
    HotQuery(
        "API: v_recent_experiments of a window", None, GRAIN,
        _api("select * from v_recent_experiments where account_id = '{account}' and window_start = '{window}'"), "api",
    ),
    HotQuery(
        "API: v_model_performance of an account", None, GRAIN,
        _api("select * from v_model_performance where account_id = '{account}'"), "api",
    ),
    HotQuery(
        "API: the log of an account since a window", None, GRAIN,
        _api("select * from experiment_logs where account_id = '{account}' and window_start >= '{window}'"), "api",
    ),
    HotQuery(
        "API: an account's audit entries", None, ("ix_audit_log_account_id_at",),
        _api("select * from audit_log where account_id = '{account}' order by at desc limit 20"), "api",
    ),
)  # fmt: skip
