"""What actors report of themselves to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class ViabilityRequested:
    request_id: str


@attrs.frozen
class ViabilityReported:
    """Viability monitor -> edge: what `/metrics/dashboard` shows of the node, JSON-able; {} in a cell that does not judge."""

    request_id: str
    report: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen
class StatusRequested:
    request_id: str


@attrs.frozen
class StatusReported:
    """Any actor -> edge: what `mcp-gateway status` shows of it, as JSON-able values."""

    request_id: str
    status: Mapping[str, Any] = attrs.field(repr=False)
