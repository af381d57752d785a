"""How a room's report looks in the Dagster UI: one translation for all of them.

A report is a frozen dataclass; its numbers, times and tables are shown under their own field names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_ROWS = 10
ROW_COUNT = "dagster/row_count"
"""Dagster's own name for a table's length: the UI has a column for it and draws it over time."""
COUNTING_FIELDS = ("rows", "row_count", "rows_written", "features", "instances")
"""The fields of our reports that count the rows an asset wrote; of a report that has several, the first counts."""


def report_metadata(report: Any) -> dict[str, Any]:
    """The fields of a report as Dagster metadata; empty ones are left out."""
    fields = _fields(report)
    shown = {name: _shown(value) for name, value in fields.items()}
    shown[ROW_COUNT] = next((fields[name] for name in COUNTING_FIELDS if name in fields), None)
    return {name: value for name, value in shown.items() if value is not None}


def accounts_metadata(
    reports: Mapping[str, Any], failures: Mapping[str, str], *, already_logged: Sequence[str] = ()
) -> dict[str, Any]:
    """Metadata of one step over several accounts: one account's own report, or a table with a line for each."""
    if len(reports) == 1 and not failures and not already_logged:
        return report_metadata(next(iter(reports.values())))
    metadata: dict[str, Any] = {"accounts": len(reports), "accounts_failed": len(failures)}
    if reports:
        metadata["per_account"] = dg.MetadataValue.json(
            {account: _numbers(report) for account, report in reports.items()}
        )
    if already_logged:
        metadata["already_logged"] = dg.MetadataValue.json(list(already_logged))
    if failures:
        metadata["failed"] = dg.MetadataValue.json(dict(failures))
    return metadata


def histogram_image(values: Any, *, title: str, bins: int = 20) -> dg.MarkdownMetadataValue:
    """A histogram of probabilities as an inline SVG: no plotting library is loaded into a run for it.

    Args:
        values: array of probabilities, any shape; NaN is left out.
    """
    import numpy as np

    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    top = max(float(values.max(initial=0.0)), 0.01)
    counts, edges = np.histogram(values, bins=bins, range=(0.0, top))
    heights = 120 * counts / max(int(counts.max(initial=0)), 1)
    bars = "".join(
        f'<rect x="{40 + 18 * i}" y="{150 - height:.1f}" width="16" height="{height:.1f}" fill="#4f7cac"/>'
        for i, height in enumerate(heights)
    )
    ticks = "".join(
        f'<text x="{40 + 18 * i}" y="166" font-size="10">{100 * edges[i]:.2g}%</text>' for i in range(0, bins, 5)
    )
    caption = f"{title} (n = {values.size}, highest bar {int(counts.max(initial=0))})"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="420" height="190" font-family="sans-serif">'
        f'<text x="40" y="18" font-size="12">{caption}</text>'
        f'{bars}<line x1="40" y1="150" x2="{40 + 18 * bins}" y2="150" stroke="#333"/>{ticks}'
        f'<text x="{40 + 18 * bins}" y="166" font-size="10">{100 * top:.2g}%</text></svg>'
    )
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;utf8,{quote(svg)})")


def _shown(value: Any) -> Any:
    if hasattr(value, "columns"):
        return dg.MetadataValue.md(markdown_table(value.head(PREVIEW_ROWS)))
    if hasattr(value, "shape"):
        return histogram_image(value, title="Interruption probabilities, all horizons")
    if value is None or value == {} or value == "":
        return None
    if isinstance(value, bool | int | float | str | dg.MetadataValue):
        return value
    if isinstance(value, datetime):
        return dg.MetadataValue.timestamp(value)
    if isinstance(value, dict) and all(str(item).startswith(("http://", "https://")) for item in value.values()):
        return dg.MetadataValue.md("\n".join(f"- [{name}]({url})" for name, url in value.items()))
    return dg.MetadataValue.json(_plain(value))


def _numbers(report: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in _fields(report).items() if not hasattr(value, "shape")}


def _fields(report: Any) -> dict[str, Any]:
    """A report by name; a bare table is its number of rows and a preview."""
    if hasattr(report, "columns"):
        return {"rows": len(report), "preview": report}
    return {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def markdown_table(frame: pd.DataFrame) -> str:
    """A small frame as a Markdown table; floats with six significant digits."""

    def cell(value: Any) -> str:
        return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns)]
    lines += [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
