"""The drift check warns by account, version and feature, and a version without a reference is named, not passed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import dagster as dg

from spotlab_pipelines.defs.inference import drift_check, scored_check


def test_drift_beyond_chance_warns_and_names_what_drifted() -> None:
    moved, still = ({"psi": psi, "ks": 0.4, "psi_by_chance": 0.15} for psi in (0.36, 0.34))
    reports: dict[str, Any] = {
        "111111111111": SimpleNamespace(drift={"a/1": None, "b/1": {"x": still}}),
        "222222222222": SimpleNamespace(drift={"a/1": None, "b/1": {"x": moved, "y": still}}),
    }
    result = drift_check(reports, psi_warn=0.2)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    metadata = cast("dict[str, Any]", result.metadata)
    assert "b/1: x has PSI 0.360" in str(result.description), "the page of the check shows this line first"
    assert metadata["drifted"].value == ["222222222222, b/1: x has PSI 0.360 (0.150 by chance)"]
    assert metadata["no reference"].value == ["a/1"]
    assert drift_check(reports, psi_warn=0.3).passed


def test_a_version_that_failed_warns_by_account_and_reason() -> None:
    reports: dict[str, Any] = {
        "111111111111": SimpleNamespace(
            versions={"a/1": "champion", "b/1": "challenger"}, failed={"b/1": "it raised."}
        ),
        "222222222222": SimpleNamespace(versions={"a/1": "champion", "b/1": "challenger"}, failed={}),
    }
    result = scored_check(reports)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    metadata = cast("dict[str, Any]", result.metadata)
    assert metadata["failed"].value == ["111111111111, b/1: it raised."]
    assert result.description == "1 of 4 times that a version was asked it failed."
    assert scored_check({"222222222222": reports["222222222222"]}).passed
