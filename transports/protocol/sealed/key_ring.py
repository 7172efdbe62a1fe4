"""Several keys as one: what is sealed under the first of them is opened by whoever has it among theirs. Pure."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES: Final = 32


class KeyRing:
    """AES-256-GCM (RFC 5116) with keys that are derived from secrets.

    secrets: the newest first, at least one.
    purpose: 16 bytes at most; what is sealed for one is nothing for another.
    """

    def __init__(self, *secrets: bytes, purpose: bytes) -> None:
        keys = (hashlib.blake2b(secret, digest_size=_KEY_BYTES, person=purpose).digest() for secret in secrets)
        self._first, *self._others = (AESGCM(key) for key in keys)

    def encrypt(self, nonce: bytes, content: bytes, about: bytes) -> bytes:
        """about: authenticated with it, and not part of what is returned."""
        return self._first.encrypt(nonce, content, about)

    def decrypt(self, nonce: bytes, sealed: bytes, about: bytes) -> bytes:
        """Raises: InvalidTag for what was sealed under none of the keys, about something else, or altered; ValueError."""
        for cipher in (self._first, *self._others):
            with contextlib.suppress(InvalidTag):
                return cipher.decrypt(nonce, sealed, about)
        raise InvalidTag
