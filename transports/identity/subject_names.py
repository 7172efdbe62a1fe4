"""Principals by the names that an operator has written down. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mcp_gateway.transports.ports.principal import Principal


class SubjectNames:
    """names: of subjects; `*` stands for any text. One with a space is an issuer and a subject of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._names = frozenset(name for name in names if "*" not in name)
        self._patterns = tuple(_pattern(name) for name in names if "*" in name)

    def has(self, principal: Principal) -> bool:
        own = (principal.subject, principal.key)
        return not self._names.isdisjoint(own) or any(pattern.fullmatch(name) for pattern in self._patterns for name in own)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", name)), re.DOTALL)
