"""A client that stops reading stops its own stream, and neither fills the gateway's memory nor keeps anybody else waiting."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.raw_http import BOTH_ANSWERS, ask_modern, messages_in, modern, tool_call
from tests.end_to_end.running_gateway import RunningGateway

MESSAGE_BYTES = 20_000
MESSAGE_COUNT = 1500
GROWTH_LIMIT_BYTES = 8_000_000
"""Of the 30 MB that the server has to say. The window of 64 events, their copies and the allocator's slack stay far below."""
STEADY_BYTES = 500_000
OTHERS_LIMIT_S = 3.0
"""Whoever waited for the one that pauses would wait until that one reads on."""


class SlowReader:
    """A client with a small receive buffer that reads of its answer only what it is told to."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._socket.settimeout(10)
        self._socket.connect((gateway.host, gateway.port))
        call = tool_call("log", {"message": "x" * MESSAGE_BYTES, "count": MESSAGE_COUNT}, request_id="slow reader")
        call["params"]["_meta"] = {"io.modelcontextprotocol/logLevel": "debug"}
        body, headers = modern(call)
        content = json.dumps(body).encode()
        shown = {"Host": f"{gateway.host}:{gateway.port}", "Content-Type": "application/json", "Accept": BOTH_ANSWERS, **headers}
        lines = ["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in shown.items()), f"Content-Length: {len(content)}"]
        self._socket.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + content)

    def read_some(self) -> bytes:
        return self._socket.recv(4096)

    def read_all(self) -> bytes:
        """To the end of the connection."""
        parts = []
        while part := self._socket.recv(1 << 20):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[SdkServer]:
    with start_sdk_server(era="modern") as server:
        yield server


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_client_that_pauses_costs_little_delays_nobody_and_misses_nothing(
    form: str, start_gateway: StartGateway, server: SdkServer
) -> None:
    with start_gateway(form, [{"name": "all", "prefix": "", "replicas": [server.url]}]) as gateway:
        for _ in range(20):
            ask_modern(gateway.endpoint(), tool_call("echo", {"message": "warm"}))
        before = gateway.memory_bytes()

        # 1. It reads a little, then nothing; others call meanwhile until the gateway's memory has stood still for a while.
        reader = SlowReader(gateway)
        first = reader.read_some()
        memory, steady_since_s, slowest_s = before, time.monotonic(), 0.0
        deadline_s = time.monotonic() + 15
        while time.monotonic() - steady_since_s < 1.0:
            assert time.monotonic() < deadline_s, "its memory keeps growing"
            started_s = time.monotonic()
            assert ask_modern(gateway.endpoint(), tool_call("echo", {"message": "other"})).text == "other"
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            now = gateway.memory_bytes()
            if now > memory + STEADY_BYTES:
                memory, steady_since_s = now, time.monotonic()
        assert memory - before < GROWTH_LIMIT_BYTES
        assert slowest_s < OTHERS_LIMIT_S

        # 2. It goes on, and gets everything in order.
        content = first + reader.read_all()
        reader.close()
        messages = list(messages_in(unchunked(content.partition(b"\r\n\r\n")[2])))
        numbers = [message["params"]["data"]["number"] for message in messages[:-1]]
        assert numbers == list(range(MESSAGE_COUNT))
        assert messages[-1]["id"] == "slow reader"
        assert messages[-1]["result"]["content"][0]["text"] == "logged"
        assert gateway.memory_bytes() - before < GROWTH_LIMIT_BYTES


def test_a_client_that_pauses_and_leaves_ends_its_call(start_gateway: StartGateway, server: SdkServer) -> None:
    with start_gateway("embedded", [{"name": "all", "prefix": "", "replicas": [server.url]}]) as gateway:
        reader = SlowReader(gateway)
        reader.read_some()
        reader.close()
        deadline_s = time.monotonic() + 5
        while gateway.metric_sum("mcp_gateway_pool_connections", state="leased") != 0 or not counted(gateway):
            assert time.monotonic() < deadline_s, "its connection is not free again"
            time.sleep(0.05)


def counted(gateway: RunningGateway) -> bool:
    return gateway.metric_sum("mcp_gateway_requests_total", method="tools/call") == 1


def unchunked(body: bytes) -> bytes:
    """The content of a body in chunked transfer encoding; one that is not stays as it is."""
    parts, at = [], 0
    while at < len(body):
        line_end = body.index(b"\r\n", at)
        try:
            size = int(body[at:line_end], 16)
        except ValueError:
            return body
        if size == 0:
            break
        parts.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    return b"".join(parts)
