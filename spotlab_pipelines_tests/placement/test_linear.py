"""LINEAR by hand, rule by rule, and against the slow and obvious way on random markets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotlab_pipelines.experiments.frames import decisions_schema
from spotlab_pipelines.placement.linear import Evaluated, Scored, decide_linear
from spotlab_pipelines_tests.placement.examples import (
    CHALLENGER,
    CHAMPION,
    decide_slowly,
    evaluated,
    instance,
    pool,
    rules,
)

UNSAFE: dict[str, Any] = {"interrupt_rate_min": 0.20, "interrupt_rate_max": 1.0}


def only(market: Evaluated, **changed: Any) -> pd.Series:
    """The single decision on this market."""
    decisions = decisions_schema().validate(decide_linear(market, rules(**changed)))
    assert len(decisions) == 1
    return decisions.iloc[0]


def test_switch_to_the_lowest_expected_cost():
    found = only(
        evaluated(
            [instance("i-1")],
            [
                pool("m5.large", p={CHAMPION: 0.05}),  # 0.04 + 0.05 × 1.2 / 6 = 0.050
                pool("m5.large", "use1-az2", spot_price_usd_per_hour=0.03, p={CHAMPION: 0.04}),  # 0.038
                pool("m5a.large", spot_price_usd_per_hour=0.035, p={CHAMPION: 0.001}),  # 0.0352
            ],
        )
    )
    assert (found["decision"], found["to_pool"]) == ("SWITCH", "m5a.large:use1-az1:Linux/UNIX")
    assert found["from_cost_usd_per_hour"] == pytest.approx(0.050)
    assert found["to_cost_usd_per_hour"] == pytest.approx(0.0352)
    assert found["gain"] == pytest.approx((0.050 - 0.0352) / 0.10)
    assert found["candidates_considered"] == 2
    assert (found["from_price_usd_per_hour"], found["to_price_usd_per_hour"]) == (0.04, 0.035)
    assert found["p_current_6h"] == 0.05
    assert (found["p_target_1h"], found["p_target_6h"], found["p_target_12h"]) == pytest.approx(
        (0.00025, 0.001, 0.0015)
    )
    assert found["features"]["discount_depth"] == 0.6
    assert found["reason"] == (
        "m5a.large:use1-az1:Linux/UNIX is expected to cost 0.0352 USD/h, interruptions included, against 0.0500 now: "
        "saves 14.8 % of the on-demand price."
    )


def test_stay_below_the_minimum_gain_and_switch_exactly_at_it():
    market = evaluated(
        [instance("i-1")],
        [
            pool("m5.large", spot_price_usd_per_hour=0.5, on_demand_usd_per_hour=1.0, p={CHAMPION: 0.0}),
            pool("m5a.large", spot_price_usd_per_hour=0.25, p={CHAMPION: 0.0}),
        ],
    )
    assert only(market, minimum_gain=0.25)["decision"] == "SWITCH"
    stay = only(market, minimum_gain=0.26)
    assert (stay["decision"], stay["gain"], stay["candidates_considered"]) == ("STAY", 0.25, 1)
    assert pd.isna(stay["to_pool"])
    assert math.isnan(stay["to_price_usd_per_hour"])
    assert math.isnan(stay["p_target_6h"])
    assert stay["reason"] == (
        "m5a.large:use1-az1:Linux/UNIX, the best of 1 candidates, would save 25.0 % of the on-demand price;"
        " a switch needs 26 %."
    )


def test_the_same_cost_elsewhere_is_no_reason_to_move():
    market = evaluated([instance("i-1")], [pool("m5.large"), pool("m5.large", "use1-az2")])
    assert only(market, minimum_gain=0.0)["decision"] == "STAY"


def test_fall_back_only_from_an_unsafe_pool_without_a_candidate_that_gains():
    unsafe = pool("m5.large", **UNSAFE, p={CHAMPION: 0.02})
    dear = pool("m5.large", "use1-az2", spot_price_usd_per_hour=0.09)
    found = only(evaluated([instance("i-1")], [unsafe, dear]))
    assert (found["decision"], found["candidates_considered"]) == ("FALLBACK_ON_DEMAND", 1)
    assert (found["to_price_usd_per_hour"], found["to_cost_usd_per_hour"]) == (0.10, 0.10)
    assert pd.isna(found["to_pool"])
    assert math.isnan(found["p_target_6h"])
    assert "100 % a month, 20 % is allowed" in found["reason"]
    cheap = pool("m5.large", "use1-az2", spot_price_usd_per_hour=0.02)
    assert only(evaluated([instance("i-1")], [unsafe, cheap]))["decision"] == "SWITCH"
    alone = only(evaluated([instance("i-1")], [unsafe]))
    assert alone["decision"] == "FALLBACK_ON_DEMAND"
    assert "no other safe pool fits" in alone["reason"]
    assert math.isnan(alone["gain"])


def test_a_bucket_that_ends_at_the_limit_is_safe():
    edge = pool("m5.large", interrupt_rate_min=0.15, interrupt_rate_max=0.20)
    assert only(evaluated([instance("i-1")], [edge]))["decision"] == "STAY"
    assert (
        only(evaluated([instance("i-1")], [edge]), safe_interruption_rate_max=0.15)["decision"] == "FALLBACK_ON_DEMAND"
    )


@pytest.mark.parametrize(
    "candidate",
    [
        pool("m5a.large", spot_price_usd_per_hour=0.001, **UNSAFE),
        pool("c5.large", spot_price_usd_per_hour=0.001),
        pool("m5a.large", "euw1-az1", spot_price_usd_per_hour=0.001, region="eu-west-1"),
        pool("m5a.large", spot_price_usd_per_hour=0.001, product="Windows"),
        pool("m5a.large", spot_price_usd_per_hour=0.001, p={}),
    ],
    ids=["unsafe", "does not fit", "another region", "another product", "no prediction"],
)
def test_what_is_not_a_candidate(candidate: dict):
    fits = [("m5.large", "m5.large"), ("m5.large", "m5a.large")]
    found = only(evaluated([instance("i-1")], [pool("m5.large"), candidate], fits=fits))
    assert (found["decision"], found["candidates_considered"]) == ("STAY", 0)
    assert found["reason"] == "No other safe pool fits; a switch needs 5 %."


def test_ties_go_to_the_lower_spot_price_then_to_the_pools_id():
    here = pool("m5.large", spot_price_usd_per_hour=0.5, on_demand_usd_per_hour=1.0, p={CHAMPION: 0.0})
    # With a cost of 6 USD over 6 h: 0.25 + 0 and 0.125 + 0.125, equal to the bit.
    dear = pool("a1.large", spot_price_usd_per_hour=0.25, p={CHAMPION: 0.0})
    cheap = pool("z1.large", spot_price_usd_per_hour=0.125, p={CHAMPION: 0.125})
    found = only(evaluated([instance("i-1")], [here, dear, cheap]), interruption_cost_usd=6.0)
    assert found["to_pool"] == "z1.large:use1-az1:Linux/UNIX"
    twins = [
        pool(name, az, spot_price_usd_per_hour=0.25, p={CHAMPION: 0.0})
        for name, az in (("m5a.large", "use1-az3"), ("m5a.large", "use1-az2"), ("m5b.large", "use1-az1"))
    ]
    assert only(evaluated([instance("i-1")], [here, *twins]))["to_pool"] == "m5a.large:use1-az2:Linux/UNIX"


def test_on_demand_is_safe_costs_its_price_and_may_go_to_spot():
    moved = only(evaluated([instance("i-1", lifecycle="on-demand")], [pool("m5.large")]))
    assert (moved["decision"], moved["to_pool"]) == ("SWITCH", "m5.large:use1-az1:Linux/UNIX")
    assert (moved["from_price_usd_per_hour"], moved["from_cost_usd_per_hour"]) == (0.10, 0.10)
    assert math.isnan(moved["p_current_6h"])
    assert moved["features"] is None
    stays = only(evaluated([instance("i-1", lifecycle="on-demand")], [pool("m5.large", spot_price_usd_per_hour=0.098)]))
    assert (stays["decision"], stays["candidates_considered"]) == ("STAY", 1)


def test_an_instance_that_cannot_be_weighed_is_skipped_with_the_reason():
    gone = {"region": "us-east-1", "instance_type": "m5.large", "az_id": "use1-az1", "product": "Linux/UNIX"}
    other = pool("m5.large", "use1-az2")
    excluded = only(evaluated([instance("i-1")], [other], excluded=[{**gone, "reason": "no Advisor entry"}]))
    assert (excluded["decision"], excluded["candidates_considered"]) == ("SKIP", 0)
    assert excluded["reason"] == "Its pool m5.large:use1-az1:Linux/UNIX has no features: no Advisor entry."
    assert excluded["features"] is None
    unseen = only(evaluated([instance("i-1", az_id="use1-az6")], [other]))
    assert unseen["reason"].endswith("has no features: not in the snapshot.")
    unpredicted = only(evaluated([instance("i-1")], [pool("m5.large", p={}), other]))
    assert (unpredicted["decision"], unpredicted["features"]["price_position"]) == ("SKIP", 0.5)
    cluster = only(evaluated([instance("i-1", pipeline_mode="CLUSTER")], [pool("m5.large"), other]))
    assert (cluster["decision"], cluster["candidates_considered"]) == ("SKIP", 0)
    assert "CLUSTER" in cluster["reason"]
    unpriced = only(evaluated([instance("i-1", "x1.large", lifecycle="on-demand")], [other]))
    assert unpriced["reason"] == "There is no on-demand price to weigh x1.large:use1-az1:Linux/UNIX with."


def test_a_version_that_failed_skips_its_instances_with_the_reason_and_no_others():
    scored = [Scored(CHAMPION, "champion"), Scored(CHALLENGER, "challenger", spec="v2", failed="it raised.")]
    fleet = [
        instance("i-1"),
        instance("i-2", assigned_version=CHALLENGER),
        instance("i-3", assigned_version=CHALLENGER, lifecycle="on-demand"),
    ]
    pools = [pool("m5.large", p={CHAMPION: 0.01}), pool("m5.large", "use1-az2", p={CHAMPION: 0.01})]
    rows = decide_linear(evaluated(fleet, pools, scored=scored), rules())
    alone = decide_linear(evaluated(fleet[:1], pools), rules())
    failed = rows[rows["model_version"] == CHALLENGER]
    assert failed["acting"].tolist() == [False, True, True]
    assert set(failed["decision"]) == {"SKIP"}
    assert set(failed["reason"]) == {"This version failed: it raised."}
    assert failed[["p_current_6h", "gain", "features"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(rows.iloc[:1], alone)


def test_without_any_pool_everything_is_skipped():
    found = only(evaluated([instance("i-1")], []))
    assert found["decision"] == "SKIP"


def test_every_version_decides_and_only_the_instances_own_acts():
    scored = [Scored(CHAMPION, "champion"), Scored(CHALLENGER, "challenger"), Scored("logistic/0", "none")]
    p = {CHAMPION: 0.0, CHALLENGER: 0.9, "logistic/0": 0.0}
    market = evaluated(
        [
            instance("i-1"),
            instance("i-2", assigned_version=CHALLENGER),
            instance("i-3", assigned_version="logistic/0", shadow=True),
        ],
        [pool("m5.large", p=p), pool("m5.large", "use1-az2", p={**p, CHALLENGER: 0.0})],
        scored=scored,
    )
    rows = decide_linear(market, rules()).set_index(["instance_id", "model_version"])
    assert rows["acting"].to_dict() == {
        ("i-1", CHAMPION): True,
        ("i-1", CHALLENGER): False,
        ("i-2", CHAMPION): False,
        ("i-2", CHALLENGER): True,
        ("i-3", CHAMPION): False,
        ("i-3", CHALLENGER): False,
        ("i-3", "logistic/0"): True,
    }
    assert rows["shadow"].tolist() == [False, True, True, False, True, True, True]
    assert rows["decision"].tolist() == ["STAY", "SWITCH", "STAY", "SWITCH", "STAY", "SWITCH", "STAY"]
    assert rows.loc[("i-1", CHALLENGER), "model_role"] == "challenger"
    assert decide_linear(market, rules(environment="PROD"))["shadow"].all()


def test_five_hundred_instances_take_little_time():
    import time

    generator = np.random.default_rng(7)
    types = [f"m{i}.large" for i in range(100)]
    pools = [
        pool(
            name,
            f"use1-az{zone}",
            spot_price_usd_per_hour=float(generator.uniform(0.02, 0.09)),
            p={CHAMPION: float(generator.uniform(0, 0.1)), CHALLENGER: float(generator.uniform(0, 0.1))},
        )
        for name in types
        for zone in range(1, 7)
    ]
    fleet = [instance(f"i-{n}", types[n % 100], f"use1-az{n % 6 + 1}") for n in range(500)]
    market = evaluated(fleet, pools, scored=[Scored(CHAMPION, "champion"), Scored(CHALLENGER, "challenger")])
    decide_linear(market, rules())
    started = time.perf_counter()
    assert len(decide_linear(market, rules())) == 1000
    assert time.perf_counter() - started < 0.5


PRICE = st.integers(1, 20).map(lambda cents: cents / 100)


@st.composite
def markets(draw: st.DrawFn) -> Evaluated:
    types, zones = ["m5.large", "m5a.large", "c5.large"], ["use1-az1", "use1-az2", "use1-az3"]
    keys = draw(st.lists(st.tuples(st.sampled_from(types), st.sampled_from(zones)), unique=True, max_size=9))
    prices = {name: draw(PRICE) for name in types}
    pools = [
        pool(
            name,
            zone,
            spot_price_usd_per_hour=draw(PRICE),
            on_demand_usd_per_hour=prices[name],
            interrupt_rate_max=draw(st.sampled_from([0.05, 0.20, 1.0])),
            p={
                version: draw(st.integers(0, 10)) / 10
                for version in (CHAMPION, CHALLENGER)
                if draw(st.integers(0, 9)) < 9
            },
        )
        for name, zone in keys
    ]
    fleet = [
        instance(
            f"i-{number}",
            draw(st.sampled_from(types)),
            draw(st.sampled_from(zones)),
            lifecycle=draw(st.sampled_from(["spot", "spot", "on-demand"])),
            pipeline_mode=draw(st.sampled_from(["LINEAR", "LINEAR", "CLUSTER"])),
            assigned_version=draw(st.sampled_from([None, CHALLENGER])),
        )
        for number in range(draw(st.integers(1, 6)))
    ]
    fits = draw(st.lists(st.tuples(st.sampled_from(types), st.sampled_from(types)), unique=True))
    scored = [Scored(CHAMPION, "champion"), Scored(CHALLENGER, draw(st.sampled_from(["challenger", "none"])))]
    return evaluated(fleet, pools, fits=fits, scored=scored)


@settings(max_examples=150)
@given(market=markets(), cost=st.sampled_from([0.0, 0.6, 2.0]), need=st.sampled_from([0.0, 0.05, 0.3]))
def test_agrees_with_the_slow_way_and_no_switch_costs_more(market: Evaluated, cost: float, need: float):
    chosen = rules(interruption_cost_usd=cost, minimum_gain=need)
    decisions = decide_linear(market, chosen)
    slow = decide_slowly(market, chosen)
    assert len(decisions) == len(slow)
    for row in decisions.to_dict("records"):
        expected = slow[row["instance_id"], row["model_version"]]
        found = {name: row[name] for name in expected}
        assert {**found, "to_pool": None if pd.isna(found["to_pool"]) else found["to_pool"]} == expected
    switched = decisions[decisions["decision"] == "SWITCH"]
    assert (switched["to_cost_usd_per_hour"] < switched["from_cost_usd_per_hour"]).all()
    assert (switched["gain"] >= need).all()
    assert (decisions.loc[decisions["acting"]].groupby("instance_id").size() == 1).all()
