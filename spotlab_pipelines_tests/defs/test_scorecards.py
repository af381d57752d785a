"""The asset of scorecards: its check shows the verdict, and warns of one that somebody should act upon."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa

from spotlab_pipelines.defs.scorecards import model_scorecards, verdict_check
from spotlab_pipelines.experiments.judging import Judged
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.experiments.factory import register
from spotlab_pipelines_tests.experiments.labelled_log import write_days

HELD = Judged(
    champion="a/1", challenger="b/1", day=date(2026, 3, 1), new=True, verdict="hold", why="No difference is shown.",
    look=3, predictions=4000, events=80, blocks=40, brier_gain=0.001, brier_gain_low=-0.002, brier_gain_high=0.004,
    ece=0.02,
)  # fmt: skip


def test_a_verdict_to_act_upon_warns_and_says_why() -> None:
    held = verdict_check([HELD], {})
    assert held.passed
    assert held.description == (
        "b/1 against a/1: hold, on 4,000 live predictions with an outcome. No difference is shown."
    )
    none = replace(HELD, verdict="insufficient data", why="No prediction of both has an outcome yet.", predictions=0)
    assert verdict_check([none], {"b/1": 1}).description == (
        "b/1 against a/1: insufficient data. No prediction of both has an outcome yet. Those of past windows do not"
        " count."
    )
    assert str(verdict_check([none], {"b/1": 0, "c/1": 1}).description).endswith("has an outcome yet.")
    promoted = verdict_check(
        [HELD, replace(HELD, challenger="c/1", verdict="promote", why="The challenger is better.")], {}
    )
    assert (promoted.passed, promoted.severity) == (False, dg.AssetCheckSeverity.WARN)
    table = cast("Any", promoted.metadata)["verdicts"].value
    for shown in ("c/1", "promote", "The challenger is better.", "-0.002", "0.004"):
        assert shown in table
    assert verdict_check([], {}).passed


def test_the_asset_judges_and_shows_the_scorecards(owner: sa.Engine, settings: Settings, mlflow_database: str) -> None:
    register(owner)
    write_days(owner, 3, first=datetime.now(UTC).date() - timedelta(days=4))
    database = cast("Any", owner)
    done = dg.materialize([model_scorecards], resources={"settings": settings, "database": database})
    assert done.success
    [materialized] = done.asset_materializations_for_node("model_scorecards")
    assert materialized.metadata["versions"].value == 2
    heading, _, champion, challenger = str(materialized.metadata["scorecards"].value).splitlines()
    assert heading.startswith("| version | brier_skill | brier_skill_low | brier_skill_high | verdict |")
    assert (champion.startswith("| advisor-rate/1 |"), "| champion |" in champion) == (True, True)
    assert (challenger.startswith("| logistic/1 |"), "| insufficient data |" in challenger) == (True, True)
    drawn = materialized.metadata["logistic/1 brier_skill"]
    assert isinstance(drawn, dg.FloatMetadataValue)
    assert f"| {drawn.value:.6g} |" in challenger
    [check] = done.get_asset_check_evaluations()
    assert check.passed
    assert "insufficient data" in str(check.description)
