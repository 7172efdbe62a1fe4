"""The gRPC server of a cell: every call a request for the same endpoint, gate and limits as one over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import grpc

from mcp_gateway.config.identity_settings import TlsSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.http.streamable_http import StreamableHttpEndpoint
from mcp_gateway.transports.downstream.server.buffered_bytes import OUT
from mcp_gateway.transports.downstream.server.client_connection import Peer
from mcp_gateway.transports.downstream.server.forwarded import network_of
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.message_deadline import due_s
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.downstream.server.tls import ClientCertificate, certificate_in
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.protocol.grpc.methods import RPCS, SERVICE, GrpcMethod
from mcp_gateway.transports.protocol.grpc.values import CannotCross
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .grpc_call import CallWriter, Outcome, answer_of, body_of, headers_of, params_of, path_of, refusal

MOST_PAGES: Final = 1_000
"""Of one list: the proto has no pages, so all of them are one answer."""
_CALLS_OF_A_CONNECTION: Final = 256
_LARGEST_METADATA_BYTES: Final = 16_384
_IDLE_S: Final = 300.0
_KEEPALIVE_S: Final = 30.0
_KEEPALIVE_TIMEOUT_S: Final = 10.0
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
_NOT_SERVING: Final = b"\x08\x02"


class GrpcTransport:
    """Registry strategy for clients of MCP's own gRPC proto."""

    name = "grpc"
    paths = (f"/{SERVICE}",)


