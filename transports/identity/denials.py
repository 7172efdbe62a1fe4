"""Who is refused: subjects by name or pattern, credentials by their fingerprint, those that a logout has ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.config.identity_settings import LogOut
from mcp_gateway.transports.ports.principal import Principal

from .log_outs import LogOuts
from .subject_names import SubjectNames


class Denials:
    """subjects: as `SubjectNames` has them. fingerprints: of credentials, as logs show them."""

    def __init__(self, subjects: Iterable[str], fingerprints: Iterable[str] = (), log_outs: Iterable[LogOut] = ()) -> None:
        self._subjects = SubjectNames(subjects)
        self._fingerprints = frozenset(fingerprints)
        self._log_outs = LogOuts(log_outs)

    def deny(self, principal: Principal) -> bool:
        """Whether this principal is refused."""
        is_named = principal.fingerprint in self._fingerprints or self._subjects.has(principal)
        return is_named or self._log_outs.ended(principal)
