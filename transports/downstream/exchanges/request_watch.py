"""Watches requests from the first to the last byte where somebody wants to know: per tool, in the log, in traces and lately.

It stands between the edge and the sink of any transport, and only around the requests that it has something to say about.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import FAULTS, Refused
from mcp_gateway.transports.protocol.mcp.tool_outcome import TOOL_ERROR, is_tool_error
from mcp_gateway.transports.protocol.mcp.trace_context import context_in_params, trace_id_of
from mcp_gateway.transports.telemetry import metrics, tracing
from mcp_gateway.transports.telemetry.exemplars import EXEMPLARS
from mcp_gateway.transports.telemetry.log_budget import LogBudget
from mcp_gateway.transports.telemetry.tallies import CounterTally

from .recent_requests import Ended, RecentRequests, request_name
from .request_metrics import method_label

_access = logging.getLogger("mcp_gateway.access")
_TOOL: Final = "tools/call/"
_NAMING: Final = (_TOOL, "resources/read/", "prompts/get/")
_MOST_LOOKED_THROUGH_BYTES: Final = 65_536
_BY_RULE: Final = frozenset({"forbidden", "insufficient_scope", "unauthorized"})
"""Refusals by policies, which somebody asks about by the id in them. A client gets as many as it likes: not all are written."""
_WELL: Final = ("ok", TOOL_ERROR, "client_gone")
_tool_counters: dict[tuple[str, str, str], CounterTally] = {}


class RequestWatch:
    """What one cell wants to know of its requests. recent: those that named something (a tool, a resource, a prompt)."""

    def __init__(self, settings: LoggingSettings, cell_name: str) -> None:
        self.recent = RecentRequests(cell_name)
        self._cell_name = cell_name
        self._logs = settings.access
        self._sample = settings.access_sample
        self._budget = LogBudget()

    def watch(self, exchange: Exchange, sink: AnswerSink) -> tuple[Exchange, AnswerSink]:
        """The exchange with its trace context, and the sink through which its end is seen; both as they are where nobody asks."""
        message = exchange.message
        headers = exchange.headers
        if isinstance(message, Request) and "traceparent" not in headers and len(message.params) <= _MOST_LOOKED_THROUGH_BYTES:
            context = context_in_params(message.params)
            if context:
                headers = {**headers, **context}
                exchange = msgspec.structs.replace(exchange, headers=headers)
        is_traced = "traceparent" in headers
        if not (self._logs or tracing.tracer is not None or is_traced or _names_something(exchange)):
            return exchange, sink
        method = exchange.method
        span = None
        if tracing.tracer is not None:
            about = {"network.transport": exchange.transport, "mcp.protocol.version": exchange.revision}
            if exchange.principal is not None:
                about["enduser.id"] = exchange.principal.subject  # Source: OpenTelemetry semantic conventions, "General identity"
            span = tracing.tracer.server_span(method, exchange.target, headers, about)
            exchange = msgspec.structs.replace(exchange, headers=span.headers)
        return exchange, WatchedSink(self, exchange, sink, method, span)

    def note(self, exchange: Exchange, method: str, span: tracing.Span | None, ended: Ended) -> None:
        """One request is over."""
        traceparent = exchange.headers.get("traceparent", "")
        trace_id = trace_id_of(traceparent) if traceparent else None
        if trace_id is not None:
            EXEMPLARS.note(method_label(method), metrics.known_backend(ended.backend), ended.duration_s, trace_id)
        if span is not None:
            span.end(ended.outcome, backend=ended.backend)
        if _names_something(exchange):
            self.recent.note(exchange, ended, trace_id)
        if self._is_written(ended.outcome):
            self._log(exchange, method, ended, trace_id)

    def name_of(self, exchange: Exchange) -> str:
        """What a client is told, so that somebody can look for its request."""
        return request_name(self._cell_name, exchange.exchange_id)

    def _is_written(self, outcome: str) -> bool:
        """What a server or the gateway has failed at is, and what a rule forbids; all the rest where an access log is wanted."""
        if not self._logs:
            return outcome in FAULTS or (outcome in _BY_RULE and self._budget.take(time.monotonic()) is not None)
        return outcome != "ok" or self._sample >= 1.0 or random.random() < self._sample

    def _log(self, exchange: Exchange, method: str, ended: Ended, trace_id: str | None) -> None:
        fields: dict[str, object] = {
            "request_id": self.name_of(exchange),
            "transport": exchange.transport,
            "revision": exchange.revision,
            "target": exchange.target or method,
            "backend": ended.backend,
            "outcome": ended.outcome,
            "status": ended.status,
            "duration_s": round(ended.duration_s, 6),
            "upstream_s": round(ended.upstream_s, 6),
        }
        if exchange.session is not None:
            fields["session"] = exchange.session.key
        if exchange.principal is not None:
            fields["user"] = exchange.principal.key
            fields["client"] = exchange.principal.client
        if trace_id is not None:
            fields["trace_id"] = trace_id
        if ended.text:
            fields["refused"] = ended.text
        is_usual = ended.outcome in _WELL or not self._logs
        level = logging.INFO if is_usual else logging.WARNING
        _access.log(level, f"{method} {ended.outcome}", extra={"actor": f"{self._cell_name}/edge", "fields": fields})


class WatchedSink:
    """Passes everything on and notes the end. Implements `AnswerSink`."""

    __slots__ = ("_exchange", "_is_over", "_last_event", "_method", "_sink", "_span", "_started_s", "_watch")

    def __init__(self, watch: RequestWatch, exchange: Exchange, sink: AnswerSink, method: str, span: tracing.Span | None) -> None:
        self._watch = watch
        self._exchange = exchange
        self._sink = sink
        self._method = method
        self._span = span
        self._is_over = False
        self._last_event = b""
        self._started_s = time.monotonic()

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        self._end(backend, self._answered(body) if status < 400 else "error", status, upstream_s)
        self._sink.answer(status, body, headers, backend, upstream_s)

    def refuse(self, refused: Refused, backend: str) -> None:
        refused.data.setdefault("request_id", self._watch.name_of(self._exchange))
        self._end(backend, refused.reason, refused.status, refused.upstream_s, refused.text)
        self._sink.refuse(refused, backend)

    def begin(self, headers: Mapping[str, str]) -> None:
        self._sink.begin(headers)

    def event(self, data: bytes, event_id: str | None) -> None:
        self._last_event = data
        self._sink.event(data, event_id)

    def end(self, backend: str, upstream_s: float) -> None:
        self._end(backend, self._answered(self._last_event), 200, upstream_s)
        self._sink.end(backend, upstream_s)

    def gone(self) -> None:
        """The client has left before the end."""
        self._end("", "client_gone", 0, 0.0)

    def _answered(self, body: Pieces) -> str:
        """The outcome of what a server has answered, which a tool may do with its own error."""
        if not self._exchange.target.startswith(_TOOL):
            return "ok"
        return TOOL_ERROR if is_tool_error(body) else "ok"

    def _end(self, backend: str, outcome: str, status: int, upstream_s: float, text: str = "") -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._exchange.target.startswith(_TOOL):
            _count_tool(backend, self._exchange.target[len(_TOOL) :], outcome)
        duration_s = time.monotonic() - self._started_s
        ended = Ended(backend, outcome, status, duration_s, upstream_s, text)
        self._watch.note(self._exchange, self._method, self._span, ended)


def _names_something(exchange: Exchange) -> bool:
    """Whether it is about one tool, resource or prompt."""
    return exchange.target.startswith(_NAMING)


def _count_tool(backend: str, tool: str, outcome: str) -> None:
    counter = _tool_counters.get((backend, tool, outcome))
    if counter is None:
        shown_backend = metrics.known_backend(backend)
        shown = metrics.tool_label(shown_backend, tool)
        counter = CounterTally(metrics.tool_calls_total.labels(shown_backend, shown, outcome))
        if (shown_backend, shown) == (backend, tool):  # what clients make up is not remembered one by one either
            _tool_counters[backend, tool, outcome] = counter
    counter.inc()
