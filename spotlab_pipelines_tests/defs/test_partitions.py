"""Accounts and partitions stay in step, and nothing is deleted under a run."""

from __future__ import annotations

from spotlab_pipelines.defs.partitions import partition_changes


def test_new_accounts_are_added_and_gone_ones_deleted() -> None:
    changes = partition_changes(registered={"b", "a", "c"}, existing=["c", "d"], busy=[])
    assert (changes.add, changes.delete, changes.kept_busy) == (["a", "b"], ["d"], [])


def test_a_partition_with_a_run_in_flight_is_kept() -> None:
    changes = partition_changes(registered=["a"], existing=["a", "b", "c"], busy=["b"])
    assert (changes.add, changes.delete, changes.kept_busy) == ([], ["c"], ["b"])


def test_nothing_to_do() -> None:
    changes = partition_changes(registered=["a"], existing=["a"], busy=["a"])
    assert not changes.add
    assert not changes.delete
