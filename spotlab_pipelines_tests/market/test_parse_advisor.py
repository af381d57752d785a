"""The Advisor's feed: taken whole and as documented, or not at all."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from spotlab_pipelines.errors import SourceMalformed
from spotlab_pipelines.market.parse_advisor import parse_advisor, refuse_loss
from spotlab_pipelines_tests.market.feeds import whole_feed

FEED = whole_feed(
    {
        "us-east-1": {
            "Linux": {"m5.large": {"s": 62, "r": 0}, "c5.xlarge": {"s": -7, "r": 4}},
            "Windows": {"m5.large": {"s": 0, "r": 2}},
        },
        "eu-west-1": {"Linux": {"m5.large": {"s": 70, "r": 1}}, "Windows": {}},
    }
)


def test_the_advisor_is_read_with_the_labels_ranges_and_their_midpoints():
    frame = parse_advisor(json.dumps(FEED))
    assert frame[["region", "os", "instance_type", "bucket", "savings_pct"]].to_numpy().tolist() == [
        ["us-east-1", "Linux", "m5.large", 0, 62],
        ["us-east-1", "Linux", "c5.xlarge", 4, -7],
        ["us-east-1", "Windows", "m5.large", 2, 0],
        ["eu-west-1", "Linux", "m5.large", 1, 70],
    ]
    assert frame["interrupt_rate_min"].tolist() == [0.0, 0.20, 0.10, 0.05]
    assert frame["interrupt_rate_max"].tolist() == [0.05, 1.0, 0.15, 0.10]
    np.testing.assert_allclose(frame["interrupt_rate_mid"], [0.025, np.nan, 0.125, 0.075])


def test_what_comes_besides_what_is_documented_is_left_alone():
    feed = changed(("spot_advisor", "us-east-1", "Linux", "m5.large"), {"s": 62, "r": 0, "x": None})
    assert len(parse_advisor(feed | {"news": []})) == 4


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    feed = copy.deepcopy(FEED)
    *way, last = path
    inner: Any = feed
    for step in way:
        inner = inner[step]
    if value is DROPPED:
        del inner[last]
    else:
        inner[last] = value
    return feed


def with_entry(entry: Any) -> dict[str, Any]:
    return changed(("spot_advisor", "us-east-1", "Linux", "m5.large"), entry)


DROPPED = object()
BELOW_AZS = {"us-east-1": {"us-east-1a": {"Linux": {"m5.large": {"s": 1, "r": 1}}}}}


@pytest.mark.parametrize(
    ("document", "came"),
    [
        (json.dumps(FEED)[:-40], "characters that begin"),
        ("<!DOCTYPE html><html><body>Service unavailable</body></html>", "<!DOCTYPE html>"),
        ("", "got nothing"),
        (b"", "got nothing"),
        ("[]", r"got \[\]"),
        ("{}", "ranges, got None"),
        (whole_feed({}), "got none"),
        (whole_feed({"us-east-1": {"Linux": {}}}), "got none"),
        (whole_feed(BELOW_AZS), "us-east-1a"),
        (whole_feed({"us-east-1": {"Linux": ["m5.large"]}}), "m5.large"),
        (whole_feed({"Linux": {"us-east-1": {"m5.large": {"s": 1, "r": 1}}}}), "names of regions.*'Linux'"),
        (whole_feed({"us-east-1": {"Linux": {"m5": {"s": 1, "r": 1}}}}), "'m5'"),
        (with_entry({"s": 1}), "got None"),
        (with_entry({"r": 1}), r"Linux\.m5\.large\.s, got None"),
        (with_entry({"s": 1, "r": 5}), r"us-east-1\.Linux\.m5\.large\.r, got 5"),
        (with_entry({"s": 1, "r": -1}), "got -1"),
        (with_entry({"s": 1, "r": True}), "got True"),
        (with_entry({"s": 1, "r": 1.0}), "got 1.0"),
        (with_entry({"s": "62", "r": 1}), "got '62'"),
        (with_entry({"s": 101, "r": 1}), "got 101"),
        (with_entry({"s": -1001, "r": 1}), "got -1001"),
        (with_entry({"s": 2**63, "r": 1}), f"got {2**63}"),
        (with_entry("62"), "got '62'"),
        (with_entry(None), "got None"),
        (changed(("spot_advisor",), DROPPED), "spot_advisor, got None"),
        (changed(("ranges",), DROPPED), "ranges, got None"),
        (changed(("instance_types",), DROPPED), "instance_types, got None"),
        (changed(("global_rate",), DROPPED), "global_rate, got None"),
        (changed(("ranges", 1, "label"), "5-11%"), r"<5%, 5-10%, .* got 0: '<5%', 1: '5-11%'"),
        (changed(("ranges", 4), DROPPED), "ranges 0..4"),
        (changed(("ranges", 0), "<5%"), "ranges"),
        (changed(("instance_types", "m5.large", "cores"), 0), r"instance_types\.m5\.large"),
        (changed(("instance_types", "m5.large", "emr"), "yes"), r"instance_types\.m5\.large"),
    ],
)
def test_what_is_not_the_advisors_shape_is_refused(document, came):
    with pytest.raises(SourceMalformed, match=came) as caught:
        parse_advisor(document)
    assert str(caught.value).startswith("Spot Advisor: expected")
    assert caught.value.remedy


def regions_of(count: int, types: int) -> Any:
    names = {f"m5.{n}xlarge": {"s": 60, "r": 1} for n in range(types)}
    return parse_advisor(whole_feed({f"us-east-{n}": {"Linux": names} for n in range(count)}))


@pytest.mark.parametrize(("regions", "types"), [(9, 10), (10, 9)])
def test_losing_as_much_as_the_share_is_taken_and_not_a_bit_more(regions, types):
    new, good = regions_of(regions, types), regions_of(10, 10)
    refuse_loss(new, good, max_share=0.1, since="t")
    with pytest.raises(SourceMalformed):
        refuse_loss(new, good, max_share=0.0999, since="t")


def test_what_grows_has_lost_nothing():
    refuse_loss(regions_of(20, 20), regions_of(10, 10), max_share=0.0, since="t")
    with pytest.raises(SourceMalformed):
        refuse_loss(regions_of(10, 10), regions_of(20, 20), max_share=0.0, since="t")


@pytest.mark.parametrize(
    ("new", "figures"),
    [
        ((8, 10), "2 of 10 regions, 0 of 10 types, 20 of 100 entries gone (us-east-8, us-east-9)"),
        ((10, 8), "0 of 10 regions, 2 of 10 types, 20 of 100 entries gone (m5.8xlarge, m5.9xlarge)"),
    ],
)
def test_losing_more_is_refused_with_the_figures(new, figures):
    with pytest.raises(SourceMalformed) as caught:
        refuse_loss(regions_of(*new), regions_of(10, 10), max_share=0.1, since="yesterday")
    assert figures in str(caught.value)
    assert "10% of the regions" in str(caught.value)
    assert "yesterday" in str(caught.value)


def test_types_that_few_regions_have_are_not_lost_among_the_many():
    """A third of the types, in one region of ten: 4 % of the entries."""
    common = {f"m5.{n}xlarge": {"s": 60, "r": 1} for n in range(10)}
    rare = {f"p5.{n}xlarge": {"s": 60, "r": 1} for n in range(5)}
    regions = {f"us-east-{n}": {"Linux": common} for n in range(10)}
    full = parse_advisor(whole_feed(regions | {"us-east-0": {"Linux": common | rare}}))
    with pytest.raises(SourceMalformed, match=r"0 of 10 regions, 5 of 15 types, 5 of 105 entries gone.*p5\.0xlarge"):
        refuse_loss(parse_advisor(whole_feed(regions)), full, max_share=0.1, since="yesterday")
