"""What a version's pages in MLflow say: figures, points by window, tags, description. Pure; pages.py sends it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spotlab_pipelines.experiments.decision_value import DecisionValue, decision_values, decision_values_by
from spotlab_pipelines.experiments.judging import HORIZON_H, Judged
from spotlab_pipelines.experiments.scorecards import VersionScorecard, is_known, scorecard_of
from spotlab_pipelines.inference.card import cut, spaced, told
from spotlab_pipelines.inference.fitted_on import NO_DATA

if TYPE_CHECKING:
    from datetime import datetime

    from spotlab_pipelines.inference.versions import ServingVersion


ROWS = ("n", "events", "base_rate", "uncertainty")
"""The figures of a scorecard that are of the rows and say nothing of the version."""
FIRST = ("brier_skill", "brier_skill_low", "brier_skill_high", "roc_auc", "ece")
"""What versions are compared by, before the other figures of a scorecard."""
NONE = "none"
PAST = "they show, but promote nobody"
SCORECARD, RULE = "Scorecard at", "\n\n---\n\n"
"""How the scorecard's part of a description begins and ends."""
LEFT_OUT, OF_PAST, CHAMPION, VERDICT = "Left out at", "are of past windows", "It is the champion.", "**Verdict**"
STANDING = re.compile(
    rf"^({LEFT_OUT} .*(?:\n.* {OF_PAST}: .*)?)(?:\n(?:{re.escape(CHAMPION)}|{re.escape(VERDICT)} .*))?$", re.MULTILINE
)
"""The last lines of that part: what was left out, then how the version stands, if it does."""
VERDICT_TAG = "spotlab.verdict"


@dataclass(frozen=True)
class Page:
    """What one version's run shows.

    Attributes:
        labels: by horizon, of those that have any and `HORIZON_H`, what it said with what came of it, as
            `labels.labelled` gives it.
        decided: what it decided, as `decision_rows` gives it.
        verdict: the latest on it, if it is a challenger.
    """

    version: ServingVersion
    labels: dict[int, pd.DataFrame]
    decided: pd.DataFrame
    verdict: Judged | None

    @property
    def rows(self) -> pd.DataFrame:
        """The labelled rows at `HORIZON_H`."""
        return self.labels[HORIZON_H]

    @cached_property
    def cards(self) -> dict[int, VersionScorecard]:
        """Its scorecards by horizon."""
        return {hours: scorecard_of(rows, self.version.version, hours) for hours, rows in self.labels.items()}

    @cached_property
    def value(self) -> DecisionValue | None:
        """What its decisions were worth; None if it decided nothing."""
        if not _decides(self.decided):
            return None
        return decision_values(self.decided, horizon_h=HORIZON_H)[self.version.version]

    def values_by_account(self) -> dict[str, DecisionValue]:
        """The same of each account that it decided of."""
        if not _decides(self.decided):
            return {}
        values = decision_values_by(self.decided, "account_id", horizon_h=HORIZON_H)
        return {account: value for (_, account), value in values.items()}

    def before(self, end: datetime) -> Page:
        """The same of the windows before `end` alone, by what is known today."""
        labels = {hours: rows[rows["window_start"] < end] for hours, rows in self.labels.items()}
        labels = {hours: rows for hours, rows in labels.items() if len(rows)}
        return replace(self, labels=labels, decided=self.decided[self.decided["window_start"] < end])


def _decides(rows: pd.DataFrame) -> bool:
    return bool((rows["decision"] != "SKIP").any())


def figures(page: Page) -> dict[str, float]:
    """The scorecards at each horizon, the Brier skill's interval and what the decisions were worth, by metric.

    Those that versions are compared by first, at `HORIZON_H`: `card/`, how good the predictions were, then
    `decisions/`, and `rows/`, what they were judged on.
    """
    cards, rows = {}, {}
    for hours, card in sorted(page.cards.items(), key=lambda each: each[0] != HORIZON_H):
        found = {} if card.card is None else card.card.metrics()
        rows |= {f"rows/{name}_{hours}h": found[name] for name in ROWS if name in found}
        rows[f"rows/censored_{hours}h"] = float(card.censored)
        ends = {} if card.skill is None else {"low": card.skill.low, "high": card.skill.high}
        found |= {f"brier_skill_{end}": value for end, value in ends.items() if np.isfinite(value)}
        cards |= {f"card/{name}_{hours}h": found[name] for name in (*FIRST, *found) if name in found.keys() - ROWS}
    return cards | decision_figures(page.value) | rows


def decision_figures(value: DecisionValue | None) -> dict[str, float]:
    """What decisions were worth, by metric; a figure that does not exist is left out."""
    return {} if value is None else {f"decisions/{name}": figure for name, figure in value.metrics().items()}


def parameters(page: Page, fit: Mapping[str, str]) -> dict[str, str]:
    """What a version is, for the comparison of runs.

    Args:
        fit: the parameters of the run that it was fitted in; empty where MLflow has lost it: then what only that run
            said is left out, which MLflow shows as unknown.
    """
    version = page.version
    found = {
        "version": version.version, "family": version.family, "feature_spec": version.feature_spec,
        "horizon_h": str(HORIZON_H), "data_fingerprint": version.training_sha256 or NONE,
    }  # fmt: skip
    if fit:
        found["recalibrated_from"] = NONE
    if fit.get("source") == NO_DATA:
        found["fitted_through"] = NO_DATA
    named = {"fitted_on": "source", "fitted_through": "last_example", "recalibrated_from": "base_version"}
    if "source" not in fit:
        named["fitted_on"] = "data"
    return found | {name: fit[of] for name, of in named.items() if of in fit}


