"""One hash of several files: of a model's artifact, of an installed package's code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

SHOWN = 12
"""Digits of a hash that tell people enough: an error is one line."""


def sha256_of(files: Mapping[str, bytes]) -> str:
    """The hash of every file's relative name, length and bytes, in the order of the names; 64 hex digits."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(8) + encoded + len(content).to_bytes(8) + content)
    return digest.hexdigest()
