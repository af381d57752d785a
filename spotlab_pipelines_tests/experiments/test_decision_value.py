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
        "on_demand_usd_per_hour": 3.0,
        "watched_until": T0 + 6 * HOUR,
        "followed": False,
        "replacement_h": np.nan,
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
    assert value.savings_hypothetical_usd == pytest.approx(0.6 * 4)
    assert (value.followed, value.savings_realised_usd) == (0, 0)
    assert value.instance_days == pytest.approx(4 / 24)


def test_a_wish_that_was_carried_out_saves_for_as_long_as_its_replacement_ran() -> None:
    # Left after 0.1 h; what replaced it ran for 100 h at 0.40 instead of 1.00. Ignored, it would have gone on here.
    left = T0 + 0.1 * HOUR
    carried_out = frame(row(0, "SWITCH", watched_until=left, followed=True, replacement_h=100.0))
    ignored = frame(*(row(hour, "SWITCH", watched_until=T0 + 101 * HOUR) for hour in range(101)))
    value = decision_values(carried_out, horizon_h=6)["a/1"]
    assert (value.followed, value.replacements_unknown, value.savings_hypothetical_usd) == (1, 0, 0)
    assert value.savings_realised_usd == pytest.approx(0.6 * 100)
    assert (value.instance_days, value.replacement_days) == (pytest.approx(0.1 / 24), pytest.approx(100 / 24))
    value = decision_values(ignored, horizon_h=6)["a/1"]
    assert (value.followed, value.savings_realised_usd, value.replacement_days) == (0, 0, 0)
    assert value.savings_hypothetical_usd == pytest.approx(0.6 * 101)


def test_the_hours_of_a_replacement_count_once_though_it_has_rows_of_its_own() -> None:
    rows = [row(0, "SWITCH", watched_until=T0 + HOUR, followed=True, replacement_h=3.0)]
    later = {"instance_id": "i-2", "from_price_usd_per_hour": 0.4, "watched_until": T0 + 4 * HOUR}
    rows += [row(hour, **later) for hour in (1, 2, 3)]
    value = decision_values(frame(*rows), horizon_h=6)["a/1"]
    assert value.savings_realised_usd == pytest.approx(0.6 * 3)
    assert value.instance_days == pytest.approx(4 / 24)


def test_a_replacement_that_is_not_known_is_counted_and_saves_nothing_that_is_known() -> None:
    lost = row(0, "SWITCH", watched_until=T0 + HOUR, followed=True)
    value = decision_values(frame(lost), horizon_h=6)["a/1"]
    assert (value.followed, value.replacements_unknown) == (1, 1)
    assert np.isnan(value.savings_realised_usd)
    assert "savings_realised_usd" not in value.metrics()
    # Nor is it 0 because something else is.
    value = decision_values(frame(lost, row(0, instance_id="i-2")), horizon_h=6)["a/1"]
    assert np.isnan(value.savings_realised_usd)
    found = row(0, "SWITCH", instance_id="i-2", followed=True, replacement_h=2.0)
    value = decision_values(frame(lost, found), horizon_h=6)["a/1"]
    assert (value.followed, value.replacements_unknown) == (2, 1)
    assert value.savings_realised_usd == pytest.approx(0.6 * 2)
    assert value.replacement_days == pytest.approx(2 / 24)


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
    # One interruption in 2 + 6 hours; the switch cost 2 × 0.4 and 2/8 of an interruption, on-demand 2 × 3.
    assert regret["i-1"] == pytest.approx(2 * 0.4 + 2 / 8 * 10 - 6)
    survived = weighed_rows(
        frame(row(0, "SWITCH", interrupted_at=gone), row(0, "SWITCH", instance_id="i-2")), horizon_h=6
    )
    regret = survived.set_index("instance_id")["regret_usd"]
    assert regret["i-2"] == pytest.approx(6 * 0.4 + 6 / 8 * 10 - 6 * 1.0)


def test_figures_do_not_change_with_who_else_is_registered() -> None:
    gone = T0 + 2 * HOUR
    alone = [row(0, interrupted_at=gone), row(0, "SWITCH", instance_id="i-2"), row(1, "SWITCH", instance_id="i-2")]
    others = [
        row(0, "FALLBACK_ON_DEMAND", version="0/1", to_price=3.0, interrupted_at=gone),
        row(0, "SWITCH", version="0/1", to_price=0.1, instance_id="i-2"),
        row(1, "SKIP", version="0/1", instance_id="i-2"),
        row(0, version="b/1", instance_id="i-3", interrupted_at=gone),
    ]
    value = decision_values(frame(*alone), horizon_h=6)["a/1"]
    # An interruption at which nobody thought of leaving is regretted all the same: on-demand was there to take.
    assert value.regret_known == 1
    assert value.regret_usd > 12 - 6 - 1e-9
    assert decision_values(frame(*alone, *others), horizon_h=6)["a/1"].metrics() == value.metrics()


def test_what_is_unknown_stays_unknown() -> None:
    value = decision_values(frame(row(0, on_demand_usd_per_hour=np.nan)), horizon_h=6)["a/1"]
    assert np.isnan(value.regret_usd)
    assert value.regret_known == 0
    assert "regret_usd" not in value.metrics()
    unpriced = decision_values(frame(row(0, "SWITCH", to_price=np.nan)), horizon_h=6)["a/1"]
    assert np.isnan(unpriced.savings_hypothetical_usd)
    # What stays saves nothing, which says nothing about the wish whose price is not known.
    both = frame(row(0, "SWITCH", to_price=np.nan), row(0, instance_id="i-2"))
    assert np.isnan(decision_values(both, horizon_h=6)["a/1"].savings_hypothetical_usd)


def test_a_skip_decides_nothing_and_nothing_cannot_be_weighed() -> None:
    assert decision_values(frame(row(0), row(1, "SKIP")), horizon_h=6)["a/1"].decisions == 1
    with pytest.raises(NotEnoughData):
        decision_values(frame(row(0, "SKIP")), horizon_h=6)
    with pytest.raises(InvalidInput, match="twice"):
        decision_values(frame(row(0), row(0)), horizon_h=6)