def tags(page: Page) -> dict[str, str]:
    """What versions and models are sorted by in MLflow's lists; none of what does not exist, or not any more."""
    card = page.cards[HORIZON_H].row()
    digits = {"n": ".8g", "events": ".8g", "brier_skill": ".3g", "roc_auc": ".3g", "ece": ".3g"}
    shown = {
        f"spotlab.{name}": NONE if card[name] is None else format(card[name], digit) for name, digit in digits.items()
    }
    return shown | {VERDICT_TAG: standing_tag(page.version.role, page.verdict)}


def standing_tag(role: str, verdict: Judged | None) -> str:
    """How a version of a role stands, in a word or two."""
    if role == "champion":
        return "the champion"
    return NONE if verdict is None else verdict.verdict


def standing_line(role: str, verdict: Judged | None, *, past: int = 0) -> str:
    """The same as the last line of a scorecard's description, see `verdict_text`; empty where nothing is to be said."""
    if role == "champion":
        return CHAMPION
    return "" if verdict is None else f"{VERDICT} {verdict_text(verdict, past=past)}"


def with_standing(text: str, line: str) -> str:
    """A description with another `standing_line`; one without a scorecard stays as it is."""
    if not text.lstrip("*").startswith(SCORECARD):
        return text
    return cut(STANDING.sub(lambda found: "\n".join(filter(None, (found[1], line))), text, count=1))


def description(page: Page) -> str:
    """The scorecard as people read it on the version's page, in Markdown."""
    card = page.cards[HORIZON_H]
    lines = [
        f"{SCORECARD} {HORIZON_H} h: {scorecard_text(card)}.",
        "",
        "| horizon | predictions | interrupted | base rate | Brier skill | 95 % interval | ROC-AUC | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for hours, each in page.cards.items():
        row = each.row()
        cells = [row["n"], row["events"], row["base_rate"], row["brier_skill"], None, row["roc_auc"], row["ece"]]
        shown = ["" if cell is None else told(cell) for cell in cells]
        shown[4] = _interval(each)
        lines.append(f"| {hours} h | {' | '.join(shown)} |")
    lines += ["", f"{LEFT_OUT} {HORIZON_H} h: {card.censored} censored, {card.pending} still open."]
    if card.retrospective:
        lines.append(f"{told(card.retrospective)} of {told(card.predictions)} {OF_PAST}: {PAST}.")
    line = standing_line(page.version.role, page.verdict, past=card.retrospective)
    return spaced("\n".join([*lines, line] if line else lines))


def verdict_text(verdict: Judged, *, past: int = 0) -> str:
    """A verdict and what it is of.

    Args:
        past: predictions of past windows, which the scorecard beside it shows and which do not count for it.
    """
    pair = f"against {verdict.champion}: {verdict.verdict}"
    if not verdict.predictions:
        return f"{pair}. {verdict.why}" + (" Those of past windows do not count." if past else "")
    return f"{pair}, on {told(verdict.predictions)} live predictions with an outcome. {verdict.why}"


def scorecard_text(card: VersionScorecard) -> str:
    """In plain words, as MLflow's lists show no more of a description than its first ones, and them as they are."""
    row, windows = card.row(), f"windows {card.first:%Y-%m-%d %H:%M} to {card.last:%Y-%m-%d %H:%M} UTC"
    if card.card is None:
        return f"{told(card.predictions)} predictions, none with an outcome yet, {windows}"
    skill = "" if row["brier_skill"] is None else f", Brier skill {told(row['brier_skill'])} ({_interval(card)})"
    return f"{told(row['n'])} predictions with an outcome, {told(row['events'])} interrupted{skill}, {windows}"


def _interval(card: VersionScorecard) -> str:
    """The Brier skill's 95 % interval, which is infinite where nothing is known of the spread."""
    if card.skill is None:
        return ""
    low, high = card.skill.low, card.skill.high
    return f"{told(low)} … {told(high)}" if np.isfinite([low, high]).all() else "too few events"


def above_card(scorecard: str, before: str) -> str:
    """A version's description anew: the scorecard in the place of an older one, above the model card, which stays."""
    # Earlier ones began with a bold word.
    card = before.partition(RULE)[2] if before.lstrip("*").startswith(SCORECARD) else before
    return cut(f"{scorecard}{RULE}{card}") if card else scorecard


def finished_windows(rows: pd.DataFrame, *, since: str | None) -> pd.DataFrame:
    """Figures of each finished window after `since`, by window: those before the first with an open outcome."""
    open_since = rows.loc[~rows["final"], "window_start"].min()
    rows = rows[is_known(rows)]
    rows = rows if pd.isna(open_since) else rows[rows["window_start"] < open_since]
    rows = rows if since is None else rows[rows["window_start"] > pd.Timestamp(since)]
    outcome = (rows["outcome"] == "interrupted").astype(float)
    figures = pd.DataFrame(
        {
            "predictions": 1.0,
            "interrupted": outcome,
            "mean_predicted": rows["p_current"],
            "share_interrupted": outcome,
            "brier": (rows["p_current"] - outcome) ** 2,
        },
        index=rows.index,
    )
    sums = {"predictions": "sum", "interrupted": "sum"}
    return figures.groupby(rows["window_start"]).agg(sums | dict.fromkeys(figures.columns.difference([*sums]), "mean"))


def digest_of(rows: pd.DataFrame) -> str:
    """Of the labels alone, so that versions that were judged on the same rows share their dataset."""
    keys = rows.loc[is_known(rows), ["account_id", "window_start", "instance_id", "outcome"]]
    return hashlib.sha256(pd.util.hash_pandas_object(keys, index=False).to_numpy().tobytes()).hexdigest()[:16]
