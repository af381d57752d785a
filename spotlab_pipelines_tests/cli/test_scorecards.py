"""Scorecards and comparisons by the command line, over a log whose truth is known."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from spotlab_pipelines.experiments.judging import look
from spotlab_pipelines.experiments.verdict import VerdictRules
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.experiments.factory import CHALLENGER, CHAMPION, register
from spotlab_pipelines_tests.experiments.labelled_log import write_days

DAYS = 24


@pytest.fixture
def first_day(owner: sa.Engine) -> date:
    register(owner)
    day = datetime.now(UTC).date() - timedelta(days=DAYS + 1)
    write_days(owner, DAYS, first=day)
    return day


def test_a_scorecard_tells_figures_reliability_and_money(spotlab: Spotlab, first_day: date) -> None:
    told = spotlab("models", "scorecard", CHALLENGER)
    assert told.code == 0, told.err
    for word in ("brier_skill_low", "roc_auc", "retrospective", "│", "█", "regret_known", "less is better"):
        assert word in told.out
    found = spotlab("models", "scorecard", CHALLENGER, "--json").json
    [card] = found["scorecards"]
    assert card["brier_skill_low"] < card["brier_skill"] < card["brier_skill_high"]
    assert len(card["bins"]) == 2
    assert card["thresholds"][0]["threshold"] == 0.01
    assert found["decisions"]["instance_days"] > 0
    by = spotlab("models", "scorecard", CHALLENGER, "--by", "region", "--horizon", "1", "--json").json["scorecards"]
    assert [(row["group"], row["events"]) for row in by] == [("eu-west-1", 0), ("us-east-1", 0)]
    assert "us-east-1" in spotlab("models", "scorecard", CHALLENGER, "--by", "region").out
    assert spotlab("models", "scorecard", CHALLENGER, "--days", "1").code == 1
    assert "no 'none/1'" in spotlab("models", "scorecard", "none/1").err


def test_predictions_whose_outcomes_nobody_knows_yet_are_told_as_such(spotlab: Spotlab, owner: sa.Engine) -> None:
    register(owner)
    write_days(owner, 1, first=datetime.now(UTC).date() - timedelta(days=1), resolved=False)
    told = spotlab("models", "scorecard", CHALLENGER)
    assert told.code == 0, told.err
    cells = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in told.out.splitlines() if "│" in line}
    assert (cells["predictions"], cells["pending"], cells["n"], cells["events"]) == ("60", "60", "0", "0")
    assert told.out.endswith("What its decisions were worth is not known yet.\n")


@pytest.mark.parametrize("by", ["account", "environment", "region", "family"])
def test_what_decisions_were_worth_adds_up_over_groups(spotlab: Spotlab, first_day: date, by: str) -> None:
    whole = spotlab("models", "scorecard", CHALLENGER, "--horizon", "1", "--json").json["decisions"]
    parts = spotlab("models", "scorecard", CHALLENGER, "--by", by, "--json").json
    assert set(parts["decisions"]) == {card["group"] for card in parts["scorecards"]}
    for figure in ("decisions", "instance_days", "switches", "savings_hypothetical_usd", "avoided"):
        assert sum(each[figure] for each in parts["decisions"].values()) == pytest.approx(whole[figure])
    told = spotlab("models", "scorecard", CHALLENGER, "--by", by).out
    assert "hypothetical ┃ avoided ┃ regret ┃ known" in told
    assert "inf" not in told
    assert max(map(len, told.splitlines())) <= 120


def test_one_account_is_judged_by_its_own_decisions(spotlab: Spotlab, first_day: date) -> None:
    every = spotlab("models", "scorecard", CHALLENGER, "--by", "account", "--json").json["decisions"]
    account = min(every)
    alone = spotlab("models", "scorecard", CHALLENGER, "--account", account, "--json").json["decisions"]
    assert alone == {account: every[account]}
    split = spotlab("models", "scorecard", CHALLENGER, "--account", account, "--by", "region", "--json").json
    assert sum(each["decisions"] for each in split["decisions"].values()) == every[account]["decisions"]


def test_a_comparison_tells_the_difference_the_record_and_draws_it(
    spotlab: Spotlab, engine: sa.Engine, first_day: date, tmp_path: Path
) -> None:
    plot = tmp_path / "both.png"
    told = spotlab("models", "compare", CHAMPION, CHALLENGER, "--plot", str(plot))
    assert told.code == 0, told.err
    assert "A single look at these rows: promote. The challenger is better: Brier score lower by" in told.out
    all_rows = f"Only live predictions count there; {60 * DAYS} of the {60 * DAYS} above are."
    assert f"On record: no verdict on {CHALLENGER} against {CHAMPION}. {all_rows}" in told.out
    found = spotlab("models", "compare", CHAMPION, CHALLENGER, "--json").json
    for name, loss in (("Brier score", "brier"), ("log loss", "log_loss")):
        shown = next(line for line in told.out.splitlines() if line.startswith(f"│ {name} "))
        cells = [float(cell) for cell in shown.split("│")[2:-1]]
        assert cells == pytest.approx([found["verdict"][loss][end] for end in ("mean", "low", "high")], rel=1e-3)
    assert (found["why_no_difference"], found["live"]) == (None, 60 * DAYS)
    few = spotlab("models", "compare", CHAMPION, CHALLENGER, "--days", "5")
    assert (few.code, "The difference is not shown, as too little is known" in few.out) == (0, True)
    found = spotlab("models", "compare", CHAMPION, CHALLENGER, "--days", "5", "--json").json
    assert "are asked for; there are" in found["why_no_difference"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    nowhere = spotlab("models", "compare", CHAMPION, CHALLENGER, "--plot", str(tmp_path / "none" / "both.png"))
    assert (nowhere.code, "both.png cannot be written: No such file" in nowhere.err) == (1, True), nowhere.err
    made = look(engine, CHAMPION, CHALLENGER, now=datetime.now(UTC), rules=VerdictRules(looks_max=30))
    told = spotlab("models", "compare", CHAMPION, CHALLENGER)
    assert f"On record, {made.day}: {made.verdict}. {made.why}" in told.out.replace("\n", " ")
    found = spotlab("models", "compare", CHAMPION, CHALLENGER, "--json").json
    assert found["verdict"]["brier"]["low"] > 0
    # So early in 30 looks nothing can be shown, and JSON has no infinity.
    assert found["on_record"]["brier_gain_low"] is None
    nothing = spotlab("models", "compare", CHAMPION, CHALLENGER, "--days", "1")
    assert (nothing.code, "both made; there are none" in nothing.err) == (1, True)
    assert "`spotlab models backtest`" in nothing.err


def test_a_comparison_tells_how_many_of_its_predictions_are_live(
    spotlab: Spotlab, owner: sa.Engine, first_day: date
) -> None:
    with owner.begin() as connection:
        connection.execute(
            sa.text(
                "insert into evaluations (account_id, window_start, step, state, snapshot_id, details) "
                "select account_id, window_start, row_number() over (), 'logged', min(snapshot_id), "
                "jsonb_build_object('retrospective', true) from experiment_logs where window_start < :live "
                "group by account_id, window_start"
            ),
            {"live": first_day + timedelta(days=DAYS - 4)},
        )
    told = spotlab("models", "compare", CHAMPION, CHALLENGER)
    assert f"Only live predictions count there; 240 of the {60 * DAYS} above are." in told.out
