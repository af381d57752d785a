"""What replaced the instances that were left, on a small log and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.experiments.decision_rows import replacement_hours
from spotlab_pipelines.experiments.decision_value import DecisionValue
from spotlab_pipelines.experiments.learning import tell_switches
from spotlab_pipelines.experiments.scorecards import version_values
from spotlab_pipelines_tests.experiments.ended import LATER, Log, W, hours
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHALLENGER, CHAMPION

THERE = "m5.large:use1-az2:Linux/UNIX"
HERE = "m5.large:use1-az1:Linux/UNIX"


@pytest.fixture
def log(owner: sa.Engine) -> Log:
    return Log.begin(owner)


def decide(log: Log, name: str, decision: str, *, version: str = CHAMPION, price: float = 0.4, at: float = 0) -> None:
    log.do(
        "update experiment_logs set decision = :d, to_pool = :to, from_price_usd_per_hour = 1, "
        "to_price_usd_per_hour = :price where instance_id = :i and model_version = :v and window_start = :w",
        d=decision, to=THERE if decision == "SWITCH" else None, i=name, v=version, w=hours(at),
        price=None if decision == "STAY" else price,
    )  # fmt: skip


def switch(log: Log, name: str) -> None:
    """A window in which the champion, who acts, wishes an instance there, and the challenger would stay."""
    log.window(0, name)
    decide(log, name, "SWITCH")
    decide(log, name, "STAY", version=CHALLENGER)


def values(log: Log) -> tuple[DecisionValue, DecisionValue]:
    log.read(40)
    tell_switches(log.engine, ACCOUNT, LATER)
    log.resolve()
    found = version_values(log.engine, [CHAMPION, CHALLENGER], horizon_h=6, since=W)
    return found[CHAMPION], found[CHALLENGER]


def test_a_carried_out_switch_saves_over_the_hours_of_the_instance_that_took_over(log: Log) -> None:
    switch(log, "i-left")
    log.instance("i-left", running=0.1, ended=0.1, by="owner")
    log.instance("i-new", launched=0.2, running=30.2)
    log.do("update instances set az_id = 'use1-az2' where instance_id = 'i-new'")
    # In its own windows the replacement is decided on like any other, and saves nothing again.
    log.window(1, "i-new")
    for version in (CHAMPION, CHALLENGER):
        decide(log, "i-new", "STAY", version=version, at=1)
    champion, challenger = values(log)
    assert (champion.followed, champion.replacements_unknown, challenger.followed) == (1, 0, 0)
    assert champion.savings_realised_usd == pytest.approx(0.6 * 30)
    assert champion.replacement_days == pytest.approx(30 / 24)
    assert (champion.savings_hypothetical_usd, challenger.savings_realised_usd) == (0, 0)


def test_who_wished_the_same_saw_its_wish_carried_out_and_who_wished_another_place_did_not(log: Log) -> None:
    log.window(0, "i-same", "i-other")
    for name in ("i-same", "i-other"):
        decide(log, name, "FALLBACK_ON_DEMAND", price=3.0)
        log.instance(name, running=1, ended=1, by="owner")
    decide(log, "i-same", "FALLBACK_ON_DEMAND", version=CHALLENGER, price=3.0)
    decide(log, "i-other", "SWITCH", version=CHALLENGER)
    # On-demand in any zone; the second ended and nobody told when: it was seen running until 5 h.
    log.instance("i-new-1", lifecycle="on-demand", launched=1, running=5)
    log.instance("i-new-2", lifecycle="on-demand", launched=1.25, running=5, ended=20)
    champion, challenger = values(log)
    assert (champion.followed, champion.savings_realised_usd) == (2, pytest.approx(-2 * (4 + 3.75)))
    assert challenger.followed == 1
    assert challenger.savings_hypothetical_usd == pytest.approx(0.6 * 1)
    assert challenger.savings_realised_usd == pytest.approx(-2 * 3.75)


def test_a_switch_whose_replacement_nobody_finds_is_counted_as_not_known(log: Log) -> None:
    switch(log, "i-left")
    log.instance("i-left", running=2, ended=2, by="owner")
    # In the pool that was left, and, in the wished one, long after.
    log.instance("i-elsewhere", launched=2, running=9)
    log.instance("i-late", launched=3, running=9)
    log.do("update instances set az_id = 'use1-az2' where instance_id = 'i-late'")
    champion, _ = values(log)
    assert (champion.followed, champion.replacements_unknown) == (1, 1)
    assert np.isnan(champion.savings_realised_usd)


def test_a_replacement_runs_until_somebody_tells_that_it_ended(log: Log) -> None:
    log.window(0, "i-1", "i-2")
    for name, at in (("i-1", 1), ("i-2", 5)):
        decide(log, name, "SWITCH")
        decide(log, name, "SWITCH", version=CHALLENGER)
        log.instance(name, running=at, ended=at, by="owner")
    log.instance("i-new-1", launched=1, running=2, ended=3, by="owner")
    log.instance("i-new-2", launched=5, running=6, ended=20)
    log.event("i-new-2", 6.5)
    log.do("update instances set az_id = 'use1-az2' where instance_id like 'i-new%'")
    champion, challenger = values(log)
    assert champion.savings_realised_usd == pytest.approx(0.6 * (2 + 1.5))
    assert challenger.savings_realised_usd == champion.savings_realised_usd


def test_the_on_demand_price_of_the_window_is_what_regret_is_against(log: Log) -> None:
    log.window(0, "i-1", details=f'{{"on_demand_usd_per_hour": {{"{HERE}": 0.25}}}}')
    log.window(1, "i-1")
    for at in (0, 1):
        decide(log, "i-1", "STAY", at=at)
    log.instance("i-1", running=13)
    champion, _ = values(log)
    # 1 USD/h for an hour where 0.25 would have done; the second window keeps no price.
    assert (champion.regret_usd, champion.regret_known) == (pytest.approx(0.75), 0.5)


def places(times: dict[str, float], at: str, **more: Any) -> pd.DataFrame:
    start = pd.Series([W + pd.Timedelta(hours=time) for time in times.values()], dtype="datetime64[us, UTC]")
    frame = pd.DataFrame({"account_id": ACCOUNT, "region": "r", "place": "p", "instance_id": [*times], at: start})
    return frame.assign(**more)


def test_a_launch_replaces_one_instance_at_most_whatever_the_order_of_the_rows() -> None:
    left = places({"i-c": 1.2, "i-a": 1.0, "i-b": 1.0}, "ended_at")
    launched = places({"i-2": 1.1, "i-1": 0.9, "i-0": 0.2}, "launched_at", ran_until=W + pd.Timedelta(hours=11))
    # i-0 was there too early; of two that ended at once the first by name comes first.
    np.testing.assert_allclose(replacement_hours(left, launched), [np.nan, 10.1, 9.9])
    np.testing.assert_allclose(replacement_hours(left[::-1], launched[::-1]), [9.9, 10.1, np.nan])
    unseen = launched.assign(ran_until=pd.Series(pd.NaT, index=launched.index, dtype="datetime64[us, UTC]"))
    assert np.isnan(replacement_hours(left, unseen)).all()
    elsewhere = launched.assign(account_id="210000000002")
    assert np.isnan(replacement_hours(left, elsewhere)).all()
    assert np.isnan(replacement_hours(left, launched.assign(region="s"))).all()
