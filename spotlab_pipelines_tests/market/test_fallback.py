"""On-demand prices that the price list lacks: estimated where Spot and the Advisor tell enough, and always marked."""

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.market.fallback import on_demand_of, with_estimates
from spotlab_pipelines.market.parse_advisor import advisor_frame

LINUX = "Linux/UNIX"
NAN = float("nan")


def pools(*rows):
    columns = ["instance_type", "az_id", "product", "spot_price_usd_per_hour"]
    frame = pd.DataFrame(rows, columns=columns).assign(region="us-east-1")
    return frame.astype(dict.fromkeys([*columns[:3], "region"], "str") | {columns[3]: float})


def price_list(**usd):
    rows = [("us-east-1", "Linux", name.replace("_", "."), price, "pricing") for name, price in usd.items()]
    columns = ["region", "os", "instance_type", "on_demand_usd_per_hour", "price_source"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys([*columns[:3], columns[4]], "str"))


def savings(**percent):
    names = [name.replace("_", ".") for name in percent]
    regions, systems, buckets = ([each] * len(names) for each in ("us-east-1", "Linux", 0))
    return advisor_frame(regions, systems, names, buckets, [*percent.values()])


def priced(*rows, on_demand=(), **percent):
    price, source = on_demand_of(pools(*rows), on_demand=price_list(**dict(on_demand)), advisor=savings(**percent))
    return price.tolist(), list(source)


def test_a_price_of_the_list_is_taken_as_it_is_and_the_saving_not_asked():
    assert priced(("m5.large", "use1-az1", LINUX, 0.03), on_demand={"m5_large": 0.096}, m5_large=50) == (
        [0.096],
        ["pricing"],
    )


def test_a_type_that_the_list_lacks_has_one_estimate_from_its_cheapest_zone():
    rows = [
        ("m5.large", "use1-az1", LINUX, 0.03),
        ("m5.large", "use1-az2", LINUX, 0.05),
        ("c5.large", "z", LINUX, 0.02),
    ]
    price, source = priced(*rows, on_demand={"c5_large": 0.085}, m5_large=60, c5_large=10)
    assert price == pytest.approx([0.075, 0.075, 0.085])
    assert source == ["advisor-savings", "advisor-savings", "pricing"]


def test_a_pool_without_a_spot_price_shares_its_types_estimate():
    price, source = priced(("m5.large", "a", LINUX, NAN), ("m5.large", "b", LINUX, 0.05), m5_large=50)
    assert (price, source) == ([0.1, 0.1], ["advisor-savings"] * 2)


def test_a_negative_saving_gives_a_price_below_spot():
    assert priced(("m5.large", "a", LINUX, 0.15), m5_large=-50) == ([pytest.approx(0.1)], ["advisor-savings"])


@pytest.mark.parametrize(
    ("row", "percent"),
    [
        (("m5.large", "a", LINUX, NAN), {"m5_large": 50}),
        (("m5.large", "a", LINUX, 0.05), {"c5_large": 50}),
        (("m5.large", "a", LINUX, 0.05), {"m5_large": 100}),
        (("m5.large", "a", "Red Hat Enterprise Linux", 0.05), {"m5_large": 50}),
        (("m5.large", "a", "Windows", 0.05), {"m5_large": 50}),
    ],
)
def test_where_spot_or_the_saving_of_that_very_system_is_unknown_there_is_no_price(row, percent):
    price, source = priced(row, **percent)
    assert np.isnan(price).all()
    assert source == [""]


def test_the_order_of_the_pools_does_not_change_a_bit():
    rng = np.random.default_rng(4)
    spot, group = rng.uniform(0.01, 3, 300), rng.integers(0, 7, 300)
    lacking, saving = np.full(300, NAN), np.full(300, 61.0)
    straight = with_estimates(lacking, spot, saving, group)
    order = rng.permutation(300)
    assert (with_estimates(lacking, spot[order], saving, group[order]) == straight[order]).all()