class GrpcListener(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped, and so Any here
    """Listens at `[grpc] port`, which the cells of a node share. Over TLS where the gateway has it."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        self._settings = settings
        self._server = server
        self._port = port
        self._endpoint = StreamableHttpEndpoint(server, port, GrpcTransport.name)
        self._front = _Front(server, self._endpoint)
        self._grpc: Any = None
        self._tasks = HeldTasks()

    async def listen(self) -> None:
        """Raises: OSError"""
        gateway = self._settings.gateway
        self._grpc = grpc.aio.server(handlers=[self], options=_options(self._settings))
        address = f"{f'[{gateway.host}]' if ':' in gateway.host else gateway.host}:{self._settings.grpc.port}"
        try:
            if self._settings.tls is None:
                self._grpc.add_insecure_port(address)
            else:
                self._grpc.add_secure_port(address, _credentials(self._settings.tls))
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}") from error
        await self._grpc.start()
        self._server.on_drain(self._drain)

    async def close(self, grace_s: float = 0.0) -> None:
        """Accept nothing more, and end what runs after so long."""
        await self._grpc.stop(grace_s)

    def _drain(self) -> None:
        self._tasks.start(self.close(self._settings.gateway.drain_timeout))

    # ---- calls

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        if path == _HEALTH:
            return grpc.unary_unary_rpc_method_handler(self._health)
        if (method := RPCS.get(path)) is None:
            return None

        # Answered as a stream of one message, which is the same on the wire: only so is it known when the client has read it.
        async def serve(data: bytes, context: Any) -> None:
            await self._serve(method, data, context)

        return grpc.unary_stream_rpc_method_handler(serve)

    async def _health(self, _: bytes, context: Any) -> bytes:
        """Source: gRPC, "GRPC Health Checking Protocol"."""
        return _NOT_SERVING if self._port.is_draining else _SERVING

    async def _serve(self, method: GrpcMethod, data: bytes, context: Any) -> None:
        peer = _peer_of(context)
        outcome = await self._outcome(method, data, _metadata_of(context), peer)
        if isinstance(outcome, Outcome):
            await context.abort(grpc.StatusCode[outcome.status], outcome.details, outcome.trailers)
            return
        held = self._server.buffered.of(peer.holder, OUT)
        if not held.hold(len(outcome)):
            metrics.bounds_reached_total.labels("buffered").inc()
            crowded = refusal(held.refusal())
            await context.abort(grpc.StatusCode[crowded.status], crowded.details, crowded.trailers)
            return
        try:
            async with asyncio.timeout(due_s(0.0, len(outcome))):
                await context.write(outcome)
        except TimeoutError:
            metrics.clients_cut_total.labels("write_timeout").inc()
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer was not read in time")
        finally:
            held.release()

    async def _outcome(self, method: GrpcMethod, data: bytes, metadata: Mapping[str, str], peer: Peer) -> bytes | Outcome:
        """The message, or why there is none."""
        try:
            params = params_of(method, data, metadata)
            result = await self._ask(method, params, metadata, peer)
            if method.items and not isinstance(result, Outcome):
                result = await self._whole_list(method, params, metadata, peer, result)
        except Refused as refused:
            return refusal(refused)
        if isinstance(result, Outcome):
            return result
        try:
            return method.encode_response(result)
        except CannotCross as error:
            return refusal(Refused("upstream_failed", f"the result has no form in gRPC: {error}", status=500))

    async def _whole_list(
        self, method: GrpcMethod, params: dict[str, Any], metadata: Mapping[str, str], peer: Peer, first: dict[str, Any]
    ) -> dict[str, Any] | Outcome:
        """Raises: Refused where it has too many pages."""
        items, page, pages = list(first.get(method.items, ())), first, 1
        while (cursor := page.get("nextCursor")) is not None:
            pages += 1
            if pages > MOST_PAGES:
                raise Refused("too_large", f"the list has more than {MOST_PAGES} pages")
            following = await self._ask(method, {**params, "cursor": cursor}, metadata, peer)
            if isinstance(following, Outcome):
                return following
            page = following
            items += page.get(method.items, ())
        return {**first, method.items: items}

    async def _ask(
        self, method: GrpcMethod, params: Mapping[str, Any], metadata: Mapping[str, str], peer: Peer
    ) -> dict[str, Any] | Outcome:
        writer = CallWriter(peer)
        incoming = Incoming(self._front, writer)
        try:
            incoming.head_received("POST", path_of(metadata), "HTTP/2", headers_of(method, params, metadata))
            incoming.data_received(body_of(method, params))
            incoming.finish()
            return answer_of(*await writer.answered)
        finally:
            incoming.over()  # also where its client has gone


class _Front:
    """Implements `incoming.RequestServer`: what has come over gRPC goes to one endpoint."""

    def __init__(self, server: GatewayServer, endpoint: StreamableHttpEndpoint) -> None:
        self._server = server
        self._endpoint = endpoint
        self.origins, self.proxies, self.unsent = server.origins, server.proxies, server.unsent
        self.max_message_bytes, self.buffered, self.reading = server.max_message_bytes, server.buffered, server.reading
        self.always: Mapping[str, str] = {}

    def dispatch(self, incoming: Incoming) -> None:
        self._server.serve_client(incoming, self._endpoint)

    def challenge(self, incoming: Incoming, refused: Refused) -> str | None:
        return self._server.challenge(incoming, refused)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Source: gRPC core, grpc_types.h."""
    gateway = settings.gateway
    return [
        ("grpc.max_receive_message_length", gateway.max_message_bytes),
        ("grpc.max_concurrent_streams", _CALLS_OF_A_CONNECTION),
        ("grpc.max_metadata_size", _LARGEST_METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", -(-settings.grpc.max_connections // gateway.cell_count)),
        ("grpc.server_handshake_timeout_ms", round(gateway.header_timeout * 1000)),
        ("grpc.max_connection_idle_ms", round(_IDLE_S * 1000)),
        ("grpc.keepalive_time_ms", round(_KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(_KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.so_reuseport", 1),
    ]


def _metadata_of(context: Any) -> dict[str, str]:
    """{name: value}; of a name that came twice both values, joined by a comma. Bytes are left out."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _peer_of(context: Any) -> Peer:
    kind, _, rest = unquote(context.peer()).partition(":")
    address = rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
    return Peer(address, network_of(address) if address else "", lambda: _certificate_of(context))


def _certificate_of(context: Any) -> ClientCertificate | None:
    shown = context.auth_context().get("x509_pem_cert")
    return certificate_in(ssl.PEM_cert_to_DER_cert(shown[0].decode())) if shown else None


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """With the files read again when they change: those that do not fit each other meanwhile leave what was.

    A client is asked for a certificate only where it must have one: gRPC cannot ask and go on without.
    """
    paths = [Path(path).expanduser() for path in (tls.certificate, tls.key, *([tls.client_ca] if tls.client_required else []))]

    def configuration() -> Any:
        certificate, key, *authority = (path.read_bytes() for path in paths)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority[0] if authority else None)

    def marks() -> list[int]:
        return [path.stat().st_mtime_ns for path in paths]

    seen, looked_s = marks(), time.monotonic()

    def fetch() -> Any:
        """None where nothing has changed."""
        nonlocal seen, looked_s
        if time.monotonic() - looked_s < 1.0:
            return None
        looked_s = time.monotonic()
        try:
            if (now := marks()) == seen:
                return None
            made = configuration()
        except OSError:
            return None
        seen = now
        return made

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=tls.client_required)
