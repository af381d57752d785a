"""Which types fit: hand-picked catalogues, one rule at a time."""

import pandas as pd
import pytest

from spotlab_pipelines.market.fitting import fitting_types, wanted_market


def catalogue(*rows):
    columns = ["instance_type", "vcpus", "memory_mib", "architecture", "accelerators"]
    return pd.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(["instance_type", "architecture", "accelerators"], "str")
    )


TYPES = catalogue(
    ("m5.large", 2, 8192, "x86_64", ""),
    ("m5.xlarge", 4, 16384, "x86_64", ""),
    ("m5.2xlarge", 8, 32768, "x86_64", ""),
    ("c5.large", 2, 4096, "x86_64", ""),
    ("c5.xlarge", 4, 8192, "x86_64", ""),
    ("m6g.large", 2, 8192, "arm64", ""),
    ("g4dn.xlarge", 4, 16384, "x86_64", "1x NVIDIA T4"),
    ("g4dn.2xlarge", 8, 32768, "x86_64", "1x NVIDIA T4"),
    ("p3.xlarge", 4, 16384, "x86_64", "1x NVIDIA V100"),
)


def fits(own, factor=2.0):
    return fitting_types(TYPES, [own], factor)["instance_type"].tolist()


@pytest.mark.parametrize(
    ("own", "factor", "expected"),
    [
        ("m5.large", 2.0, ["c5.xlarge", "g4dn.xlarge", "m5.large", "m5.xlarge", "p3.xlarge"]),
        ("m5.large", 1.0, ["m5.large"]),
        ("m5.large", 1.9, ["m5.large"]),
        ("c5.large", 2.0, ["c5.large", "c5.xlarge", "m5.large"]),
        ("m6g.large", 4.0, ["m6g.large"]),
        ("g4dn.xlarge", 2.0, ["g4dn.2xlarge", "g4dn.xlarge"]),
        ("p3.xlarge", 2.0, ["p3.xlarge"]),
        ("x9.unknown", 2.0, []),
    ],
)
def test_what_fits(own, factor, expected):
    assert fits(own, factor) == expected


def test_several_own_types_give_one_row_a_pair_whatever_the_order():
    both = fitting_types(TYPES.iloc[::-1], ["m5.large", "c5.large", "m5.large"], 2.0)
    assert both.itertuples(index=False, name=None).__next__() == ("c5.large", "c5.large")
    assert both.groupby("own_type").size().to_dict() == {"c5.large": 3, "m5.large": 5}
    assert not both.duplicated().any()


def test_whole_families_are_wanted_by_region_with_the_fleets_products():
    fleet = pd.DataFrame(
        {
            "region": ["us-east-1", "us-east-1", "eu-west-1"],
            "instance_type": ["c5.large", "c5.large", "x9.unknown"],
            "product": ["Linux/UNIX", "Windows", "Linux/UNIX"],
        }
    ).astype("str")
    wanted = wanted_market(fleet, TYPES, 2.0)
    assert wanted.families == {"eu-west-1": ("x9",), "us-east-1": ("c5", "m5")}
    assert wanted.types["us-east-1"] == ("c5.large", "c5.xlarge", "m5.2xlarge", "m5.large", "m5.xlarge")
    assert wanted.types["eu-west-1"] == ("x9.unknown",)
    assert wanted.products == {"eu-west-1": ("Linux/UNIX",), "us-east-1": ("Linux/UNIX", "Windows")}
