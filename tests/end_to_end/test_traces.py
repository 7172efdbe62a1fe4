"""Trace context through a real gateway: forwarded in any case, and with a collector a span for each side of a call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcp_gateway.transports.protocol.mcp.trace_context import trace_id_of
from tests.conftest import StartGateway
from tests.doubles.otlp_collector import CollectedSpan, start_collector
from tests.doubles.recording_backend import RecordingBackend, start_recording_backend
from tests.end_to_end.raw_http import ask, modern, tool_call
from tests.end_to_end.running_gateway import wait_until

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with start_recording_backend() as backend:
        yield backend


def call(url: str, *, headers: dict[str, str] | None = None, meta: dict[str, str] | None = None) -> int:
    message = tool_call("work", {"x": 1})
    message["params"]["_meta"] = dict(meta or {})
    body, shown = modern(message)
    return ask(url, body, {**shown, **(headers or {})}).status


def seen_by(backend: RecordingBackend) -> tuple[dict[str, str], dict[str, str]]:
    """The context of the last call: in its headers, in its `_meta`."""
    headers, message = backend.calls[-1]
    keys = ("traceparent", "tracestate", "baggage")
    meta = message["params"].get("_meta", {})
    return {key: headers[key] for key in keys if key in headers}, {key: meta[key] for key in keys if key in meta}


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_the_context_travels_on_in_headers_and_in_meta_without_any_tracing(
    form: str, backend: RecordingBackend, start_gateway: StartGateway
) -> None:
    with start_gateway(form, [{"name": "files", "replicas": [backend.url]}]) as gateway:
        url = gateway.endpoint("files")
        context = {"traceparent": PARENT, "tracestate": "vendor=1", "baggage": "tenant=7"}
        # 1. In headers: in both on the other side.
        assert call(url, headers=context) == 200
        assert seen_by(backend) == (context, context)
        # 2. In `_meta`: the same.
        assert call(url, meta=context) == 200
        assert seen_by(backend) == (context, context)
        # 3. Nowhere: nowhere.
        assert call(url) == 200
        assert seen_by(backend) == ({}, {})
        # 4. A slow bucket leads to a trace.
        assert f'trace_id="{TRACE}"' in gateway.openmetrics()


def test_one_call_is_one_trace_over_client_cell_and_backend(backend: RecordingBackend, start_gateway: StartGateway) -> None:
    with start_collector() as collector:
        telemetry = {"otlp_endpoint": collector.url, "service_name": "gateway under test"}
        backends = [{"name": "files", "replicas": [backend.url], "prefix": ""}]
        with start_gateway("node", backends, telemetry=telemetry, expects_errors=True) as gateway:
            assert call(gateway.endpoint("files"), headers={"traceparent": PARENT}) == 200
            header, meta = seen_by(backend)
            backend.status = 500
            assert call(gateway.endpoint("files"), headers={"traceparent": PARENT}) == 502

            def spans() -> list[CollectedSpan]:
                return [span for span in collector.spans if span.trace_id == TRACE]

            wait_until(lambda: len(spans()) == 4, 10, "four spans")
        server, failed_server = [span for span in spans() if span.kind == 2]
        client, failed_client = [span for span in spans() if span.kind == 3]
        # 1. The client's span is the parent of the cell's, that one of the call's, and the backend is told of that last one.
        assert server.parent_id == CLIENT_SPAN
        assert client.parent_id == server.span_id
        assert header["traceparent"] == meta["traceparent"] == f"00-{TRACE}-{client.span_id}-01"
        # 2. They say what was called, where.
        assert (server.name, server.service) == ("tools/call work", "gateway under test")
        assert client.attributes["mcp_gateway.replica"] == backend.url
        assert server.attributes["mcp_gateway.backend"] == "files"
        # 3. What failed is marked as such.
        assert (server.is_error, client.is_error, failed_server.is_error, failed_client.is_error) == (False, False, True, True)
        assert failed_server.attributes["error.type"] == "upstream_failed"


def test_a_request_without_a_trace_begins_one_and_a_collector_that_is_gone_costs_nobody_anything(
    backend: RecordingBackend, start_gateway: StartGateway
) -> None:
    backends = [{"name": "files", "replicas": [backend.url], "prefix": ""}]
    telemetry = {"otlp_endpoint": "http://127.0.0.1:9"}
    with start_gateway("embedded", backends, telemetry=telemetry, expects_errors=True) as gateway:
        for _ in range(50):
            assert call(gateway.endpoint("files")) == 200
        traces = {trace_id_of(headers["traceparent"]) for headers, _ in backend.calls}
        assert len(traces) == 50
        assert None not in traces
