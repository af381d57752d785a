"""The versions that may be served: Postgres' `model_registry` says which, MLflow keeps them for people to compare.

Serving never asks MLflow. An alias or a version that differs there is not followed; promoting here moves MLflow's alias
in the same act (roles.py). Which models exist and how they are fitted is training's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from spotlab_pipelines.accounts.acting import check_rights
from spotlab_pipelines.database.audit import record
from spotlab_pipelines.database.engine import connect, database_errors
from spotlab_pipelines.database.tables import ModelVersion
from spotlab_pipelines.errors import IntegrityError, InvalidInput, ModelTampered, ModelUnknown, PermanentError
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.artifacts import Opened, artifact_sha256, load_estimator, open_artifact
from spotlab_pipelines.inference.card import Notes, facts_of, model_card
from spotlab_pipelines.inference.conformance import require_conforming
from spotlab_pipelines.inference.fitted_on import fingerprint_of, reference_of_training
from spotlab_pipelines.inference.mlflow_models import REFERENCE_FILE, keep_model
from spotlab_pipelines.inference.mlflow_store import mlflow_client, mlflow_errors
from spotlab_pipelines.inference.package_code import package_errors
from spotlab_pipelines.inference.packages import PACKAGE_FILE, adapter_class, package_of
from spotlab_pipelines.inference.promotion import PromotionGate
from spotlab_pipelines.inference.roles import FIRST_MODELS, change_role
from spotlab_pipelines.inference.versions import ServingVersion, check_on_record, select_versions

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.features.drift import Reference
    from spotlab_pipelines.inference.estimators import HorizonEstimator
    from spotlab_pipelines.settings import Settings


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a family: a part of its versions' names, of an address in MLflow and of a folder."""


