"""Which tests begin first where several processes share them: the longest, each at the head of another process's share.

pytest-xdist's `worksteal` gives each process one stretch of the collected tests, and lets an idle one take from the end
of another's. What begins last should therefore be short, or one process would end long after the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

LONGEST = (
    "integration/test_demo.py",
    "integration/test_dagster_dev.py",
    "integration/test_evaluation.py",
    "cli/test_with_aws.py",
    "local/test_stores.py",
    "market/test_scrapes.py",
    "cli/test_lost_postgres.py",
    "defs/test_storage.py",
    "accounts/test_sessions_together.py",
)
"""Modules below this folder, the longest first. Their tests stay together, as some share what a module makes once."""

T = TypeVar("T")


def longest_first(tests: Sequence[tuple[str, T]], processes: int) -> list[T]:
    """The tests, given with their module's path, in an order in which each of the stretches begins with a long one."""
    long: dict[str, list[T]] = {module: [] for module in LONGEST}
    short = []
    for path, test in tests:
        module = next((module for module in LONGEST if path.endswith(module)), None)
        (short if module is None else long[module]).append(test)
    ordered: list[T] = []
    begun = 0
    for number in range(processes):
        # As pytest-xdist cuts: what is left, by the processes that are left.
        end = len(ordered) + (len(tests) - len(ordered)) // (processes - number)
        ordered += [test for module in LONGEST[number::processes] for test in long[module]]
        fill = max(0, end - len(ordered))
        ordered += short[begun : begun + fill]
        begun += fill
    return ordered + short[begun:]
