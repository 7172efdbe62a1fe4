"""The gRPC server of a cell: every call a request for the same endpoint, gate and limits as one over HTTP."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

import attrs
import grpc

from mcp_gateway.config.identity_settings import TlsSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.http.streamable_http import StreamableHttpEndpoint
from mcp_gateway.transports.downstream.server.buffered_bytes import OUT, HeldBytes
from mcp_gateway.transports.downstream.server.client_connection import Peer
from mcp_gateway.transports.downstream.server.forwarded import network_of
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.message_deadline import MESSAGE_TIMEOUT_S, OVERDUE, due_s
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.downstream.server.tls import ClientCertificate, certificate_in
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.fair_turns import FairTurns
from mcp_gateway.transports.ports.large_work import LargeWork
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.grpc.methods import RPCS, SERVICE, GrpcMethod
from mcp_gateway.transports.protocol.grpc.values import CannotCross
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .grpc_call import CallWriter, Outcome, answer_of, body_of, header_name, headers_of, params_of, path_of, refusal

MOST_PAGES: Final = 1_000
"""Of one list: the proto has no pages, so all of them are one answer."""
_CALLS_OF_A_CONNECTION: Final = 256
_LARGEST_METADATA_BYTES: Final = 16_384
_READ_AHEAD_BYTES: Final = 65_535
"""Of a call whose turn to be read has not come; what HTTP/2 has each client begin with. Source: RFC 9113, section 6.9.2."""
_FEWEST_TURNS: Final = 16
"""Ours: of fewer no address would have a share that leaves some to others."""
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


@attrs.frozen
class Caller:
    """Who calls. holder: whose share the call takes before its client is known. held: the answer, as far as it is here."""

    peer: Peer
    holder: str
    held: HeldBytes
    due_s: float


class GrpcListener(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped, and so Any here
    """Listens at `[grpc] port`, which the cells of a node share. Over TLS where the gateway has it."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        self._settings = settings
        self._server = server
        self._port = port
        self._endpoint = StreamableHttpEndpoint(server, port, GrpcTransport.name)
        self._front = _Front(server, self._endpoint)
        self._turns = FairTurns(_turns(server))
        self._work = LargeWork()
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
        method = RPCS.get(path)
        if method is None and path != _HEALTH:
            return None

        # A stream both ways, which is the same on the wire: so nothing of a message is taken before somebody reads it, and it is
        # known when the client has read the answer.
        async def serve(_: Any, context: Any) -> None:
            await (self._health(context) if method is None else self._serve(method, context))

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _health(self, context: Any) -> None:
        """What is asked for is not looked at, nor read. Source: gRPC, "GRPC Health Checking Protocol"."""
        await context.write(_NOT_SERVING if self._port.is_draining else _SERVING)

    async def _serve(self, method: GrpcMethod, context: Any) -> None:
        caller, metadata = self._caller_of(context)
        try:
            outcome = await self._outcome(method, await self._message(context, caller.holder), metadata, caller)
            if isinstance(outcome, bytes):
                if not caller.held.hold(len(outcome)):
                    raise _crowded(caller)
                await _write(context, outcome)
                return
        except Refused as refused:
            outcome = refusal(refused)
        finally:
            caller.held.release()
        await context.abort(grpc.StatusCode[outcome.status], outcome.details, outcome.trailers)

    def _caller_of(self, context: Any) -> tuple[Caller, Mapping[str, str]]:
        """(who calls, the metadata of the call)"""
        peer, metadata = _peer_of(context), _metadata_of(context)
        holder = peer.holder
        if self._server.proxies.are_at(peer.remote_ip):
            told = {header_name(name): value for name, value in metadata.items()}
            holder = self._server.proxies.origin(peer.remote_ip, told).network
        due_s = time.monotonic() + self._port.terms.timeout_s
        return Caller(peer, holder, self._server.buffered.of(holder, OUT), due_s), metadata

    async def _message(self, context: Any, holder: str) -> bytes:
        """What the client asks, once it is there; until then its call counts like one that runs. Raises: Refused"""
        self._server.take_connection(GrpcTransport.name, holder)
        try:
            async with asyncio.timeout(MESSAGE_TIMEOUT_S), self._turns.turn(holder):
                message = await context.read()
        except TimeoutError:
            metrics.bounds_reached_total.labels("messages").inc()
            raise Refused("invalid_request", OVERDUE, status=408) from None
        finally:
            self._server.release_connection(GrpcTransport.name, holder)
        if message is grpc.aio.EOF:
            raise Refused("invalid_request", "a call has a message")
        return cast(bytes, message)

    async def _outcome(self, method: GrpcMethod, data: bytes, metadata: Mapping[str, str], caller: Caller) -> bytes | Outcome:
        """The message, or why there is none."""
        try:
            params = await self._work.done(caller.holder, len(data), functools.partial(params_of, method, data, metadata))
            del data  # from now on it is the body of a request, and counted there
            result = await self._ask(method, params, metadata, caller)
            if method.items and not isinstance(result, Outcome):
                result = await self._whole_list(method, params, metadata, caller, result)
        except Refused as refused:
            return refusal(refused)
        if isinstance(result, Outcome):
            return result
        try:
            encode = functools.partial(method.encode_response, result)
            return await self._work.done(caller.holder, caller.held.byte_count, encode)
        except CannotCross as error:
            return refusal(Refused("upstream_failed", f"the result has no form in gRPC: {error}", status=500))

    async def _whole_list(
        self, method: GrpcMethod, params: dict[str, Any], metadata: Mapping[str, str], caller: Caller, first: dict[str, Any]
    ) -> dict[str, Any] | Outcome:
        """Raises: Refused where it has too many pages, or has taken too long."""
        items, page, pages = list(first.get(method.items, ())), first, 1
        while (cursor := page.get("nextCursor")) is not None:
            pages += 1
            if pages > MOST_PAGES:
                raise Refused("too_large", f"the list has more than {MOST_PAGES} pages")
            if time.monotonic() > caller.due_s:
                raise Refused("upstream_timeout", f"only {pages - 1} pages of the list came in time", status=504)
            following = await self._ask(method, {**params, "cursor": cursor}, metadata, caller)
            if isinstance(following, Outcome):
                return following
            page = following
            items += page.get(method.items, ())
        return {**first, method.items: items}

    async def _ask(
        self, method: GrpcMethod, params: Mapping[str, Any], metadata: Mapping[str, str], caller: Caller
    ) -> dict[str, Any] | Outcome:
        """Raises: Refused where the answer, with the pages before it, is more than may wait for its client."""
        writer = CallWriter(caller.peer)
        incoming = Incoming(self._front, writer)
        try:
            incoming.head_received("POST", path_of(metadata), "HTTP/2", headers_of(method, params, metadata))
            incoming.data_received(body_of(method, params))
            incoming.finish()
            status, headers, body = await writer.answered
        finally:
            incoming.over()  # also where its client has gone
        if not caller.held.hold(caller.held.byte_count + len(body)):
            raise _crowded(caller)
        return answer_of(status, headers, body)


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


def _crowded(caller: Caller) -> Refused:
    metrics.bounds_reached_total.labels("buffered").inc()
    return caller.held.refusal()


async def _write(context: Any, message: bytes) -> None:
    try:
        async with asyncio.timeout(due_s(0.0, len(message))):
            await context.write(message)
    except TimeoutError:
        metrics.clients_cut_total.labels("write_timeout").inc()
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer was not read in time")


def _turns(server: GatewayServer) -> SharedBudget:
    """As many messages of the largest size as the bytes that a cell and an address may hold."""
    bytes_held = server.buffered.budget
    turns = max(_FEWEST_TURNS, bytes_held.limit // server.max_message_bytes)
    return SharedBudget(turns, bytes_held.largest_share / bytes_held.limit)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Source: gRPC core, grpc_types.h."""
    gateway = settings.gateway
    return [
        ("grpc.max_receive_message_length", gateway.max_message_bytes),
        ("grpc.max_concurrent_streams", _CALLS_OF_A_CONNECTION),
        ("grpc.http2.lookahead_bytes", _READ_AHEAD_BYTES),
        ("grpc.http2.bdp_probe", 0),  # which would have it read ahead without end
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
