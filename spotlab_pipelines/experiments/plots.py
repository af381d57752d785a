"""The pictures of predictions with known outcomes, one version or several, as PNG bytes and for a terminal. Pure."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from spotlab_pipelines.experiments.scorecard import reliability_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN = (6.0, 4.5)
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN = 0.8, 0.2, 0.75, 0.7
"""Of a picture: its width and height, and the margins around what is drawn."""
DAY_US = 86_400_000_000
BAR_WIDTH = 30
TITLES = {
    "reliability": "Reliability",
    "roc": "ROC",
    "precision_recall": "Precision and recall",
    "calibration_over_time": "Calibration over time",
}
"""What a picture says that it is, by its name."""


class Said(NamedTuple):
    """(n,) outcomes as 1 and 0, predicted probabilities, and times in microseconds since the epoch."""

    outcome: np.ndarray
    predicted: np.ndarray
    at: np.ndarray


def outcome_plots(said: Mapping[str, Said], *, title: str) -> dict[str, bytes]:
    """Pictures by name, the versions as lines: reliability, roc, precision_recall, calibration_over_time.

    Without both outcomes there are no curves of roc and precision_recall.
    """
    return {name: _png({name: draw}, title) for name, draw in _drawings(said).items()}


def one_picture(said: Mapping[str, Said], *, title: str) -> bytes:
    """All of `outcome_plots` side by side."""
    return _png(_drawings(said), title)


def reliability_lines(bins: pd.DataFrame) -> list[str]:
    """A reliability diagram for a terminal: a bar for each bin's observed rate, a mark where the prediction is."""
    top = max(float(bins[["mean_predicted", "observed_rate"]].to_numpy().max()), 1e-9)
    lines = ["  predicted   observed       n"]
    for n, predicted, observed in bins[["n", "mean_predicted", "observed_rate"]].itertuples(index=False):
        length, mark = round(BAR_WIDTH * observed / top), round(BAR_WIDTH * predicted / top)
        bar = "".join("│" if place == mark else "█" if place < length else " " for place in range(BAR_WIDTH + 1))
        lines.append(f"  {100 * predicted:7.3f} %  {100 * observed:7.3f} % {n:7d} {bar.rstrip()}")
    return lines


def _drawings(said: Mapping[str, Said]) -> dict[str, Callable[[Axes], None]]:
    def reliability(axes: Axes) -> None:
        bins = {name: reliability_bins(each.outcome, each.predicted) for name, each in said.items()}
        # Interruptions are rare: on axes up to 1 every point would lie in one corner.
        top = 1.05 * max(max(each["mean_predicted"].max(), each["observed_rate"].max()) for each in bins.values())
        axes.plot([0, top], [0, top], color="grey", linewidth=1)
        for name, each in bins.items():
            axes.plot(each["mean_predicted"], each["observed_rate"], marker="o", label=name)
        axes.set(xlabel="mean predicted probability", ylabel="share interrupted")

    def roc(axes: Axes) -> None:
        from sklearn.metrics import roc_auc_score, roc_curve

        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        for name, each in said.items():
            false_positive, true_positive, _ = roc_curve(each.outcome, each.predicted)
            area = roc_auc_score(each.outcome, each.predicted)
            axes.plot(false_positive, true_positive, label=f"{name}, AUC {area:.3f}")
        axes.set(xlabel="false positive rate", ylabel="true positive rate")

    def precision_recall(axes: Axes) -> None:
        from sklearn.metrics import average_precision_score, precision_recall_curve

        for rate in sorted({float(each.outcome.mean()) for each in said.values()}):
            axes.axhline(rate, color="grey", linewidth=1, label=f"base rate {rate:.3g}")
        top = 0.0
        for name, each in said.items():
            precision, recall, _ = precision_recall_curve(each.outcome, each.predicted)
            # It ends in (recall 0, precision 1), which no threshold has: the highest scores' precision holds to the
            # axis. In steps, the area is the average precision; straight lines would flatter who has few scores.
            precision[-1], top = precision[-2], max(top, precision[:-1].max())
            average = average_precision_score(each.outcome, each.predicted)
            axes.plot(recall, precision, drawstyle="steps-post", label=f"{name}, average precision {average:.3f}")
        axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.05 * top))

    def over_time(axes: Axes) -> None:
        rows = {name: (each.at.tobytes(), each.outcome.tobytes()) for name, each in said.items()}
        for name, each in said.items():
            [line] = axes.plot(*_by_day(each.at, each.predicted), marker=".", label=f"{name}, predicted")
            # Versions that are judged on the same rows share what came of them.
            alike = [other for other in said if rows[other] == rows[name]]
            if name == alike[0]:
                label, color = (
                    (f"{name}, interrupted", line.get_color()) if len(alike) == 1 else ("interrupted", "black")
                )
                dates, share = _by_day(each.at, each.outcome)
                axes.plot(dates, share, linestyle="--", marker=".", color=color, label=label)
        axes.set(ylabel="share by day", ylim=(0, None))
        axes.tick_params(axis="x", rotation=30)

    both = all(0 < each.outcome.mean() < 1 for each in said.values())
    curves: dict[str, Callable[[Axes], None]] = {"roc": roc, "precision_recall": precision_recall} if both else {}
    return {"reliability": reliability, **curves, "calibration_over_time": over_time}


def _by_day(at: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All days from the first to the last, and the mean of each: NaN, where a line breaks, on those without a row."""
    day = at // DAY_US
    place = day - day.min()
    count = np.bincount(place)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=values) / count
    return ((day.min() + np.arange(len(count))) * 86_400).astype("datetime64[s]"), mean


def _png(drawings: Mapping[str, Callable[[Axes], None]], title: str) -> bytes:
    # Without pyplot: nothing is registered anywhere, and no display is looked for.
    from matplotlib.figure import Figure

    width, height = SIZE_IN[0] * len(drawings), SIZE_IN[1]
    figure = Figure(figsize=(width, height))
    # Stated: working the margins out takes matplotlib as long as drawing the picture.
    around = {"left": LEFT_IN / width, "right": 1 - RIGHT_IN / width, "bottom": BOTTOM_IN / height}
    between = (LEFT_IN + RIGHT_IN) / (SIZE_IN[0] - LEFT_IN - RIGHT_IN)
    grid = around | {"top": 1 - TOP_IN / height, "wspace": between}
    every = figure.subplots(1, len(drawings), squeeze=False, gridspec_kw=grid)[0]
    for axes, (name, draw) in zip(every, drawings.items(), strict=True):
        draw(axes)
        axes.set_title(TITLES[name])
        axes.legend(fontsize="small")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
