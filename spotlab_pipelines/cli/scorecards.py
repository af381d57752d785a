"""`spotlab models scorecard` and `spotlab models compare`: what versions were worth by what really happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spotlab_pipelines.cli.shared import Json, OnlyAccount, database, read_settings
from spotlab_pipelines.terminal import print_figures, print_json, print_rows

if TYPE_CHECKING:
    from spotlab_pipelines.experiments.judging import Comparison
    from spotlab_pipelines.experiments.scorecards import VersionScorecard
    from spotlab_pipelines.experiments.verdict import Verdict
    from spotlab_pipelines.settings import Settings

Horizon = Annotated[Literal["1", "6", "12"], typer.Option(help="Horizon of the predictions, in hours.")]
Days = Annotated[
    int | None,
    typer.Option(min=1, max=3660, help="Days of predictions to look back on. Default: SPOTLAB_SCORECARD_DAYS."),
]
FIGURES = {
    "predictions": "rows of the log at this horizon",
    "n": "of them with a known outcome; all figures are about these",
    "events": "of n: interrupted within the horizon",
    "censored": "ended otherwise, left out",
    "pending": "not known yet, left out",
    "retrospective": "made of past windows: they show, but promote nobody",
    "base_rate": "events / n",
    "brier": "mean squared error of the probability; less is better",
    "brier_skill": "1 - brier / that of the base rate; above 0 is better than it",
    "brier_skill_low": "low end of its 95 % interval",
    "brier_skill_high": "high end",
    "roc_auc": "how well interrupted ones rank first: 1 perfectly, 0.5 by chance",
    "pr_auc": "the same by precision and recall; chance is the base rate",
    "log_loss": "less is better",
    "ece": "mean distance of predicted from observed; less is better",
}
MONEY = {
    "decisions": "that were weighed",
    "instance_days": "days that the instances ran under them",
    "switches": "how often the wished pool of an instance changed",
    "churn": "switches per instance-day",
    "followed": "wishes to move that were carried out, whoever acted",
    "replacements_unknown": "of followed: what replaced the instance is not known, left out",
    "replacement_days": "days that the replacements of the others really ran",
    "savings_realised_usd": "price left minus price moved to over these days; below 0 the moves cost more",
    "savings_hypothetical_usd": "of wishes not carried out: what they would have saved in price",
    "avoided": "interruptions of instances that it wished elsewhere: hypothetical as well",
    "cost_per_avoided_usd": "what those wishes would have cost in price for each of these",
    "regret_usd": "what was decided minus the cheaper of staying and on-demand in hindsight",
    "regret_per_instance_day_usd": "the same per instance-day",
    "regret_known": "share of decisions for which it is known",
}
GROUPED = (
    *("group", "predictions", "n", "events", "base_rate", "brier_skill", "brier_skill_low", "brier_skill_high"),
    *("roc_auc", "ece"),
)
MONEY_GROUPED = (
    *("decisions", "instance_days", "switches", "churn", "followed", "savings_realised_usd"),
    *("savings_hypothetical_usd", "avoided", "regret_usd", "regret_known"),
)
SHORT = {
    "brier_skill_low": "low",
    "brier_skill_high": "high",
    "instance_days": "days",
    "savings_realised_usd": "realised",
    "savings_hypothetical_usd": "hypothetical",
    "regret_usd": "regret",
    "regret_known": "known",
}
"""The headings of figures in a table with a row a group, which has to fit a terminal."""


def models_scorecard(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A registered version, such as logistic/1.")],
    by: Annotated[
        Literal["account", "environment", "region", "family"] | None,
        typer.Option(help="A scorecard for each of these instead of one in all."),
    ] = None,
    horizon: Horizon = "6",
    days: Days = None,
    account: OnlyAccount = None,
    as_json: Json = False,
) -> None:
    """Show what a version's predictions were worth, by what really happened to the instances.

    The Brier skill comes with its 95 % interval. Censored and still open predictions are left out and counted. What its
    decisions were worth is told as well, in USD over the hours that instances really ran; a decision is one for all
    horizons.
    """
    from spotlab_pipelines.experiments.judging import HORIZON_H
    from spotlab_pipelines.experiments.scorecards import version_scorecards, version_values, version_values_by
    from spotlab_pipelines.inference.registry import ModelRegistry

    settings = read_settings()
    since, horizon_h = _since(settings, days), int(horizon)
    with database(settings) as engine:
        found = ModelRegistry(engine, settings).find(version).version
        cards = version_scorecards(engine, version, horizon_h=horizon_h, since=since, by=by, account_id=account)
        if by is None and account is None:
            values = version_values(engine, [found], horizon_h=HORIZON_H, since=since)
        else:
            values = version_values_by(
                engine, found, by or "account", horizon_h=HORIZON_H, since=since, account_id=account
            )
    told = {name: value.metrics() for name, value in values.items()}
    if as_json:
        one = by is None and account is None
        decisions = next(iter(told.values()), None) if one else told
        print_json({"scorecards": [full_scorecard(card) for card in cards], "decisions": decisions})
        return
    if by is not None:
        print_rows([_grouped(card.row(), GROUPED) for card in cards], as_json=False, empty="")
        print("low and high are the ends of the 95 % interval of brier_skill, empty where too little is known.")
    else:
        print_figures([(card.version, _finite(card.row())) for card in cards], FIGURES)
        _print_reliability(cards)
    if not told:
        print("What its decisions were worth is not known yet.")
        return
    print("What its decisions were worth, in USD:")
    if by is not None:
        rows = [{"group": name} | _grouped(value, MONEY_GROUPED) for name, value in told.items()]
        print_rows(rows, as_json=False, empty="")
    else:
        print_figures(list(told.items()), MONEY)


def models_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A version, taken as the champion.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The version to compare with it.")],
    horizon: Horizon = "6",
    days: Days = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the plots to this PNG file: reliability, ROC, PR, over time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two versions on the predictions that both made, past windows included, and show the verdict on record.

    The difference in Brier score and log loss, with its 90 % interval, is what a single look at these rows shows; it
    goes on no record, and is not shown where too little is known. Verdicts are made day by day by the asset
    model_scorecards, at 6 h and without past windows.
    """
    from spotlab_pipelines.errors import InvalidInput, NotEnoughData
    from spotlab_pipelines.experiments.judging import compare
    from spotlab_pipelines.experiments.plots import one_picture
    from spotlab_pipelines.inference.registry import ModelRegistry

    if first == second:
        raise typer.BadParameter(f"Expected two versions, got {first} twice.")
    settings = read_settings()
    with database(settings) as engine:
        registry = ModelRegistry(engine, settings)
        names = [registry.find(version).version for version in (first, second)]
        found = compare(engine, *names, horizon_h=int(horizon), since=_since(settings, days))
    if found is None:
        raise NotEnoughData(
            f"Expected predictions that {first} and {second} both made; there are none.",
            remedy="Only the champion, challengers and assigned versions predict; `spotlab models backtest` judges any "
            "version on a trace.",
        )
    if plot is not None and found.said:
        try:
            plot.write_bytes(one_picture(found.said, title=f"{first} and {second} at {horizon} h"))
        except OSError as error:
            raise InvalidInput(f"{plot} cannot be written: {error.strerror}.", remedy="Name another --plot.") from error
    if as_json:
        print_json(_comparison(found))
        return
    print_figures([(card.version, _finite(card.row())) for card in (found.first, found.second)], FIGURES)
    _print_reliability([found.first, found.second])
    if found.verdict.brier is None:
        print("The difference is not shown, as too little is known to tell it from chance.")
    else:
        print(f"The loss of {first} minus that of {second}, row by row; above 0 {second} is better:")
        print_rows(_differences(found.verdict), as_json=False, empty="")
    print(f"A single look at these rows: {found.verdict.verdict}. {found.verdict.why}")
    record = found.on_record
    live = f"Only live predictions count there; {_live(found)} of the {found.first.predictions} above are."
    if record is None:
        print(f"On record: no verdict on {second} against {first}. {live}")
    else:
        print(f"On record, {record.day}: {record.verdict}. {record.why} {live}")


