"""The domain tables of Postgres, the only record. Queries live in the rooms that ask them; DDL in migrations/; what
each index is for in indexes.py.

Two keys identify everything: an account is its 12-digit id, an evaluation is (account_id, window_start). Exactly-once
comes from unique keys on such logical ids, never from a run id.
"""

from spotlab_pipelines.database.tables.base import (
    ACCESS_STATES,
    ACCOUNT_STATES,
    AUDIT_ACTIONS,
    AUDIT_OUTCOMES,
    DECISIONS,
    ENDED_BY,
    ENVIRONMENTS,
    EVALUATION_STATES,
    EVENT_SOURCES,
    INSTANCE_STATES,
    LIFECYCLES,
    MODEL_ROLES,
    MODEL_STATUSES,
    OUTCOME_SOURCES,
    PIPELINE_MODES,
    REQUEST_SOURCES,
    REQUEST_STATES,
    ROLES,
    VERDICTS,
    Base,
)
from spotlab_pipelines.database.tables.laboratory import (
    Evaluation,
    EvaluationRequest,
    ExperimentLog,
    ModelVersion,
    TrackingRun,
)
from spotlab_pipelines.database.tables.market import Instance, InterruptionEvent, InterruptionOutcome, Scrape
from spotlab_pipelines.database.tables.people import Account, AuditEntry, Login, User
from spotlab_pipelines.database.tables.verdicts import VersionVerdict

__all__ = (
    "ACCESS_STATES",
    "ACCOUNT_STATES",
    "AUDIT_ACTIONS",
    "AUDIT_OUTCOMES",
    "DECISIONS",
    "ENDED_BY",
    "ENVIRONMENTS",
    "EVALUATION_STATES",
    "EVENT_SOURCES",
    "INSTANCE_STATES",
    "LIFECYCLES",
    "MODEL_ROLES",
    "MODEL_STATUSES",
    "OUTCOME_SOURCES",
    "PIPELINE_MODES",
    "REQUEST_SOURCES",
    "REQUEST_STATES",
    "ROLES",
    "VERDICTS",
    "Account",
    "AuditEntry",
    "Base",
    "Evaluation",
    "EvaluationRequest",
    "ExperimentLog",
    "Instance",
    "InterruptionEvent",
    "InterruptionOutcome",
    "Login",
    "ModelVersion",
    "Scrape",
    "TrackingRun",
    "User",
    "VersionVerdict",
)
