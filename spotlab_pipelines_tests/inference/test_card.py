"""The model card: what a reader finds in it."""

from __future__ import annotations

from typing import Any

from spotlab_pipelines.inference.card import description, facts_of, model_card
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


def test_a_long_card_is_cut_to_what_mlflow_keeps_and_what_stands_below_is_whole():
    long = card(params={f"parameter_{number}": "x" * 100 for number in range(50)})
    assert len(long) > 5000
    cut = description(long, "\n\n## Scorecard")
    assert len(cut) == 5000
    assert cut.endswith("README.md of the artifact.\n\n## Scorecard")
    assert cut.startswith(long[:4000])