def _since(settings: Settings, days: int | None) -> datetime:
    return datetime.now(UTC) - timedelta(days=days or settings.scorecard_days)


def full_scorecard(card: VersionScorecard) -> dict[str, Any]:
    """A scorecard for a script, the reliability diagram and the table of thresholds with it."""
    from spotlab_pipelines.terminal import records

    tables = {} if card.card is None else {"bins": records(card.card.bins), "thresholds": records(card.card.thresholds)}
    return _finite(card.row()) | tables


def _live(found: Comparison) -> int:
    """Predictions that were not made of past windows."""
    return found.first.predictions - found.first.retrospective


def _differences(verdict: Verdict) -> list[dict[str, Any]]:
    """The paired differences of a comparison that has some; an end of an interval that is not known is empty."""
    told = (("Brier score", verdict.brier), ("log loss", verdict.log_loss))
    ends = ("low", "high")
    return [
        {"difference in": name, "mean": each.mean, **{f"90 % {end}": finite(getattr(each, end)) for end in ends}}
        for name, each in told
        if each is not None
    ]


def _comparison(found: Comparison) -> dict[str, Any]:
    record = None if found.on_record is None else vars(found.on_record)
    return {
        "first": full_scorecard(found.first),
        "second": full_scorecard(found.second),
        "verdict": _verdict(found.verdict),
        "why_no_difference": found.verdict.why if found.verdict.brier is None else None,
        "live": _live(found),
        "on_record": None if record is None else {name: finite(value) for name, value in record.items()},
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    differences = {
        name: None if each is None else {key: finite(value) for key, value in vars(each).items()}
        for name, each in (("brier", verdict.brier), ("log_loss", verdict.log_loss))
    }
    return vars(verdict) | differences


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: finite(value) for name, value in figures.items()}


def _grouped(figures: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Some figures under short headings, with as many digits as fit a terminal."""
    found = {SHORT.get(name, name): finite(figures.get(name)) for name in names}
    return {heading: round(value, 4) if isinstance(value, float) else value for heading, value in found.items()}


def finite(value: Any) -> Any:
    """An end of an interval that is not known is infinite: nothing in a table, null in JSON, which has no infinity."""
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def _print_reliability(cards: list[VersionScorecard]) -> None:
    from spotlab_pipelines.experiments.plots import reliability_lines

    for card in cards:
        if card.card is not None:
            print(f"{card.version}: bars are what happened, │ is what was predicted, in bins of equal mass")
            print("\n".join(reliability_lines(card.card.bins)))
