"""The strategy towards gRPC servers, with and without the extra."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamConversation, UpstreamError
from mcp_gateway.transports.upstream.builtin.demo_conversation import BuiltinUpstream
from mcp_gateway.transports.upstream.grpc.grpc_upstream import GrpcUpstream, LoadedWire

_NOTHING_LOADED = """
import sys
from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.upstream.grpc.grpc_upstream import GrpcUpstream
GrpcUpstream().connect(ReplicaTarget(BackendSettings(name="shop", grpc="127.0.0.1:1"), 0, 1_000))
sys.exit("grpc" in sys.modules)
"""


def test_without_the_extra_the_backend_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mcp_gateway.transports.upstream.grpc.grpc_source", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    wire = GrpcUpstream().connect(ReplicaTarget(BackendSettings(name="shop", grpc="127.0.0.1:1"), 0, 1_000))
    with pytest.raises(UpstreamError, match=r"pip install 'mcp-gateway\[grpc\]'"):
        asyncio.run(wire.probe(1.0))


def test_a_backend_that_is_added_loads_nothing_yet() -> None:
    assert subprocess.run([sys.executable, "-c", _NOTHING_LOADED], check=False, timeout=120).returncode == 0


def test_what_is_loaded_is_loaded_once_and_holds_no_loop() -> None:
    threads: list[threading.Thread] = []
    made: list[UpstreamConversation] = []

    def make() -> UpstreamConversation:
        assert threading.current_thread() is threading.main_thread()
        made.append(BuiltinUpstream().connect(ReplicaTarget(BackendSettings(name="demo", builtin="demo"), 0, 1_000)))
        return made[-1]

    def load() -> object:
        threads.append(threading.current_thread())
        return make

    async def scene() -> None:
        wire = LoadedWire(load)  # type: ignore[arg-type]
        await asyncio.gather(wire.probe(1.0), wire.probe(1.0))
        await wire.probe(1.0)
        await wire.close()

    asyncio.run(scene())
    assert len(made) == len(threads) == 1
    assert threads[0] is not threading.main_thread()
