"""The partitions of SpotLab: one per registered account, and the pure rule that keeps them in step with Postgres."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import dagster as dg

account_partitions = dg.DynamicPartitionsDefinition(name="accounts")
"""One key per active account: its 12-digit id. Time is a column and a run tag, never a partition."""


@dataclass(frozen=True)
class PartitionChanges:
    """What has to happen so that Dagster's partitions are the registered accounts."""

    add: list[str]
    delete: list[str]
    kept_busy: list[str]


def partition_changes(
    *, registered: Collection[str], existing: Collection[str], busy: Collection[str]
) -> PartitionChanges:
    """Compare the registered accounts with the partition keys that exist.

    A key that a run in flight works on is never deleted: the run would fail at its next step. It goes at a later tick.
    """
    gone = set(existing) - set(registered)
    return PartitionChanges(
        add=sorted(set(registered) - set(existing)),
        delete=sorted(gone - set(busy)),
        kept_busy=sorted(gone & set(busy)),
    )


def account_asset(**arguments: Any) -> Any:
    """`dg.asset` with one partition per account; a run may hold one account or a range of a thousand."""
    with warnings.catch_warnings():
        # Backfill policies are marked beta; the Dagster version is pinned, and a run over a range needs one.
        warnings.simplefilter("ignore", dg.BetaWarning)
        policy = dg.BackfillPolicy.single_run()
        decorator = dg.asset(partitions_def=account_partitions, backfill_policy=policy, **arguments)

    def quietly(function: Callable[..., Any]) -> dg.AssetsDefinition:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            return decorator(function)

    return quietly
