"""Sealed tokens: what leaves the gateway and must come back unread and unaltered.

Authenticated encryption (AES-256-GCM, RFC 5116) under a key that every cell of the node has, so that any cell opens what
another one has sealed, before and after a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidTag

from .key_ring import KeyRing

_NONCE_BYTES = 12
_MAX_TOKEN_CHARACTERS = 65_536


class SealBroken(Exception):
    """A token that this gateway did not make, that is of another kind, or that was altered."""


class Seal:
    """Seals and opens tokens; each kind of token is bound to its name.

    secret: at least 16 bytes. others: what was sealed with these is opened as well.
    """

    def __init__(self, secret: bytes, *others: bytes) -> None:
        if min(map(len, (secret, *others))) < 16:
            raise ValueError("the secret of a seal has at least 16 bytes")
        self._cipher = KeyRing(secret, *others, purpose=b"mcp-gw-seal")
        self._nonce_key = hashlib.blake2b(secret, digest_size=32, person=b"mcp-gw-nonce").digest()

    def seal(self, kind: str, content: bytes) -> str:
        """A token of visible ASCII characters (A-Z a-z 0-9 - _)."""
        return self._sealed(os.urandom(_NONCE_BYTES), kind, content)

    def seal_alike(self, kind: str, content: bytes) -> str:
        """The same token whenever the content is the same: for what clients compare.

        The nonce is a keyed hash of all that is sealed, as in RFC 5297 (SIV): equal tokens show that their contents are equal,
        and nothing else.
        """
        text = msgspec.msgpack.encode((kind, content))
        return self._sealed(hashlib.blake2b(text, digest_size=_NONCE_BYTES, key=self._nonce_key).digest(), kind, content)

    def _sealed(self, nonce: bytes, kind: str, content: bytes) -> str:
        return _token(nonce + self._cipher.encrypt(nonce, content, kind.encode()))

    def open(self, kind: str, token: str) -> bytes:
        """What was sealed.

        Raises: SealBroken.
        """
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise SealBroken("too long")
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
            if _token(raw) != token:  # "+" for "-", padding, spare bits: another spelling is an altered token
                raise SealBroken("not as it was sealed")
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], kind.encode())
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise SealBroken(str(error) or type(error).__name__) from None


def _token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
