"""Who is refused whatever it shows: subjects by name or pattern, credentials by their fingerprint. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mcp_gateway.transports.ports.principal import Principal


class Denials:
    """subjects: names; `*` stands for any text. A name with a space is an issuer and a subject of its own.

    fingerprints: of credentials, as logs show them.
    """

    def __init__(self, subjects: Iterable[str], fingerprints: Iterable[str] = ()) -> None:
        subjects = tuple(subjects)
        self._names = frozenset(name for name in subjects if "*" not in name)
        self._patterns = tuple(_pattern(name) for name in subjects if "*" in name)
        self._fingerprints = frozenset(fingerprints)

    def deny(self, principal: Principal) -> bool:
        """Whether this principal is refused."""
        names = (principal.subject, principal.key)
        return (
            principal.fingerprint in self._fingerprints
            or not self._names.isdisjoint(names)
            or any(pattern.fullmatch(name) for pattern in self._patterns for name in names)
        )


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", name)), re.DOTALL)
