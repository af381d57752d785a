"""What decisions were worth, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import InvalidInput, NotEnoughData
from spotlab_pipelines.experiments.decision_value import decision_values, weighed_rows

T0 = pd.Timestamp("2026-03-01T00:00Z")
HOUR = pd.Timedelta(hours=1)


def row(hour: float, decision: str = "STAY", *, version: str = "a/1", to_price: float | None = None, **more: object):
    moves = decision in ("SWITCH", "FALLBACK_ON_DEMAND")
    return {
        "account_id": "111111111111",
        "instance_id": "i-1",
        "model_version": version,
        "window_start": T0 + hour * HOUR,
        "decision": decision,
        "from_pool": "here",
        "to_pool": "there" if decision == "SWITCH" else None,
        "from_price_usd_per_hour": 1.0,
        "to_price_usd_per_hour": (0.4 if to_price is None else to_price) if moves else np.nan,
        "interruption_cost_usd": 10.0,
        "interrupted_at": pd.NaT,
        "watched_until": T0 + 6 * HOUR,
    } | more


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    found = pd.DataFrame(rows)
    times = ("window_start", "interrupted_at", "watched_until")
    return found.assign(**{name: pd.to_datetime(found[name], utc=True) for name in times})


def test_savings_are_price_differences_times_the_hours_until_the_next_window_or_the_end() -> None:
    # Evaluated at 0, 2 and 3 h, ended at 4 h: 2 + 1 + 1 h, however long the horizon is.
    ended = T0 + 4 * HOUR
    rows = frame(*(row(hour, "SWITCH", watched_until=ended) for hour in (0, 2, 3)))
    weighed = weighed_rows(rows, horizon_h=6)
    assert weighed["held_h"].tolist() == [2, 1, 1]
    value = decision_values(rows, horizon_h=6)["a/1"]
    assert value.savings_usd == pytest.approx(0.6 * 4)
    assert value.instance_days == pytest.approx(4 / 24)


def test_a_late_next_evaluation_holds_nobody_to_account_beyond_the_horizon() -> None:
    far = T0 + 100 * HOUR
    weighed = weighed_rows(frame(row(0, watched_until=far), row(50, watched_until=far)), horizon_h=6)
    assert weighed["held_h"].tolist() == [6, 6]


def test_an_interruption_counts_once_and_its_hour_ends_there() -> None:
    gone = T0 + 2.5 * HOUR
    weighed = weighed_rows(frame(*(row(hour, interrupted_at=gone) for hour in (0, 1, 2))), horizon_h=6)
    assert weighed["interrupted"].tolist() == [0, 0, 1]
    assert weighed["held_h"].tolist() == [1, 1, 0.5]


def test_a_wish_that_is_repeated_is_one_switch_and_one_that_flips_is_many() -> None:
    steady = [row(hour, "SWITCH") for hour in range(4)]
    flips = [row(hour, ("SWITCH", "STAY")[hour % 2], version="b/1") for hour in range(4)]
    values = decision_values(frame(*steady, *flips), horizon_h=1)
    assert (values["a/1"].switches, values["b/1"].switches) == (1, 4)
    assert values["b/1"].churn == pytest.approx(4 / (4 / 24))


def test_what_an_avoided_interruption_cost() -> None:
    gone = T0 + 2 * HOUR
    rows = frame(
        row(0, "FALLBACK_ON_DEMAND", to_price=3.0, interrupted_at=gone),
        row(0, "FALLBACK_ON_DEMAND", to_price=3.0, instance_id="i-2"),
    )
    value = decision_values(rows, horizon_h=6)["a/1"]
    assert value.avoided == 1
    # 2 USD/h more, for 2 h and for 6 h.
    assert value.cost_per_avoided_usd == pytest.approx(2 * (2 + 6))
    assert np.isnan(decision_values(frame(row(0)), horizon_h=6)["a/1"].cost_per_avoided_usd)


def test_regret_is_against_who_knew_the_outcome() -> None:
    gone = T0 + 2 * HOUR
    rows = frame(
        row(0, interrupted_at=gone),
        row(0, "FALLBACK_ON_DEMAND", version="b/1", to_price=3.0, interrupted_at=gone),
    )
    values = decision_values(rows, horizon_h=6)
    # Staying cost 2 × 1 + 10, leaving 2 × 3: the oracle leaves.
    assert values["a/1"].regret_usd == pytest.approx(12 - 6)
    assert values["b/1"].regret_usd == 0
    safe = decision_values(frame(row(0), row(0, "FALLBACK_ON_DEMAND", version="b/1", to_price=3.0)), horizon_h=6)
    assert (safe["a/1"].regret_usd, safe["b/1"].regret_usd) == (0, pytest.approx(12))


def test_a_pool_where_it_did_not_run_counts_at_the_rate_that_was_seen_not_at_what_the_version_claims() -> None:
    gone = T0 + 2 * HOUR
    rows = frame(row(0, "SWITCH", interrupted_at=gone), row(0, instance_id="i-2"))
    regret = weighed_rows(rows, horizon_h=6).set_index("instance_id")["regret_usd"]
    # One interruption in 2 + 6 hours; the switch cost 2 × 0.4 and 2/8 of an interruption, staying 2 + 10.
    assert regret["i-1"] == 0
    survived = weighed_rows(
        frame(row(0, "SWITCH", interrupted_at=gone), row(0, "SWITCH", instance_id="i-2")), horizon_h=6
    )
    regret = survived.set_index("instance_id")["regret_usd"]
    assert regret["i-2"] == pytest.approx(6 * 0.4 + 6 / 8 * 10 - 6 * 1.0)


def test_what_is_unknown_stays_unknown() -> None:
    value = decision_values(frame(row(0)), horizon_h=6)["a/1"]
    assert np.isnan(value.regret_usd)
    assert value.regret_known == 0
    assert "regret_usd" not in value.metrics()
    unpriced = decision_values(frame(row(0, "SWITCH", to_price=np.nan)), horizon_h=6)["a/1"]
    assert np.isnan(unpriced.savings_usd)


def test_a_skip_decides_nothing_and_nothing_cannot_be_weighed() -> None:
    assert decision_values(frame(row(0), row(1, "SKIP")), horizon_h=6)["a/1"].decisions == 1
    with pytest.raises(NotEnoughData):
        decision_values(frame(row(0, "SKIP")), horizon_h=6)
    with pytest.raises(InvalidInput, match="twice"):
        decision_values(frame(row(0), row(0)), horizon_h=6)
