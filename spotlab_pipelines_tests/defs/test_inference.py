"""The checks of predictions warn by account, version and feature, of all accounts whichever the run was about."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.inference import drift_check, scored_check, version_checks
from spotlab_pipelines.features.drift import Drift
from spotlab_pipelines_tests.experiments.factory import register

FIRST, SECOND = "111111111111", "222222222222"


def figures(psi: float, ks: float = 0.4) -> dict[str, float]:
    return {"psi": psi, "psi_by_chance": 0.15, "ks": ks, "ks_by_chance": 0.3, "rows_effective": 30.0}


def test_drift_beyond_chance_warns_and_names_what_drifted() -> None:
    moved, still, few = figures(0.36), figures(0.34), figures(0.9, ks=0.29)
    drift: dict[str, dict[str, Drift | None]] = {
        FIRST: {"a/1": None, "b/1": {"x": still, "y": few}},
        SECOND: {"a/1": None, "b/1": {"x": moved, "y": still}},
    }
    result = drift_check(drift, psi_warn=0.2)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    metadata = cast("dict[str, Any]", result.metadata)
    assert result.description == (
        "Features have drifted in 1 of 2 accounts that could be compared:"
        " 222222222222, b/1: x has PSI 0.36 (0.15 by chance), KS 0.40."
    ), "the page of the check shows this line first"
    assert "| 222222222222 | b/1 | x | 0.36 | 0.15 | 0.4 | 0.3 | 30 |" in metadata["drifted"].value
    assert metadata["no reference"].value == ["a/1"]
    assert drift_check(drift, psi_warn=0.3).passed


def test_what_cannot_be_compared_does_not_warn_and_is_not_called_compared() -> None:
    result = drift_check({FIRST: {"a/1": None}, SECOND: {"a/1": None, "b/1": {}}}, psi_warn=0.2)
    assert result.passed
    assert result.description == "Features have drifted in 0 of 0 accounts that could be compared."


def test_features_of_too_few_pools_are_named_and_do_not_make_an_account_compared() -> None:
    most = {"psi_most": 1.4, "ks_most": 0.9}
    few, many = figures(0.9, ks=0.9) | most | {"ks_by_chance": 1.63}, figures(0.1) | most
    drift: dict[str, dict[str, Drift | None]] = {FIRST: {"b/1": {"x": few, "y": few}}, SECOND: {"b/1": {"x": many}}}
    result = drift_check(drift, psi_warn=0.2)
    assert result.passed
    assert result.description == (
        "Features have drifted in 0 of 1 accounts that could be compared."
        " In 1 of 2 accounts some features are of too few pools to tell."
    )
    metadata = cast("dict[str, Any]", result.metadata)
    assert metadata["too few to tell"].value == ["111111111111, b/1: x", "111111111111, b/1: y"]


def test_an_evaluation_of_before_ks_had_a_measure_of_chance_is_compared_by_psi() -> None:
    old = {"psi": 0.4, "psi_by_chance": 0.1, "ks": 0.1}
    assert not drift_check({FIRST: {"b/1": {"x": old}}}, psi_warn=0.2).passed
    few = drift_check({FIRST: {"b/1": {"x": figures(0.4) | {"ks_by_chance": 1.0}}}}, psi_warn=0.2)
    assert "in 0 of 0 accounts" in str(few.description), "KS is never above 1"


def test_a_version_that_failed_warns_by_account_and_reason() -> None:
    result = scored_check({FIRST: {"b/1": "it raised."}, SECOND: {}})
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    metadata = cast("dict[str, Any]", result.metadata)
    assert metadata["failed"].value == ["111111111111, b/1: it raised."]
    assert result.description == "A version failed in 1 of 2 accounts: 111111111111, b/1: it raised."
    assert scored_check({SECOND: {}}).passed


def test_a_run_about_one_account_tells_of_the_others_too(engine: sa.Engine, owner: sa.Engine) -> None:
    register(engine, FIRST, SECOND)
    details = {
        "drift": {"a/1": None, "b/1": {"x": figures(0.5)}},
        "failed_versions": {"c/1": "it raised."},
    }
    with owner.begin() as connection:
        for step, (account, state, told) in enumerate(
            (
                (FIRST, "logged", {"drift": {"b/1": {"x": figures(9.0)}}}),
                (FIRST, "logged", details),
                (FIRST, "running", {}),
                (SECOND, "logged", details),
            ),
            start=1,
        ):
            connection.execute(
                sa.text(
                    "insert into evaluations (account_id, window_start, step, state, snapshot_id, details) values "
                    "(:account, timestamptz '2026-11-01 00:00+00' + :step * interval '1 h', :step, :state, :hash,"
                    " cast(:details as jsonb))"
                ),
                {"account": account, "step": step, "state": state, "hash": "0" * 64, "details": json.dumps(told)},
            )
    window = datetime(2026, 11, 1, 4, tzinfo=UTC)
    report = SimpleNamespace(window_start=window, drift={"b/1": {"x": figures(0.2)}}, failed={})
    drift, scored = version_checks({SECOND: report}, engine, psi_warn=0.2)
    assert str(drift.description).startswith("Features have drifted in 1 of 2 accounts that could be compared: 1111")
    assert "PSI 0.50" in str(drift.description), "by its latest logged evaluation"
    assert scored.description == "A version failed in 1 of 2 accounts: 111111111111, c/1: it raised."
    older = SimpleNamespace(**vars(report) | {"window_start": window - timedelta(minutes=1)})
    drift, scored = version_checks({SECOND: older}, engine, psi_warn=0.2)
    assert str(drift.description).startswith("Features have drifted in 2 of 2"), "an old window's run takes no place"
    assert str(scored.description).startswith("A version failed in 2 of 2")
