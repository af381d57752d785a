"""Which of SpotLab's own AWS credentials are used where: IAM's are good in the partition that issued them alone.

The process's usual credentials (AWS_*, an instance role) serve every partition for which settings name no profile. That
is right for a SpotLab that works in one partition, whichever it is; where it works in several, all but one need theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from spotlab_pipelines.accounts.aws_answers import answer_of
from spotlab_pipelines.accounts.rules import partition_of
from spotlab_pipelines.errors import SettingsError

OF_ANOTHER_PARTITION = frozenset({"InvalidClientTokenId", "UnrecognizedClientException"})
"""How STS answers to keys that it has never seen, as those of another partition are."""


@dataclass(frozen=True)
class OwnKeys:
    """Profiles of AWS's configuration files that hold SpotLab's own credentials, by partition."""

    profiles: Mapping[str, str] = field(default_factory=dict)

    def profile(self, region: str) -> str | None:
        """The profile for a region's partition; None: the process's usual credentials."""
        return self.profiles.get(partition_of(region))

    @contextmanager
    def used_in(self, region: str) -> Iterator[None]:
        """Say which setting is missing, where STS does not know the keys and no profile was named for the partition.

        Raises:
            SettingsError: instead of botocore's error.
        """
        try:
            yield
        except Exception as error:
            partition = partition_of(region)
            if partition == "aws" or partition in self.profiles or answer_of(error)[0] not in OF_ANOTHER_PARTITION:
                raise
            raise SettingsError(
                f"Expected credentials of SpotLab's own in the partition {partition}, got some that STS in {region}"
                " does not know.",
                remedy=f"Set SPOTLAB_{partition.upper().replace('-', '_')}_PROFILE to a profile that holds them.",
            ) from None
