"""What a person sees in the Dagster UI: counts, ages, previews, a plot and links, made of a room's report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from spotlab_pipelines.defs.metadata import ROW_COUNT, accounts_metadata, histogram_image, report_metadata

FETCHED_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Report:
    """A report with a field of every kind that is shown."""

    row_count: int = 12
    data_age_s: float = 61.5
    fetched_at: datetime = FETCHED_AT
    archive_path: str | None = None
    excluded: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=lambda: {"logistic/1": "http://127.0.0.1:5000/#/runs/1"})
    probabilities: Any = None
    preview: Any = None


def test_a_report_shows_its_count_age_times_preview_plot_and_links() -> None:
    preview = pd.DataFrame({"pool": [f"m5.large|{n}" for n in range(30)], "price": np.linspace(0.1, 0.2, 30)})
    shown = report_metadata(Report(preview=preview, probabilities=np.array([0.01, 0.02, np.nan])))
    assert shown[ROW_COUNT] == 12
    assert shown["data_age_s"] == 61.5
    assert shown["fetched_at"] == dg.MetadataValue.timestamp(FETCHED_AT)
    assert len(shown["preview"].value.splitlines()) == 12, "ten rows, a heading and its rule"
    assert "m5.large\\|0" in shown["preview"].value, "a cell cannot end the column"
    assert shown["probabilities"].value.startswith("![Interruption probabilities")
    assert shown["links"].value == "- [logistic/1](http://127.0.0.1:5000/#/runs/1)"
    assert "archive_path" not in shown
    assert "excluded" not in shown


def test_a_table_shows_its_length_and_first_rows() -> None:
    shown = report_metadata(pd.DataFrame({"instance_id": ["i-1", "i-2"]}))
    assert shown[ROW_COUNT] == 2
    assert "| i-2 |" in shown["preview"].value


def test_the_histogram_counts_what_is_finite() -> None:
    text = histogram_image(np.array([[0.5, 0.5], [0.1, np.inf]]), title="p").value
    assert "n%20%3D%203" in text
    assert "highest%20bar%202" in text


def test_a_run_over_several_accounts_has_a_line_for_each_and_says_who_failed() -> None:
    shown = accounts_metadata({"1" * 12: Report(), "2" * 12: Report()}, {"3" * 12: "Throttled: slowly"})
    assert (shown["accounts"], shown["accounts_failed"]) == (2, 1)
    assert shown["per_account"].value["1" * 12]["row_count"] == 12
    assert shown["failed"].value == {"3" * 12: "Throttled: slowly"}
