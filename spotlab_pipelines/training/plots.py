"""The pictures of a backtest, as PNG bytes: those of any predictions with known outcomes, of one model."""

from __future__ import annotations

import numpy as np

from spotlab_pipelines.experiments.plots import Said, outcome_plots


def backtest_plots(outcome: np.ndarray, predicted: np.ndarray, at: np.ndarray, *, title: str) -> dict[str, bytes]:
    """Pictures by name.

    Args:
        outcome: (n,) 1 or 0, both seen. predicted: (n,) probabilities. at: (n,) microseconds since the epoch.
    """
    return outcome_plots({"backtest": Said(outcome, predicted, at)}, title=title)
