"""A supervised gateway for the Model Context Protocol, as a library: `Gateway`, its `GatewayError`, and `__version__`.

Other modules are no part of what the library promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_gateway.config.version import VERSION as __version__

if TYPE_CHECKING:
    from mcp_gateway.scripts.library.gateway import Gateway, GatewayError

__all__ = ["Gateway", "GatewayError", "__version__"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the command line sets the environment before some modules may be imported, and starts in no time."""
    if name not in ("Gateway", "GatewayError"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mcp_gateway.scripts.library import gateway

    return getattr(gateway, name)
