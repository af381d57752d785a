"""Asking models whether they conform: those of installed packages and those in the registry, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spotlab_pipelines.errors import PermanentError
from spotlab_pipelines.inference.batch import reason
from spotlab_pipelines.inference.conformance import Finding, findings
from spotlab_pipelines.inference.packages import adapter_class, make_model, package_of, packaged_models

if TYPE_CHECKING:
    from spotlab_pipelines.inference.adapter import BaseModelAdapter
    from spotlab_pipelines.inference.registry import ModelRegistry


def names_of_all(registry: ModelRegistry) -> list[str]:
    """What there is to ask: the entry points of installed packages, then the versions that are not retired."""
    versions = [row.version for row in registry.versions() if row.status != "retired"]
    return [*(each.name for each in packaged_models()), *versions]


def examine(registry: ModelRegistry, name: str) -> list[Finding]:
    """The findings on one model: a registered version (it has a slash) or an installed entry point.

    Raises:
        ModelUnknown, NotFound: there is none of that name.
        StoreUnavailable: Postgres does not answer.
    """
    row = registry.find(name) if "/" in name else None
    try:
        model = registry.open(row) if row is not None else packaged(name)
    except PermanentError as error:
        return [Finding("can be opened", reason(error))]
    return [Finding("can be opened"), *findings(model)]


def packaged(name: str, feature_spec: str | None = None) -> BaseModelAdapter:
    """The adapter of an installed entry point, as it would be served.

    Raises:
        NotFound, ModelError, InvalidInput, FeatureError: see `make_model`; the model reads what its spec has not.
    """
    estimator, spec = make_model(name, feature_spec)
    serve = adapter_class(package_of(estimator, name))
    return serve(version=f"{name}/new", feature_version=spec, estimator=estimator)
