"""The window that a run's tag names: one that the log can hold, and none that stays the latest for ever."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from spotlab_pipelines.defs.evaluation import WINDOW_TAG, check_window, window_start
from spotlab_pipelines.errors import InvalidInput

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "window", [NOW, NOW + timedelta(seconds=59), NOW - timedelta(days=500), datetime(2024, 11, 1, tzinfo=UTC)]
)
def test_what_the_log_holds_is_taken(window: datetime) -> None:
    check_window(window, now=NOW, kept_months=24)


@pytest.mark.parametrize(
    "window",
    [
        NOW + timedelta(seconds=61),
        datetime(2999, 1, 1, tzinfo=UTC),
        datetime(2024, 10, 31, 23, 59, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_the_future_and_what_the_log_no_longer_keeps_are_refused_by_name(window: datetime) -> None:
    with pytest.raises(InvalidInput, match=WINDOW_TAG) as refused:
        check_window(window, now=NOW, kept_months=24)
    assert window.isoformat() in str(refused.value)
    assert "2024-11-01" in str(refused.value)


@pytest.mark.parametrize(
    "tag", ["2999-01-01T00:00:00+00:00", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "2026-01-01"]
)
def test_a_runs_tag_is_checked(tag: str) -> None:
    @dg.asset
    def reading(context: dg.AssetExecutionContext) -> None:
        window_start(context)

    with pytest.raises(InvalidInput, match=WINDOW_TAG):
        dg.materialize([reading], tags={WINDOW_TAG: tag})
