"""The ways from a cell to servers, each of which any client may take."""

from __future__ import annotations

import functools

from mcp_gateway.transports.ports.strategies import UpstreamTransport
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.either_transport import EitherTransport
from mcp_gateway.transports.upstream.bridge.era_bridge import BridgeTransport
from mcp_gateway.transports.upstream.builtin.demo_conversation import BuiltinUpstream
from mcp_gateway.transports.upstream.credentials.authorized_conversation import AuthorizingTransport, connection_token
from mcp_gateway.transports.upstream.credentials.backend_access import BackendAccess
from mcp_gateway.transports.upstream.credentials.consent_conversation import ConsentingTransport
from mcp_gateway.transports.upstream.grpc.grpc_upstream import GrpcUpstream
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpUpstream
from mcp_gateway.transports.upstream.openapi.openapi_source import OpenApiUpstream
from mcp_gateway.transports.upstream.pipes.http_choice import speaks_sse
from mcp_gateway.transports.upstream.pipes.network_pipes import SseUpstream, WebSocketUpstream
from mcp_gateway.transports.upstream.pipes.stdio import StdioUpstream


def ways_to_servers(site: BridgeSite, access: BackendAccess, idle_process_s: float) -> tuple[UpstreamTransport, ...]:
    """The registry strategies of all transports. idle_process_s: as of `StdioUpstream`."""
    shared_token = functools.partial(connection_token, source_of=access.source_of)
    shown = AuthorizingTransport(StreamableHttpUpstream(), access.source_of)
    http = ConsentingTransport(BridgeTransport(shown, site), access.has_consent)
    sse = BridgeTransport(SseUpstream(shared_token), site)
    stdio = StdioUpstream(idle_process_s)
    adapted = (OpenApiUpstream(shared_token), GrpcUpstream(shared_token), BuiltinUpstream())
    others = (stdio, WebSocketUpstream(shared_token), *adapted)
    return (http, sse, EitherTransport(http, sse, speaks_sse), *(BridgeTransport(wire, site) for wire in others))
