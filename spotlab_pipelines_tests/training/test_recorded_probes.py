"""The recorded launch probes, by the product's commands: imported, trained on the first weeks, judged on the last."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from spotlab_pipelines.settings import get_settings
from spotlab_pipelines_tests.cli.conftest import Spotlab, spotlab, use
from spotlab_pipelines_tests.market.feeds import feed_server
from spotlab_pipelines_tests.recorded import RECORDED, needs_recorded_data

__all__ = ["spotlab", "use"]
pytestmark = [*needs_recorded_data, pytest.mark.timeout(600)]
PROBES = RECORDED / "traces" / "launch-probes_us-west-2_2022-10-26_2023-01-05.parquet"
ADVISOR = RECORDED / "spot-advisor" / "spot-advisor-data_2021-02-10.json"
"""The last that was recorded before the probes: all of their types are in its bucket "more than 20 %"."""
CUT = "2022-12-13"


def test_a_logistic_of_the_first_weeks_is_as_good_as_the_reference_on_the_last(
    spotlab: Spotlab, engine: sa.Engine, mlflow_database: str, monkeypatch: pytest.MonkeyPatch
):
    """Reference: AUC 0.812 and Brier skill +0.265 over the rate of the first weeks, each within 0.01."""
    statement = (
        "--time-column ts --region-column region --zone-column az --type-column instance_type --product Linux/UNIX"
        " --available-when available=1 --failed-when available=0"
    )
    with feed_server() as feed:
        feed.body = ADVISOR.read_bytes()
        monkeypatch.setenv("SPOTLAB_ADVISOR_URL", feed.url)
        get_settings.cache_clear()
        answer = spotlab("market", "accept-advisor")
        assert answer.code == 0, answer.err
    for command in (
        f"outcomes import {PROBES} --name probes {statement}",
        f"models train logistic --trace probes --until {CUT}",
    ):
        answer = spotlab(*command.split())
        assert answer.code == 0, answer.err
    judged = {}
    for days in ((), ("--recalibrate-days", "3")):
        answer = spotlab("models", "backtest", "logistic/1", "--trace", "probes", "--since", CUT, *days, "--json")
        assert answer.code == 0, answer.err
        judged |= {(bool(days), row["forecaster"]): row for row in answer.json if row["horizon_h"] == 1}
    model, trailing = judged[False, "logistic/1"], judged[False, "trailing 24 h failure share"]
    assert model["n"] > 18_000
    assert model["roc_auc"] >= 0.802
    assert model["roc_auc"] >= trailing["roc_auc"] + 0.03
    assert min(model["brier_skill"], model["skill_over_constant"]) >= 0.255
    assert judged[False, "constant"]["roc_auc"] == judged[False, "advisor-rate"]["roc_auc"] == 0.5
    daily = judged[True, "logistic/1, recalibrated daily"]
    once = judged[True, "logistic/1, recalibrated once"]
    assert daily["ece"] <= 0.03
    assert daily["brier_skill"] >= 0.265
    raw = judged[True, "logistic/1"]
    assert once["ece"] < raw["ece"]
    assert once["brier"] < raw["brier"]
