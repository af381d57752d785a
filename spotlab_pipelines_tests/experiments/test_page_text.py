"""What a version's pages say, from rows alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from spotlab_pipelines.experiments.decision_value import COLUMNS
from spotlab_pipelines.experiments.judging import Judged
from spotlab_pipelines.experiments.page_text import (
    Page,
    above_card,
    description,
    figures,
    parameters,
    standing_line,
    tags,
    verdict_text,
    with_standing,
)
from spotlab_pipelines.inference.card import DESCRIPTION_MAX
from spotlab_pipelines.inference.versions import ServingVersion

START = pd.Timestamp("2026-03-01T00:00Z")
VERSION = ServingVersion(
    "logistic/1", "logistic", 1, "challenger", "approved", "v1", (1, 6, 12), "a", "0" * 64, "r", None, {}, "a test",
    None, None, (),
)  # fmt: skip
FITTED = replace(VERSION, training_sha256="0" * 64)


def page(days: int = 30, **changed: Any) -> Page:
    rows = pd.DataFrame(
        {
            "window_start": [START + pd.Timedelta(days=day) for day in range(days) for _ in range(50)],
            "region": "us-east-1", "account_id": "1", "instance_id": "i", "final": True,
            "outcome": (["interrupted"] + ["survived"] * 49) * days,
            "retrospective": True, "p_current": ([0.5] + [0.02] * 49) * days,
        }
    )  # fmt: skip
    rows["interrupted_at"] = rows["window_start"].where(rows["outcome"] == "interrupted")
    return replace(Page(VERSION, {6: rows}, pd.DataFrame(columns=list(COLUMNS)), None), **changed)


def test_a_description_begins_in_plain_words_and_its_figures_have_the_digits_that_count() -> None:
    text = description(page())
    first, _, heading, _, row, *_ = text.splitlines()
    assert first == (
        "Scorecard at 6 h: 1,500 predictions with an outcome, 30 interrupted, Brier skill 0.725 (0.725 … 0.725),"
        " windows 2026-03-01 00:00 to 2026-03-30 00:00 UTC."
    )
    assert heading.startswith("| horizon&emsp; | predictions&emsp; | ")
    assert row.replace("&emsp;", "") == "| 6 h | 1,500 | 30 | 0.02 | 0.725 | 0.725 … 0.725 | 1 | 0.0296 |"


def test_an_interval_of_too_few_events_is_not_an_infinite_one() -> None:
    text = description(page(days=1))
    assert "Brier skill 0.725 (too few events)" in text
    assert "inf" not in text


def test_parameters_say_what_a_version_was_fitted_on() -> None:
    fit = {"source": "generated", "last_example": "2026-02-01", "base_version": "logistic/0", "C_1h": "1.0"}
    found = parameters(page(), fit)
    assert found["fitted_on"] == "generated"
    assert (found["fitted_through"], found["recalibrated_from"]) == ("2026-02-01", "logistic/0")
    plain = parameters(page(version=FITTED), {"source": "generated"})
    assert (plain["recalibrated_from"], "fitted_through" in plain) == ("none", False)


def test_a_version_that_was_fitted_on_nothing_says_so_and_one_whose_fit_is_lost_says_nothing() -> None:
    found = parameters(page(), {"source": "no data"})
    assert (found["fitted_on"], found["fitted_through"], found["data_fingerprint"]) == ("no data", "no data", "none")
    for version in (page().version, FITTED):
        assert not {"fitted_on", "fitted_through", "recalibrated_from"} & set(parameters(page(version=version), {}))
    told = parameters(page(), {"entry_point": "quiet-hours", "data": "Probes of May."})
    assert (told["fitted_on"], "fitted_through" in told) == ("Probes of May.", False)


def test_figures_begin_with_what_versions_are_compared_by() -> None:
    names = list(figures(page()))
    assert names[:5] == [
        f"card/{name}_6h" for name in ("brier_skill", "brier_skill_low", "brier_skill_high", "roc_auc", "ece")
    ]
    assert [name.partition("/")[0] for name in names] == sorted(name.partition("/")[0] for name in names)
    assert {"rows/n_6h", "rows/events_6h", "rows/base_rate_6h", "rows/uncertainty_6h", "rows/censored_6h"} == {
        name for name in names if name.startswith("rows/")
    }


def test_figures_before_an_instant_are_those_of_the_windows_until_then() -> None:
    whole, half = page(), page().before(START + pd.Timedelta(days=15))
    assert (figures(whole)["rows/n_6h"], figures(half)["rows/n_6h"]) == (1500, 750)
    assert figures(half) == figures(page(days=15))


def test_tags_sort_as_numbers() -> None:
    assert {name: float(tags(page())[f"spotlab.{name}"]) for name in ("n", "events", "ece")} == {
        "n": 1500, "events": 30, "ece": 0.0296
    }  # fmt: skip


def test_a_verdict_without_predictions_speaks_of_past_windows_where_the_scorecard_has_any() -> None:
    verdict = Judged("a/1", "logistic/1", None, False, "insufficient data", "None yet.", 1, 0, 0, 0, *[None] * 4)
    ending = " Those of past windows do not count."
    past = description(page(verdict=verdict))
    assert past.endswith(f"**Verdict** against a/1: insufficient data. None yet.{ending}")
    live = page().rows.assign(retrospective=False)
    assert description(page(verdict=verdict, labels={6: live})).endswith("insufficient data. None yet.")
    assert verdict_text(replace(verdict, predictions=7), past=7).endswith(
        "on 7 live predictions with an outcome. None yet."
    )


def test_how_a_version_stands_is_said_anew_in_its_place_alone() -> None:
    verdict = Judged("a/1", "logistic/1", None, False, "reject", "It is worse.", 1, 9, 2, 1, *[None] * 4)
    champion = replace(VERSION, role="champion")
    for rows in (page().rows, page().rows.assign(retrospective=False)):
        stands: list[dict[str, Any]] = [{"version": champion}, {"verdict": verdict}, {}]
        texts = [description(page(labels={6: rows}, **each)) for each in stands]
        lines = [standing_line("champion", None), standing_line("none", verdict), standing_line("none", None)]
        for before in texts:
            for line, after in zip(lines, texts, strict=True):
                card = "\n\n---\n\nThe card.\nIt is the champion."
                assert with_standing(before + card, line) == after + card
    assert with_standing("Left out at once.\nIt is the champion.", "") == "Left out at once.\nIt is the champion."


def test_a_figure_that_does_not_exist_any_more_takes_the_place_of_the_one_before() -> None:
    rows = page().rows
    calm = rows.assign(outcome="survived", interrupted_at=rows["interrupted_at"].where(rows["outcome"] == "none"))
    found = tags(page(labels={6: calm}))
    assert (found["spotlab.brier_skill"], found["spotlab.roc_auc"], found["spotlab.verdict"]) == ("none",) * 3
    assert (found["spotlab.n"], found["spotlab.events"]) == ("1500", "0")


def test_a_scorecard_takes_the_place_of_an_older_one_above_the_card_within_what_mlflow_keeps() -> None:
    card = "Registered by a test.\n\n" + "x" * 4900
    once = above_card("Scorecard at 6 h: one.", card)
    assert once.startswith("Scorecard at 6 h: one.\n\n---\n\nRegistered by a test.")
    twice = above_card("Scorecard at 6 h: " + 500 * "y", once)
    assert (twice.count("---"), len(twice)) == (1, DESCRIPTION_MAX)
    assert above_card("Scorecard at 6 h: two.", "**Scorecard at 6 h**, old.\n\n---\n\nThe card.").endswith(
        "two.\n\n---\n\nThe card."
    )