class ModelRegistry:
    """What may be served, by Postgres; the artifacts below `settings.mlruns_dir`."""

    def __init__(self, engine: sa.Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def versions(self) -> list[ServingVersion]:
        """Every registered version, whatever its status: the champion, challengers, then the others by name."""
        return self._select()

    def serving(self) -> list[ServingVersion]:
        """The versions that every evaluation scores: the champion first, then the challengers by name.

        Raises:
            ModelUnknown: there is no champion.
        """
        found = self._select(ModelVersion.role != "none")
        if not found or found[0].role != "champion":
            raise ModelUnknown("Expected one champion in the model registry; there is none.", remedy=FIRST_MODELS)
        return found

    def get(self, version: str) -> ServingVersion:
        """The approved version of that name.

        Raises:
            ModelUnknown: no such version, or it is not approved.
        """
        found = self.find(version)
        if found.status != "approved":
            raise ModelUnknown(f"{version} is {found.status}; only approved versions are served.")
        return found

    def find(self, version: str) -> ServingVersion:
        """The version of that name, whatever its status: what it once predicted can be recomputed.

        Raises:
            ModelUnknown: no such version.
        """
        found = self._select(ModelVersion.version == version)
        if not found:
            raise ModelUnknown(
                f"Expected a registered version such as logistic/1; there is no {version!r}.",
                remedy="`spotlab models list` shows them all.",
            )
        return found[0]

    def load_model(self, version: str) -> BaseModelAdapter:
        """The adapter of an approved version, its artifact checked against the pinned hash before it is opened.

        Raises:
            ModelUnknown: no such version, it is not approved, or nobody who may has registered or approved it.
            ModelTampered: the files are not the approved ones; they were not opened.
            ModelError: it is of a package that is not installed.
        """
        return self.open(self.get(version))

    def open(self, row: ServingVersion) -> BaseModelAdapter:
        """The adapter of a row that was read just now; see `load_model`."""
        check_on_record(row)
        with package_errors(row.version):
            return self._adapter(row, load_estimator(row.version, row.artifact_sha256, self.artifact_folder(row)))

    def artifact_folder(self, row: ServingVersion) -> Path:
        """Where the version's files are.

        Raises:
            ModelTampered: the row leads out of `mlruns_dir`.
        """
        root = self._settings.mlruns_dir.absolute()
        folder = root / row.artifact_uri
        if not folder.resolve().is_relative_to(root.resolve()):
            raise ModelTampered(
                f"Expected the files of {row.version} below the folder of all models; the registry leads out of it.",
                remedy=f"Find out who wrote that row; then retire it: `spotlab models retire {row.version}`.",
            )
        return folder

    def fault(self, row: ServingVersion) -> PermanentError | None:
        """Why the version cannot be opened, found by opening it, whatever is kept in memory; None if it can."""
        try:
            check_on_record(row)
            with package_errors(row.version):
                self._adapter(row, open_artifact(row.version, row.artifact_sha256, self.artifact_folder(row)))
        except PermanentError as error:
            return error
        return None

    def faults(self) -> list[str]:
        """A sentence for each version that is not retired and cannot be opened, in the order of `versions`."""
        found = {row.version: self.fault(row) for row in self.versions() if row.status != "retired"}
        return [f"{version} cannot be opened. {fault}" for version, fault in found.items() if fault is not None]

    def is_intact(self, row: ServingVersion) -> bool:
        """Whether the version's files are there and are the ones that were registered."""
        try:
            return artifact_sha256(self.artifact_folder(row)) == row.artifact_sha256
        except ModelTampered:
            return False

    def register(
        self,
        estimator: HorizonEstimator,
        *,
        family: str,
        feature_spec: str,
        example: pd.DataFrame,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        registered_by: str,
        training: pd.DataFrame | None = None,
        fingerprint: str | None = None,
        reference: Reference | None = None,
        notes: Notes | None = None,
        entry_point: str | None = None,
        actor: str | None = None,
    ) -> ServingVersion:
        """Keep a fitted estimator as the family's next version, a candidate: it is served once it is approved.

        Args:
            example: a few rows of features, for the signature and the input example.
            params, metrics: what is logged beside it; metrics are kept in Postgres too.
            training: the features it was fitted on; None for a model that was fitted on nothing.
            fingerprint: of the data it was fitted on, 64 hex digits; by default the hash of `training`'s content.
            reference: what the drift of later features is told from; by default the bins of `training`.
            notes: for its model card, what only whoever fitted it can say.
            entry_point: by which entry point a user's package declares it, if it declares several in one module.
            registered_by: who or what registers it, for people to read.
            actor: who registers it, for the audit log: `user:<id>`; by default the person at the command line.

        Raises:
            NotAllowed: the actor is a user whose role is neither lab nor admin. Nothing was kept.
            ModelNotConforming: it does not do what any model must do (conformance.py). Nothing was kept.
            InvalidInput: its class is of a package that does not declare it, the fingerprint is none, or the family's
                name is.
            StoreUnavailable: Postgres or MLflow does not answer.
        """
        # Asked first: what MLflow has once kept, nobody takes away.
        check_rights(self._engine, "register_model", actor=actor, subject=family)
        if not NAME.fullmatch(family):
            raise InvalidInput(f"Expected a family of letters, digits, dot, dash and underscore; got {family!r}.")
        package = package_of(estimator, entry_point)
        adapter = adapter_class(package)(version=f"{family}/new", feature_version=feature_spec, estimator=estimator)
        require_conforming(adapter)
        fingerprint = fingerprint_of(fingerprint, training)
        reference = reference or reference_of_training(training, estimator, feature_spec)
        files = {} if reference is None else {REFERENCE_FILE: orjson.dumps(reference, option=orjson.OPT_INDENT_2)}
        if package is not None:
            files[PACKAGE_FILE] = package.to_bytes()
        card = model_card(
            facts_of(
                estimator,
                family=family,
                feature_spec=feature_spec,
                training_sha256=fingerprint,
                training_rows=None if training is None else len(training),
                params=params,
                metrics=metrics,
                registered_by=registered_by,
                notes=notes or Notes(),
            )
        )
        client = mlflow_client(self._settings)
        with mlflow_errors():
            kept = keep_model(
                client,
                self._settings,
                estimator,
                family=family,
                feature_spec=feature_spec,
                example=example[list(estimator.feature_names)].astype(float),
                params=params,
                metrics=metrics,
                card=card,
                files=files,
                training_sha256=fingerprint,
                more_types=() if package is None else (package.type,),
                taken=max((row.number for row in self._select(ModelVersion.family == family)), default=0),
            )
        root = self._settings.mlruns_dir.absolute()
        row = {
            "version": f"{family}/{kept.number}",
            "family": family,
            "number": kept.number,
            "feature_spec": feature_spec,
            "horizons_h": [int(horizon) for horizon in estimator.horizons_h],
            "artifact_uri": kept.folder.relative_to(root).as_posix(),
            "artifact_sha256": artifact_sha256(kept.folder),
            "mlflow_run_id": kept.run_id,
            "mlflow_model_id": kept.model_id,
            "metrics": dict(metrics),
            "registered_by": registered_by,
            "reference": reference,
            "training_sha256": fingerprint,
        }
        with database_errors(), self._engine.begin() as connection:
            connection.execute(sa.insert(ModelVersion).values(**row))
            record(connection, "register_model", actor=actor, subject=row["version"], sha256=row["artifact_sha256"])
        return self._select(ModelVersion.version == row["version"])[0]

    def approve(self, version: str, *, role: str = "none", actor: str | None = None) -> ServingVersion:
        """Allow a version to be served; `role` may make it a challenger. Only `promote` makes a champion.

        Args:
            actor: who does it, for the audit log: `user:<id>`; by default the person at the command line.

        Raises:
            ModelUnknown: no such version.
            InvalidInput: the role is neither `challenger` nor `none`, or the version is the champion.
            NotAllowed: the actor is a user who is no admin.
            ModelTampered, ModelError: its files or its package are not the ones that were registered.
        """
        if role not in ("challenger", "none"):
            raise InvalidInput(f"A version is approved as challenger or none; got {role!r}.", remedy="Use promote.")
        return self._change(version, "approve_model", actor, to=("approved", role))

    def promote(self, version: str, *, actor: str | None = None, override: str | None = None) -> ServingVersion:
        """Make an approved version the champion; the champion of before goes on as a challenger.

        Args:
            override: why it is promoted without a verdict or with poor calibration; goes on record.

        Raises:
            NotProven: the latest verdict against the champion is not to promote it, or its calibration is too poor.
            ModelUnknown: no such version, or it is not approved.
            InvalidInput: it is the champion.
            ModelTampered, ModelError: its files or its package are not the ones that were registered.
            NotAllowed: the actor is a user who is no admin.
        """
        settings = self._settings
        gate = PromotionGate(
            settings.promote_ece_max, settings.promote_ratio_max, settings.promote_predictions_min, override
        )
        return self._change(version, "promote_model", actor, to=("approved", "champion"), gate=gate)

    def retire(self, version: str, *, actor: str | None = None) -> None:
        """Stop serving a version; what it predicted stays on record.

        Raises:
            ModelUnknown: no such version.
            InvalidInput: it is retired already, or it is the champion and can be opened.
            NotAllowed: the actor is a user who is no admin.
        """
        self._change(version, "retire_model", actor, to=("retired", "none"))

    def _adapter(self, row: ServingVersion, opened: Opened) -> BaseModelAdapter:
        adapter = adapter_class(opened.package)(
            version=row.version, feature_version=row.feature_spec, estimator=opened.estimator
        )
        if adapter.horizons_h != row.horizons_h:
            raise IntegrityError(
                f"{row.version} is registered for the horizons {row.horizons_h}; its model has {adapter.horizons_h}."
            )
        return adapter

    def _change(
        self, version: str, action: str, actor: str | None, *, to: tuple[str, str], gate: PromotionGate | None = None
    ) -> ServingVersion:
        # What is served is the owner's to say: a taken-over pipeline must not be able to.
        owner, client = connect(self._settings, role="owner"), mlflow_client(self._settings)
        return change_role(owner, client, version, action, actor=actor, to=to, fault=self.fault, gate=gate)

    def _select(self, *where: sa.ColumnElement[bool]) -> list[ServingVersion]:
        with database_errors(), self._engine.connect() as connection:
            return select_versions(connection, *where)
