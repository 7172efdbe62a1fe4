"""The strategy that every transport registers, towards clients (downstream) or towards servers (upstream)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import attrs

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.protocol.eras.server_era import ServerEra

from .upstream_port import UpstreamConversation


@attrs.frozen
class ReplicaTarget:
    """What a strategy connects to, and within which bounds.

    index:        of the replica among those of its backend.
    max_overflow: connections beyond `backend.pool_size` that a busy moment may open.
    """

    backend: BackendSettings
    index: int
    max_message_bytes: int
    max_overflow: int = 0

    @property
    def address(self) -> str:
        return self.backend.replicas[self.index]

    @property
    def replica_id(self) -> str:
        return self.backend.replica_ids[self.index]

    @property
    def max_connections(self) -> int:
        return self.backend.pool_size + self.max_overflow


@runtime_checkable
class UpstreamTransport(Protocol):
    """Strategy towards servers. schemes: of the replica addresses it speaks to ("http", "builtin")."""

    name: str
    schemes: frozenset[str]

    def connect(self, target: ReplicaTarget) -> UpstreamConversation: ...


class WireTransport(Protocol):
    """As `UpstreamTransport`, with wires that share with the bridge what is known of their server's era."""

    name: str
    schemes: frozenset[str]

    def connect(self, target: ReplicaTarget, era: ServerEra) -> UpstreamConversation: ...


@runtime_checkable
class DownstreamTransport(Protocol):
    """Strategy towards clients. paths: the endpoints it serves, for people to read."""

    name: str
    paths: tuple[str, ...]


def strategy_problem(strategy: Any) -> str:
    """Why an object cannot be registered as a transport, or "" where it can."""
    name = getattr(strategy, "name", None)
    if not isinstance(name, str) or not name:
        return "a transport has a name"
    if isinstance(strategy, UpstreamTransport):
        schemes = strategy.schemes
        if not isinstance(schemes, frozenset) or not schemes or not all(isinstance(scheme, str) for scheme in schemes):
            return f"transport {name!r}: schemes must be a non-empty frozenset of strings"
        return "" if callable(strategy.connect) else f"transport {name!r}: connect must be callable"
    if isinstance(strategy, DownstreamTransport):
        paths = strategy.paths
        if not isinstance(paths, tuple) or not paths or not all(isinstance(path, str) and path.startswith("/") for path in paths):
            return f"transport {name!r}: paths must be a non-empty tuple of paths"
        return ""
    return f"transport {name!r} has neither schemes and connect (upstream) nor paths (downstream)"


def url_of(replica: str) -> str:
    """The URL of a replica's address: what stands before a "+" is our word for how to speak to it ("sse+http")."""
    scheme, separator, rest = replica.partition("://")
    return scheme.rpartition("+")[2] + separator + rest


def scheme_of(replica_id: str) -> str:
    """The scheme of a replica's address: "http", "sse+http", "stdio", "builtin"."""
    return replica_id.partition(":")[0]
