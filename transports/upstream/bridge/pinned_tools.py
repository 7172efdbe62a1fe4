"""The tools of one backend that have to stay what they were when they were approved."""

from __future__ import annotations

import logging
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.curation.tool_pins import definitions_of
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.telemetry import metrics

from .bridge_site import BridgeSite, ToolPins

CHANGED: Final = "mcp.tool.changed"
_MOST_TOLD: Final = 20
"""Of one list: a server that changes all of its tools is told of with these, and how many there were."""

_logger = logging.getLogger(__name__)
_decode_tools = msgspec.json.Decoder(list[dict[str, Raw]]).decode


class PinnedTools:
    """pins: of all backends. is_enforced: whether tools that have changed are not served."""

    def __init__(self, site: BridgeSite, pins: ToolPins, backend: str, *, is_enforced: bool) -> None:
        self._site = site
        self._pins = pins
        self._backend = backend
        self._is_enforced = is_enforced

    def withheld_of(self, result: bytes) -> frozenset[str]:
        """The names of tools on a page of `tools/list` that are not served; who has changed is told of.

        Raises: msgspec.DecodeError where it is no such page.
        """
        compared = self._pins.take(self._backend, definitions_of(_decode_tools(members(result).get("tools", Raw(b"[]")))))
        if compared.news:
            self._tell(sorted(compared.news))
        return compared.changed if self._is_enforced else frozenset()

    def withholds(self, tool: str) -> bool:
        return self._is_enforced and self._pins.is_changed(self._backend, tool)

    def _tell(self, tools: list[str]) -> None:
        what_follows = "is not served until it is approved" if self._is_enforced else "is served all the same"
        for tool in tools[:_MOST_TOLD]:
            _logger.warning("backend %s: tool %r is not what was approved, and %s", self._backend, tool[:100], what_follows)
            payload = {"backend": self._backend, "tool": tool[:1_000], "is_served": not self._is_enforced, "count": len(tools)}
            self._site.publish(CHANGED, payload)
        metrics.tool_changes_total.labels(self._backend).inc(len(tools))
