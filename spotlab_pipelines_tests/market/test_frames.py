"""Texts of frames looked up in one another."""

import pandas as pd
import pytest

from spotlab_pipelines.market.frames import places


@pytest.mark.parametrize("known", [["b", "a", "é"], ["b", "a", "é", "a"], []])
def test_places_are_those_of_the_first_alike_and_what_is_not_there_has_none(known: list[str]):
    found = places(pd.Index(["a", "é", "c", "b", "a", ""], dtype="str"), pd.Index(known, dtype="str"))
    assert found.tolist() == [known.index(text) if text in known else -1 for text in ("a", "é", "c", "b", "a", "")]
