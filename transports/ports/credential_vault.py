"""Where credentials of users at servers are kept: secret, the same for all cells, and beyond the life of the gateway."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import attrs


class EntryKind(Enum):
    """GRANT: what a user has consented to. CLIENT: as whom the gateway is registered. FLOW: a consent under way."""

    GRANT = "grant"
    CLIENT = "client"
    FLOW = "flow"


@attrs.frozen
class EntryId:
    """name: unique among the entries of its kind; shown to nobody, as it may be the hash of a secret. principal: whose it is."""

    kind: EntryKind
    name: str
    backend: str
    principal: str = ""


class VaultFailed(Exception):
    """The vault cannot be read or written now."""


class CredentialVault(Protocol):
    """Methods block for as long as the disk takes, well below a millisecond. Times: ms since the epoch.

    Raises: VaultFailed.
    """

    def read(self, entry: EntryId, now_ms: int) -> bytes | None:
        """What is kept; None where there is nothing, or its time is over."""

    def write(self, entry: EntryId, content: bytes, now_ms: int, expires_ms: int | None = None) -> None:
        """Keep this instead of what was there, and let go of the lease."""

    def take(self, entry: EntryId, now_ms: int) -> bytes | None:
        """As `read`, and nobody reads it again, in whatever cell."""

    def delete(self, entry: EntryId) -> None: ...

    def lease(self, entry: EntryId, until_ms: int, now_ms: int) -> bool:
        """Whether the caller alone, of all cells, may renew the entry until then, or until it is written."""

    def principals(self) -> frozenset[str]:
        """Whose grants are kept."""

    def forget(self, principal: str) -> None:
        """Delete all grants of a principal, and what is under way, which could bring them back."""

    def release(self, entry: EntryId) -> None:
        """The caller has not renewed it: another may try."""
