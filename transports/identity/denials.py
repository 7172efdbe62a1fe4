"""Who is refused whatever it shows: subjects by name or pattern, credentials by their fingerprint. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.transports.ports.principal import Principal

from .subject_names import SubjectNames


class Denials:
    """subjects: as `SubjectNames` has them. fingerprints: of credentials, as logs show them."""

    def __init__(self, subjects: Iterable[str], fingerprints: Iterable[str] = ()) -> None:
        self._subjects = SubjectNames(subjects)
        self._fingerprints = frozenset(fingerprints)

    def deny(self, principal: Principal) -> bool:
        """Whether this principal is refused."""
        return principal.fingerprint in self._fingerprints or self._subjects.has(principal)
