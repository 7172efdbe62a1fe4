"""Spans for OpenTelemetry, where the extra `otel` is installed and a collector is configured; otherwise nothing, at no cost.

A request makes a span of kind SERVER in the cell that takes it, under the client's own; each call to a server makes one of kind
CLIENT under that, and the server is told of it in the place of the client's.
Source: OpenTelemetry semantic conventions, "Model Context Protocol"; W3C Trace Context, section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from mcp_gateway.config.settings import TelemetrySettings
from mcp_gateway.config.version import VERSION

_logger = logging.getLogger(__name__)
_FLUSH_MS = 2_000


class Span(Protocol):
    """One span. headers: what travels on, with the trace context of this span."""

    headers: Mapping[str, str]

    def end(self, outcome: str, **attributes: str) -> None:
        """Close it, once. outcome: "ok", or why it failed."""


class Tracer(Protocol):
    """Makes spans. headers: lower-case names; the context in them is the parent."""

    def server_span(self, method: str, target: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> Span: ...

    def client_span(self, method: str, target: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> Span: ...


tracer: Tracer | None = None
"""That of this process; None costs nobody anything."""


def start(settings: TelemetrySettings, cell_name: str) -> None:
    """Make spans from now on, where the settings name a collector."""
    global tracer
    if not settings.otlp_endpoint or tracer is not None:
        return
    try:
        from .otel_tracing import OtelTracer

        tracer = OtelTracer(settings, cell_name, VERSION)
    except ImportError as error:
        text = f"telemetry.otlp_endpoint is set, but there will be no spans: {error}; install mcp-gateway[otel]"
        _logger.error(text, extra={"actor": cell_name})


def stop() -> None:
    """Send what has not been sent, for a short while, and make no more spans. Blocks: for a thread."""
    global tracer
    ended: Any = tracer
    tracer = None
    if ended is not None:
        ended.shutdown(_FLUSH_MS)
