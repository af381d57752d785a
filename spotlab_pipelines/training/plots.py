"""The pictures of a backtest, as PNG bytes: reliability, ROC, precision and recall, calibration over time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from spotlab_pipelines.experiments.scorecard import reliability_bins
from spotlab_pipelines.training.folds import DAY_US

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN = (6.0, 4.5)


def backtest_plots(outcome: np.ndarray, predicted: np.ndarray, at: np.ndarray, *, title: str) -> dict[str, bytes]:
    """Pictures by name.

    Args:
        outcome: (n,) 1 or 0, both seen. predicted: (n,) probabilities. at: (n,) microseconds since the epoch.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    bins = reliability_bins(outcome, predicted)
    false_positive, true_positive, _ = roc_curve(outcome, predicted)
    precision, recall, _ = precision_recall_curve(outcome, predicted)
    day, place = np.unique(at // DAY_US, return_inverse=True)
    count = np.bincount(place)
    dates = (day * 86_400).astype("datetime64[s]")

    def reliability(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(bins["mean_predicted"], bins["observed_rate"], marker="o")
        axes.set(xlabel="mean predicted probability", ylabel="share interrupted", xlim=(0, 1), ylim=(0, 1))

    def roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(false_positive, true_positive)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")

    def precision_recall(axes: Axes) -> None:
        axes.axhline(float(outcome.mean()), color="grey", linewidth=1)
        axes.plot(recall, precision)
        axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))

    def over_time(axes: Axes) -> None:
        axes.plot(dates, np.bincount(place, weights=predicted) / count, label="mean predicted")
        axes.plot(dates, np.bincount(place, weights=outcome) / count, label="share interrupted")
        axes.set(ylabel="by day", ylim=(0, 1))
        axes.tick_params(axis="x", rotation=30)
        axes.legend()

    drawings = {
        "reliability": reliability,
        "roc": roc,
        "precision_recall": precision_recall,
        "calibration_over_time": over_time,
    }
    return {name: _png(draw, title) for name, draw in drawings.items()}


def _png(draw, title: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
