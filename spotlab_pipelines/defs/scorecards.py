"""The asset of scorecards and verdicts: what each version was worth, in MLflow and on record."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from spotlab_pipelines.defs.evaluation import translated
from spotlab_pipelines.defs.metadata import markdown_table
from spotlab_pipelines.defs.resources import DatabaseParam, SettingsParam

if TYPE_CHECKING:
    from spotlab_pipelines.experiments.judging import Judged
    from spotlab_pipelines.experiments.scorecards import VersionScorecard

VERDICTS = "verdicts"


@dg.asset(
    deps=["interruption_outcomes"],
    group_name="experiments",
    kinds={"postgres", "mlflow"},
    owners=["team:ml-engineering"],
    check_specs=[
        dg.AssetCheckSpec(
            VERDICTS,
            asset="model_scorecards",
            description="Whether a challenger has beaten the champion. A promote verdict waits for an admin.",
        )
    ],
)
def model_scorecards(settings: SettingsParam, database: DatabaseParam) -> dg.MaterializeResult:
    """What each version's predictions and decisions were worth by what really happened; verdicts on the challengers."""
    from spotlab_pipelines.experiments.judging import judge_challengers
    from spotlab_pipelines.experiments.pages import publish_scorecards

    with translated():
        now = datetime.now(UTC)
        verdicts = judge_challengers(database, now=now)
        cards, links = publish_scorecards(settings, database, verdicts, now=now)
    return dg.MaterializeResult(
        metadata={
            "versions": len(cards),
            "scorecards": markdown_rows(scorecard_rows(cards, verdicts)),
            "mlflow": dg.MetadataValue.md("\n".join(f"- [{name}]({url})" for name, url in links.items())),
            **{f"{card.version} {name}": value for card in cards for name, value in plotted(card).items()},
        },
        check_results=[verdict_check(verdicts, {card.version: card.retrospective for card in cards})],
    )


def scorecard_rows(cards: Sequence["VersionScorecard"], verdicts: Sequence["Judged"]) -> list[dict[str, object]]:
    """A row a version: what it is judged by and how it ended at first."""
    said = {each.challenger: each.verdict for each in verdicts} | {each.champion: "champion" for each in verdicts}
    first = ("version", "brier_skill", "brier_skill_low", "brier_skill_high")
    rows = []
    for card in cards:
        row = card.row()
        rows.append({name: row[name] for name in first} | {"verdict": said.get(card.version, "")} | row)
    return rows


def plotted(card: "VersionScorecard") -> dict[str, float]:
    """The figures of a version that Dagster draws over its materialisations."""
    row = card.row()
    return {name: row[name] for name in ("brier_skill", "roc_auc", "ece", "n", "events") if row[name] is not None}


def verdict_check(verdicts: Sequence["Judged"], past: Mapping[str, int]) -> dg.AssetCheckResult:
    """Passes while there is nothing to do; warns of a verdict that somebody should act upon: promote or reject.

    Args:
        past: by version its predictions of past windows, which its scorecard shows; none of one without a scorecard.
    """
    from spotlab_pipelines.experiments.page_text import verdict_text

    decided = [each for each in verdicts if each.verdict in ("promote", "reject")]
    told = "; ".join(f"{each.challenger} {verdict_text(each, past=past.get(each.challenger, 0))}" for each in verdicts)
    return dg.AssetCheckResult(
        check_name=VERDICTS,
        passed=not decided,
        severity=dg.AssetCheckSeverity.WARN,
        description=told or "No challenger, or no champion, to judge.",
        metadata={"verdicts": markdown_rows([vars(each) for each in verdicts])},
    )


def markdown_rows(rows: list[dict[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows of the same columns as a Markdown table; what does not exist is an empty cell."""
    import pandas as pd

    return dg.MetadataValue.md(markdown_table(pd.DataFrame(rows).astype(object).where(lambda frame: frame.notna(), "")))
