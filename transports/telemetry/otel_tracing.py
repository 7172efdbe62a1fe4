"""The one module that imports OpenTelemetry: spans for `tracing`, sent to a collector by a thread of the SDK's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mcp_gateway.config.settings import TelemetrySettings

_QUEUED_SPANS = 2_048
_SEND_EVERY_MS = 1_000
_EXPORT_S = 2.0  # for one batch, repetitions included: a stop waits for the last one


class OtelSpan:
    """Implements `tracing.Span`."""

    __slots__ = ("_span", "headers")

    def __init__(self, span: Any, headers: Mapping[str, str]) -> None:
        self._span = span
        self.headers = headers

    def end(self, outcome: str, **attributes: str) -> None:
        for name, value in attributes.items():
            if value:
                self._span.set_attribute(f"mcp_gateway.{name}", value)
        if outcome != "ok":
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        self._span.end()


class OtelTracer:
    """Implements `tracing.Tracer`. A collector that does not answer costs spans, never requests: the queue is bounded."""

    def __init__(self, settings: TelemetrySettings, cell_name: str, version: str) -> None:
        resource = Resource.create(
            {"service.name": settings.service_name, "service.version": version, "service.instance.id": cell_name}
        )
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)))
        exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
        processor = BatchSpanProcessor(exporter, max_queue_size=_QUEUED_SPANS, schedule_delay_millis=_SEND_EVERY_MS)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mcp_gateway", version)
        self._propagator = TraceContextTextMapPropagator()

    def server_span(self, method: str, target: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> OtelSpan:
        return self._span(SpanKind.SERVER, method, target, headers, attributes)

    def client_span(self, method: str, target: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> OtelSpan:
        return self._span(SpanKind.CLIENT, method, target, headers, attributes)

    def _span(
        self, kind: SpanKind, method: str, target: str, headers: Mapping[str, str], attributes: Mapping[str, str]
    ) -> OtelSpan:
        parent = self._propagator.extract(dict(headers))
        item = target.partition(f"{method}/")[2]
        span = self._tracer.start_span(
            f"{method} {item}" if item else method,
            context=parent,
            kind=kind,
            attributes={"mcp.method.name": method, **attributes},
        )
        if method == "tools/call" and item:
            span.set_attribute("gen_ai.tool.name", item)
        carried: dict[str, str] = dict(headers)
        context = span.get_span_context()
        if context.is_valid:
            carried["traceparent"] = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        return OtelSpan(span, carried)

    def shutdown(self, timeout_ms: int) -> None:
        self._provider.force_flush(timeout_ms)
        self._provider.shutdown()
