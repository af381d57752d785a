"""Passwords as argon2id hashes: which are taken, how they are hashed, whether one matches. users.py knows whose.

A hash takes 64 MiB and some tenths of a second on purpose. However many ask, a process computes two at once: the others
wait, so that a flood of logins takes neither the memory nor all cores.

Reference: RFC 9106, "Argon2", its second recommended choice; NIST SP 800-63B, 5.1.1 (length instead of composition).
"""

from __future__ import annotations

import os
import threading
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from spotlab_pipelines.errors import InvalidInput

if TYPE_CHECKING:
    from argon2 import PasswordHasher

PASSWORD_MIN, PASSWORD_MAX = 12, 256
"""Characters of a password."""

HASHES_AT_ONCE = 2

_turns = threading.BoundedSemaphore(HASHES_AT_ONCE)


def _forget_turns() -> None:
    """In a forked child: whoever held a turn in the parent does not give it back here."""
    global _turns
    _turns = threading.BoundedSemaphore(HASHES_AT_ONCE)


os.register_at_fork(after_in_child=_forget_turns)


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with its parameters and a salt of its own.

    Raises:
        InvalidInput: it is shorter than 12 or longer than 256 characters, or no Unicode text. It is never quoted.
    """
    text = _normal(password)
    if not PASSWORD_MIN <= len(text) <= PASSWORD_MAX:
        raise InvalidInput(
            f"Expected a password of {PASSWORD_MIN} to {PASSWORD_MAX} characters, got {len(text)}.",
            remedy="Choose a longer one; several words do well."
            if len(text) < PASSWORD_MIN
            else "Choose a shorter one.",
        )
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            "Expected a password of Unicode text, got bytes that are none.", remedy="Type it in UTF-8."
        ) from None
    with _turns:
        return _hasher().hash(encoded)


def matches(password: str, known: str | None) -> bool:
    """Whether a password is the one of a hash. Against no hash it takes as long, and does not match."""
    from argon2.exceptions import VerifyMismatchError

    # What could never have been set is compared all the same: its length tells the asker nothing new.
    text = _normal(password)[: PASSWORD_MAX + 1].encode(errors="replace")
    with _turns:
        if known is None:
            _hasher().hash(text)
            return False
        try:
            return _hasher().verify(known, text)
        except VerifyMismatchError:
            return False


def is_outdated(known: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher().check_needs_rehash(known)


def _normal(password: str) -> str:
    """One keyboard writes é as one character, another as two: the same password."""
    return unicodedata.normalize("NFC", password)


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher
    from argon2.profiles import RFC_9106_LOW_MEMORY

    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
