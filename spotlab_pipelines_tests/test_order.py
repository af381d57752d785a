"""The order of the tests loses none of them."""

from __future__ import annotations

import pytest

from spotlab_pipelines_tests.conftest import TESTS
from spotlab_pipelines_tests.order import LONGEST, longest_first


def test_the_longest_modules_are_there() -> None:
    assert [module for module in LONGEST if not (TESTS / module).is_file()] == []


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("others", [0, 4, 100])
def test_every_test_runs_once_and_each_process_begins_with_another_long_module(processes: int, others: int) -> None:
    modules = [f"market/test_{number}.py" for number in range(others)] + [*LONGEST, *LONGEST]
    tests = [(f"/anywhere/{module}", (module, number)) for number, module in enumerate(modules)]
    ordered = longest_first(tests, processes)
    assert sorted(ordered) == sorted(test for _, test in tests)
    if others == 100:
        heads, begin = [], 0
        for left in range(processes, 0, -1):
            heads.append(ordered[begin][0])
            begin += (len(ordered) - begin) // left
        assert heads == list(LONGEST[:processes])
