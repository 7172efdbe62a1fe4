"""A pattern of topics that matches only what one client may follow. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern

from .permissions import Permissions

_MOST_KNOWN: Final = 1_000
"""Topics that are remembered for each pattern; clients make up those that they publish."""


class PermittedTopics(TopicPattern):
    """permissions: gives those that hold now; None where everybody may do everything."""

    __slots__ = ("_asked", "_known", "_permissions", "_principal")

    def __init__(self, text: str, principal: Principal | None, permissions: Callable[[], Permissions | None]) -> None:
        super().__init__(text)
        self._principal = principal
        self._permissions = permissions
        self._asked: Permissions | None = None
        self._known: dict[str, bool] = {}

    def matches(self, topic: str) -> bool:
        return super().matches(topic) and self._may_follow(topic)

    def _may_follow(self, topic: str) -> bool:
        permissions = self._permissions()
        if permissions is None:
            return True
        if permissions is not self._asked or len(self._known) >= _MOST_KNOWN:
            self._asked = permissions
            self._known.clear()
        known = self._known.get(topic)
        if known is None:
            known = self._known[topic] = permissions.may_follow(self._principal, topic)
        return known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PermittedTopics) and self._principal == other._principal and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self._principal))
