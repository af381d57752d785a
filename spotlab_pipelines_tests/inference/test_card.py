"""The model card: what a reader finds in it."""

from __future__ import annotations

from typing import Any

from spotlab_pipelines.inference.card import CUT, Notes, cut, description, facts_of, model_card
from spotlab_pipelines_tests.inference.models import of_spec


def card(**facts: Any) -> str:
    estimator, _ = of_spec("v2")
    empty: dict[str, Any] = {"params": {}, "metrics": {}, "training_sha256": None, "training_rows": None}
    return model_card(
        facts_of(estimator, **empty | {"family": "logistic", "feature_spec": "v2", "registered_by": "a test"} | facts)
    )


def test_what_is_measured_at_each_horizon_has_a_column_for_each_in_their_order():
    metrics = {"auc_12h": 0.7, "auc_1h": 0.81, "auc_6h": 0.75, "walk_forward_ece_1h": 0.01, "fit_seconds": 3.0}
    _, _, below = card(metrics=metrics).partition("## Metrics")
    table, others = below.partition("## Limits")[0].strip().split("\n\n")
    assert table.splitlines() == [
        "| metric | 1h | 6h | 12h |",
        "| --- | --- | --- | --- |",
        "| auc | 0.81 | 0.75 | 0.7 |",
        "| walk_forward_ece | 0.01 |  |  |",
    ]
    assert others.splitlines() == ["| metric | value |", "| --- | --- |", "| fit_seconds | 3 |"]


def test_a_card_without_metrics_says_so():
    assert "## Metrics\n\nNone were measured.\n" in card()


def test_a_card_gives_its_figures_with_the_digits_that_count():
    _, _, below = card(metrics={"brier_6h": 0.0290987, "n_6h": 17843.0, "cost": 1234.5}).partition("## Metrics")
    assert "| brier |  | 0.0291 |  |" in below
    assert "| n |  | 17,843 |  |" in below
    assert "| cost | 1,234 |" in below


def test_how_many_examples_is_said_once_and_what_a_version_is_recalibrated_from():
    counted = {"training_sha256": "0" * 64, "training_rows": 8487}
    assert "## Data\n\n8,487 examples. Fingerprint: `000" in card(**counted)
    told = card(**counted, notes=Notes(data="The trace t: 8487 examples.", base="logistic/1"))
    assert "## Data\n\nThe trace t: 8487 examples. Fingerprint: `000" in told
    assert told.startswith("# logistic\n\nRecalibrated from logistic/1: its models, with a map more for each horizon. ")
    assert "Recalibrated" not in card(**counted)


def test_a_description_begins_with_a_plain_sentence_and_leaves_room_between_columns():
    text = description(card(metrics={"auc_1h": 0.7, "auc_6h": 0.7, "auc_12h": 0.7}))
    assert text.startswith("Registered by a test; reads ")
    assert "| auc&emsp; | 0.7&emsp; | 0.7&emsp; | 0.7 |\n" in text
    assert "| --- | --- |" in text


def test_a_long_card_is_cut_to_what_mlflow_keeps():
    long = card(params={f"parameter_{number}": "x" * 100 for number in range(50)})
    assert len(long) > 5000
    text = description(long)
    assert len(text) == 5000
    assert text.endswith(f"xx{CUT}")
    again = cut(f"A scorecard above it.\n\n{text}")
    assert (len(again), again.count(CUT)) == (5000, 1)
