"""The asset of scorecards and verdicts: what each version was worth, in MLflow and on record."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from spotlab_pipelines.defs.evaluation import translated
from spotlab_pipelines.defs.metadata import markdown_table
from spotlab_pipelines.defs.resources import DatabaseParam, SettingsParam

if TYPE_CHECKING:
    from spotlab_pipelines.experiments.judging import Judged

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
    table = markdown_rows([card.row() for card in cards])
    return dg.MaterializeResult(
        metadata={
            "versions": len(cards),
            "scorecards": table,
            "mlflow": dg.MetadataValue.md("\n".join(f"- [{name}]({url})" for name, url in links.items())),
        },
        check_results=[verdict_check(verdicts)],
    )


def verdict_check(verdicts: Sequence["Judged"]) -> dg.AssetCheckResult:
    """Passes while there is nothing to do; warns of a verdict that somebody should act upon: promote or reject."""
    decided = [each for each in verdicts if each.verdict in ("promote", "reject")]
    told = "; ".join(f"{each.challenger} against {each.champion}: {each.verdict}. {each.why}" for each in verdicts)
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
