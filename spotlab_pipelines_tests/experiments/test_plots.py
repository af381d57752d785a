"""The pictures: what is drawn in them, read from their axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score

from spotlab_pipelines.experiments import plots
from spotlab_pipelines.experiments.plots import DAY_US, Said, one_picture, outcome_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTCOME = np.array([1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
FEW = Said(OUTCOME, np.where(np.arange(10) < 3, 0.3, 0.1), np.repeat([0, 1, 3, 4, 5], 2) * DAY_US)
MANY = FEW._replace(predicted=np.linspace(0.9, 0.1, 10))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made, in their order."""
    made: list[Figure] = []

    def figure(*args: object, **options: object) -> Figure:
        made.append(Figure(*args, **options))  # pyright: ignore[reportArgumentType]
        return made[-1]

    monkeypatch.setattr("matplotlib.figure.Figure", figure)
    return made


def lines(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {str(line.get_label()): line for line in axes.get_lines()}
    return {name: (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for name, line in found.items()}


def test_the_area_below_a_precision_recall_curve_is_the_average_precision(drawn: list[Figure]) -> None:
    one_picture({"few": FEW, "many": MANY}, title="both")
    [axes] = [axes for axes in drawn[0].axes if axes.get_title() == "Precision and recall"]
    found = lines(axes)
    assert list(found) == ["base rate 0.2", "few, average precision 0.267", "many, average precision 0.700"]
    for said, label in ((FEW, "few, average precision 0.267"), (MANY, "many, average precision 0.700")):
        recall, precision = found[label]
        area = -np.diff(recall) @ precision[:-1]
        assert area == pytest.approx(average_precision_score(said.outcome, said.predicted))
        assert precision[-1] == precision[-2], "no precision of 1 that no threshold has"
    assert {line.get_drawstyle() for line in axes.get_lines()[1:]} == {"steps-post"}


def test_every_picture_says_what_it_is(drawn: list[Figure]) -> None:
    titles = ["Reliability", "ROC", "Precision and recall", "Calibration over time"]
    assert list(outcome_plots({"one": FEW}, title="one/1 at 6 h")) == list(plots.TITLES)
    assert [[axes.get_title() for axes in figure.axes] for figure in drawn] == [[title] for title in titles]
    assert {figure.get_suptitle() for figure in drawn} == {"one/1 at 6 h"}
    one_picture({"one": FEW}, title="all")
    assert [axes.get_title() for axes in drawn[-1].axes] == titles


def test_what_came_of_shared_rows_is_drawn_once_and_no_line_crosses_a_day_without_any(drawn: list[Figure]) -> None:
    one_picture({"few": FEW, "many": MANY}, title="both")
    found = lines(drawn[0].axes[-1])
    assert list(found) == ["few, predicted", "interrupted", "many, predicted"]
    dates, share = found["interrupted"]
    assert [str(date)[:10] for date in dates[:3]] == ["1970-01-01", "1970-01-02", "1970-01-03"]
    assert np.array_equal(share, [0.5, 0, np.nan, 0.5, 0, 0], equal_nan=True)
    other = MANY._replace(outcome=OUTCOME[::-1])
    one_picture({"few": FEW, "other": other}, title="both")
    assert {"few, interrupted", "other, interrupted"} < set(lines(drawn[1].axes[-1]))
