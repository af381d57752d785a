"""The quick look never lets through what pandera refuses, and saves pandera the frames that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from spotlab_pipelines.accounts.frames import fleet_schema
from spotlab_pipelines.accounts.plain_check import plainly_fits
from spotlab_pipelines.experiments.frames import decisions_schema
from spotlab_pipelines.features.frames import features_schema, pools_schema
from spotlab_pipelines.inference.frames import predictions_schema
from spotlab_pipelines.market.frames import advisor_schema, catalogue_schema, on_demand_schema, price_schema
from spotlab_pipelines_tests.experiments.factory import decisions
from spotlab_pipelines_tests.features.examples import NOW, changes, pools
from spotlab_pipelines_tests.features.seeded import seeded_market

SCHEMA = pa.DataFrameSchema(
    {
        "name": pa.Column("str", pa.Check.str_length(min_value=1), unique=True),
        "kind": pa.Column("str", pa.Check.isin(("a", "b")), nullable=True),
        "share": pa.Column("float64", pa.Check.in_range(0, 1)),
        "price": pa.Column("float64", [pa.Check.gt(0), pa.Check.lt(float("inf"))], nullable=True),
        "count": pa.Column("int64", pa.Check.ge(0)),
        "percent": pa.Column("int64", pa.Check.le(100), required=False),
    },
    strict=True,
)


def frame(**changed: Any) -> pd.DataFrame:
    base = {
        "name": pd.Series(["x", "y"], dtype="str"),
        "kind": pd.Series(["a", None], dtype="str"),
        "share": [0.0, 1.0],
        "price": [0.5, np.nan],
        "count": [0, 3],
        "percent": [-4, 100],
    }
    return pd.DataFrame({**base, **changed})


def pandera_agrees(schema: pa.DataFrameSchema, values: pd.DataFrame) -> bool:
    try:
        schema.validate(values, lazy=True)
    except SchemaErrors:
        return False
    return True


def test_a_frame_that_fits_needs_no_pandera():
    assert plainly_fits(SCHEMA, frame())
    assert plainly_fits(SCHEMA, frame().drop(columns="percent"))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": pd.Series(["x", "x"], dtype="str")},
        {"name": pd.Series(["x", ""], dtype="str")},
        {"name": pd.Series(["x", None], dtype="str")},
        {"kind": pd.Series(["a", "c"], dtype="str")},
        {"share": [0.0, 1.1]},
        {"share": [0.0, -0.1]},
        {"share": [0.0, np.nan]},
        {"share": [0, 1]},
        {"price": [0.5, 0.0]},
        {"price": [0.5, np.inf]},
        {"count": [0, -1]},
        {"count": [0.0, 1.0]},
        {"percent": [101, 0]},
        {"another": [1, 2]},
    ],
)
def test_what_pandera_refuses_is_not_let_through(changed: dict):
    values = frame(**changed)
    assert not pandera_agrees(SCHEMA, values)
    assert not plainly_fits(SCHEMA, values)


@given(
    share=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, -1.0, np.nan, np.inf]), min_size=2, max_size=2),
    price=st.lists(st.sampled_from([0.1, 0.0, np.nan, np.inf]), min_size=2, max_size=2),
    kind=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=2),
)
def test_it_vouches_for_nothing_that_pandera_refuses(share: list, price: list, kind: list):
    values = frame(share=share, price=price, kind=pd.Series(kind, dtype="str"))
    assert plainly_fits(SCHEMA, values) == pandera_agrees(SCHEMA, values)


def test_a_missing_column_a_rule_of_two_columns_and_an_unknown_rule_go_to_pandera():
    assert not plainly_fits(SCHEMA, frame().drop(columns="share"))
    twice = pa.DataFrameSchema({"a": pa.Column("int64"), "b": pa.Column("int64")}, unique=["a", "b"])
    assert plainly_fits(twice, pd.DataFrame({"a": [1, 1], "b": [1, 2]}))
    assert not plainly_fits(twice, pd.DataFrame({"a": [1, 1], "b": [2, 2]}))
    odd = pa.DataFrameSchema({"a": pa.Column("int64", pa.Check(lambda values: values % 2 == 1))})
    assert not plainly_fits(odd, pd.DataFrame({"a": [1]}))


def test_it_knows_every_rule_of_the_frames_that_an_evaluation_checks():
    seeded = seeded_market(now=NOW)
    checked = {
        "prices": (price_schema(), changes(("m5.large", "use1-az1", 1, 0.1))),
        "on demand": (on_demand_schema(), seeded.on_demand),
        "pools": (pools_schema(), pools({})),
        "decisions": (decisions_schema(), decisions()),
    }
    assert {name: plainly_fits(*pair) for name, pair in checked.items()} == dict.fromkeys(checked, True)
    for schema in (
        fleet_schema(),
        features_schema(),
        predictions_schema((1, 6, 12)),
        advisor_schema(),
        catalogue_schema(),
    ):
        assert isinstance(plainly_fits(schema, pd.DataFrame()), bool)
