"""What the processes of a node are forked from has loaded: all they need, once, in memory that they share."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from typing import Final

from mcp_gateway.actors.runtime import thespian_hardening
from mcp_gateway.config.settings import Settings

_WITH_AIOHTTP: Final = ("sse+", "auto+", "ws:", "wss:")


def load_for_processes(settings: Settings, cell_factory: str, key: bytes) -> None:
    """Load it, with Thespian hardened; its environment is set by now."""
    gc.disable()  # this allocates and keeps: collections would find nothing
    for module in ("mcp_gateway.actors.node.node_supervisor", cell_factory.partition(":")[0], *needed_libraries(settings)):
        importlib.import_module(module)
    thespian_hardening.harden(key, settings.actor_system.bind)
    gc.freeze()  # a collection in a child would otherwise write to, and so copy, every page
    gc.enable()


def needed_libraries(settings: Settings) -> Iterator[str]:
    """What some gateways need and most do not: for all cells at once, and before the first call or token waits for it."""
    if settings.cluster is not None:
        yield "nats"
    has_issuers = settings.auth is not None and bool(settings.auth.issuers)
    if has_issuers:
        yield "jwt"
    replicas = (replica for backend in settings.backends for replica in backend.replicas)
    if has_issuers or settings.alerts.webhook_url or any(each.startswith(_WITH_AIOHTTP) for each in replicas):
        yield "aiohttp"
