"""The strategy towards gRPC servers, with and without the extra."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.grpc.grpc_upstream import GrpcUpstream, NotInstalled


def test_without_the_extra_the_backend_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mcp_gateway.transports.upstream.grpc.grpc_source", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    wire = GrpcUpstream().connect(ReplicaTarget(BackendSettings(name="shop", grpc="127.0.0.1:1"), 0, 1_000))
    assert isinstance(wire, NotInstalled)
    with pytest.raises(UpstreamError, match=r"pip install 'mcp-gateway\[grpc\]'"):
        asyncio.run(wire.probe(1.0))
