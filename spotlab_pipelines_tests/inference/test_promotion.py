"""Who becomes the champion: only a version that a verdict says is better and whose probabilities can be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from spotlab_pipelines.accounts.acting import actor_of
from spotlab_pipelines.accounts.users import add_user
from spotlab_pipelines.database.tables import VersionVerdict
from spotlab_pipelines.errors import InvalidInput, NotAllowed, NotProven
from spotlab_pipelines.inference.registry import ModelRegistry
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.accounts.registering import audit_rows
from spotlab_pipelines_tests.inference.models import register_both

TODAY, DAY = datetime.now(UTC).date(), timedelta(days=1)
CHAMPION, CHALLENGER = "advisor-rate/1", "logistic/1"
WHY = "The challenger is better: Brier score lower by 0.01000 [0.00200, 0.01800] on 4000 predictions."


def look(engine: sa.Engine, **changed: Any) -> None:
    """A look at the pair; the good one unless changed."""
    row = {
        "champion": CHAMPION, "challenger": CHALLENGER, "day": TODAY - DAY, "look": 3, "information": 90.0,
        "predictions": 4000, "events": 200, "blocks": 60, "verdict": "promote", "why": WHY, "brier_gain": 0.01,
        "brier_gain_low": 0.002, "brier_gain_high": 0.018, "ece": 0.02,
        "predicted_share": 0.06, "interrupted_share": 0.05, "answered_share": 1.0,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(sa.insert(VersionVerdict).values(row | changed).inline())


@pytest.fixture
def registry(engine: sa.Engine, settings: Settings, mlflow_database: str) -> ModelRegistry:
    """A champion, which needed no verdict since there was none before it, and a challenger."""
    registry = ModelRegistry(engine, settings)
    register_both(registry)
    return registry


def champion(registry: ModelRegistry) -> str:
    return registry.serving()[0].version


def test_without_a_verdict_nobody_takes_a_champions_place(registry: ModelRegistry, engine: sa.Engine) -> None:
    with pytest.raises(NotProven, match=f"that {CHALLENGER} beats the champion {CHAMPION}; none was made.*--override"):
        registry.promote(CHALLENGER)
    # One against another champion says nothing.
    look(engine, champion=CHALLENGER, challenger=CHAMPION)
    with pytest.raises(NotProven, match="none was made yet"):
        registry.promote(CHALLENGER)
    assert champion(registry) == CHAMPION
    assert [row["outcome"] for row in audit_rows(engine, "promote_model")] == ["done", "refused", "refused"]


def test_a_promote_verdict_with_good_calibration_promotes(registry: ModelRegistry, engine: sa.Engine) -> None:
    look(engine, day=TODAY - 20 * DAY, verdict="hold", why="No difference is shown.")
    look(engine)
    registry.promote(CHALLENGER)
    assert champion(registry) == CHALLENGER
    assert "overruled" not in audit_rows(engine, "promote_model")[-1]["details"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"verdict": "hold", "why": "No difference is shown."}, "is hold: No difference is shown."),
        ({"verdict": "insufficient data", "why": "There are 3."}, "is insufficient data: There are 3."),
        ({"ece": 0.051}, r"The challenger is better.*calibration error \(ECE\) is 0.0510; at most 0.05"),
        ({"ece": None}, "is unknown; at most 0.05"),
        ({"predicted_share": 0.101}, "predicts 0.1010 on average, of which 0.0500 came true; a factor of 2 is allowed"),
        ({"predicted_share": 0.024}, "predicts 0.0240 on average, of which 0.0500 came true"),
        ({"predicted_share": None}, "what it predicts on average is unknown; a factor of 2"),
        ({"answered_share": 0.985}, "had a prediction for 98.5 % of the champion's; 99 % are asked for"),
        ({"answered_share": None}, "had a prediction for an unknown share"),
        ({"predictions": 999}, "rests on 999 predictions; 1000 are asked for"),
    ],
)
def test_the_latest_look_counts_and_a_refusal_says_which_and_why(
    registry: ModelRegistry, engine: sa.Engine, changed: dict[str, Any], said: str
) -> None:
    look(engine, day=TODAY - 20 * DAY)
    look(engine, **changed)
    with pytest.raises(NotProven, match=said):
        registry.promote(CHALLENGER)
    assert champion(registry) == CHAMPION


@pytest.mark.parametrize(("days", "promoted"), [(29, True), (32, False)])
def test_a_verdict_counts_for_thirty_days(
    registry: ModelRegistry, engine: sa.Engine, days: int, promoted: bool
) -> None:
    look(engine, day=TODAY - days * DAY)
    if promoted:
        assert registry.promote(CHALLENGER).role == "champion"
    else:
        with pytest.raises(NotProven, match="more than 30 days old; a new comparison goes on"):
            registry.promote(CHALLENGER)


def test_an_admin_may_overrule_it_with_a_reason_that_is_on_record(registry: ModelRegistry, engine: sa.Engine) -> None:
    look(engine, verdict="hold", why="No difference is shown.")
    lee, root = (actor_of(add_user(engine, f"{role}@example.com", role).id) for role in ("lab", "admin"))
    with pytest.raises(NotAllowed):
        registry.promote(CHALLENGER, actor=lee, override="because")
    for reason in ("", "  ", "x" * 501, "two\nlines"):
        with pytest.raises(InvalidInput, match="printable characters for the override"):
            registry.promote(CHALLENGER, actor=root, override=reason)
    registry.promote(CHALLENGER, actor=root, override="the champion's source is gone")
    assert champion(registry) == CHALLENGER
    entry = audit_rows(engine, "promote_model")[-1]
    assert (entry["outcome"], entry["actor"]) == ("done", root)
    assert entry["details"]["override"] == "the champion's source is gone"
    assert "is hold: No difference is shown." in entry["details"]["overruled"]


@pytest.mark.parametrize("statement", ["update verdicts set verdict = 'promote'", "delete from verdicts"])
def test_what_was_said_cannot_be_changed(
    registry: ModelRegistry, engine: sa.Engine, owner: sa.Engine, statement: str
) -> None:
    look(engine, verdict="hold")
    for whose, said in ((engine, "permission denied"), (owner, "verdicts is append-only")):
        with pytest.raises(DBAPIError, match=said), whose.begin() as connection:
            connection.execute(sa.text(statement))
