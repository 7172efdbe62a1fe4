"""What the transport registry is asked and says."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class RegisterTransport:
    """Owner of a transport -> transport registry: serve or speak it by this strategy from now on; replaces one of that name."""

    request_id: str
    strategy: Any = attrs.field(repr=False)


@attrs.frozen
class RemoveTransport:
    request_id: str
    name: str


@attrs.frozen
class TransportRefused:
    """Transport registry -> asker: the strategy is not valid, or the name is unknown."""

    request_id: str
    problem: str


@attrs.frozen
class TransportRegistered:
    request_id: str
    name: str


@attrs.frozen
class TransportRemoved:
    request_id: str
    name: str


@attrs.frozen
class ResolveScheme:
    """Connection pool -> transport registry: who speaks to `scheme` ("http")?"""

    request_id: str
    scheme: str


@attrs.frozen
class SchemeResolved:
    """Transport registry -> connection pool. strategy is None where nobody does."""

    request_id: str
    scheme: str
    strategy: Any = attrs.field(repr=False)


@attrs.frozen
class TransportsChanged:
    """Transport registry -> edge: the client transports that are registered now."""

    names: frozenset[str]
